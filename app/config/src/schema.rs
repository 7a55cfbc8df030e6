//! A JSON schema of the configuration file, for editors. It is written from what the reader asks for, so that the two cannot
//! differ; the words are those of the sample file. What one key means for another only the reader knows.

/// What a key takes.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    not(any(test, feature = "schema")),
    expect(dead_code, reason = "only the schema tells what was asked for")
)]
pub(crate) enum Kind {
    Table,
    /// An array of tables.
    Tables,
    /// Tables whose names are the operator's choice.
    Named,
    Text,
    Texts,
    Words(Vec<String>),
    Boolean {
        default: bool,
    },
    Integer {
        low: u64,
        high: u64,
        default: u64,
    },
    Number {
        low: f64,
        high: f64,
        default: f64,
    },
    /// `[x, y]`, parts of the picture.
    Point,
    Points,
}

#[cfg(any(test, feature = "schema"))]
pub use written::schema;

#[cfg(any(test, feature = "schema"))]
mod written {
    use std::collections::BTreeMap;

    use serde_json::{Map, Value, json};

    use super::Kind;

    /// The schema, of JSON Schema draft 7, which editors of TOML know.
    pub fn schema() -> Value {
        let keys = crate::check::keys();
        let words = descriptions(crate::EXAMPLE);
        let mut schema = table(&keys, &words, "");
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        schema["title"] = json!("Configuration of kvs-edge");
        schema
    }

    /// The table under a path, which is empty for the whole file.
    fn table(keys: &BTreeMap<String, Kind>, words: &BTreeMap<String, String>, path: &str) -> Value {
        let mut properties = Map::new();
        for (name, key, kind) in below(keys, path) {
            let mut value = one(keys, words, key, kind);
            // What all cameras have is explained there.
            let description = words.get(key).or_else(|| words.get(key.strip_prefix("camera.")?));
            if let Some(text) = description {
                value["description"] = json!(text);
            }
            properties.insert(name.to_owned(), value);
        }
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    }

    /// Keys directly below a path, each as its name and in full.
    fn below<'k>(
        keys: &'k BTreeMap<String, Kind>,
        path: &str,
    ) -> impl Iterator<Item = (&'k str, &'k str, &'k Kind)> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        keys.iter().filter_map(move |(key, kind)| {
            let name = key.strip_prefix(&prefix)?;
            (!name.contains('.')).then_some((name, key.as_str(), kind))
        })
    }

    fn one(keys: &BTreeMap<String, Kind>, words: &BTreeMap<String, String>, key: &str, kind: &Kind) -> Value {
        let point = || {
            json!({
                "type": "array", "minItems": 2, "maxItems": 2, "items": { "type": "number", "minimum": 0, "maximum": 1 }
            })
        };
        match kind {
            Kind::Table => table(keys, words, key),
            Kind::Tables => json!({ "type": "array", "items": table(keys, words, key) }),
            Kind::Named => {
                // The sample has one of them, of all cameras.
                let of_all = key.strip_prefix("camera.").unwrap_or(key);
                let prefix = format!("{of_all}.");
                let path = keys.keys().find_map(|known| {
                    let (name, _) = known.strip_prefix(&prefix)?.split_once('.')?;
                    Some(format!("{prefix}{name}"))
                });
                let each = path.map_or(json!({ "type": "object" }), |path| table(keys, words, &path));
                json!({ "type": "object", "additionalProperties": each })
            }
            Kind::Text => json!({ "type": "string" }),
            Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Kind::Words(words) => json!({ "type": "string", "enum": words }),
            Kind::Boolean { default } => json!({ "type": "boolean", "default": default }),
            Kind::Integer { low, high, default } => {
                json!({ "type": "integer", "minimum": low, "maximum": high, "default": default })
            }
            Kind::Number { low, high, default } => {
                json!({ "type": "number", "minimum": low, "maximum": high, "default": default })
            }
            Kind::Point => point(),
            Kind::Points => json!({ "type": "array", "items": point() }),
        }
    }

    /// What the sample file says above each table and each key. One that stands below another key has no words of its own.
    fn descriptions(sample: &str) -> BTreeMap<String, String> {
        let mut words = BTreeMap::new();
        let (mut table, mut above) = (String::new(), String::new());
        for line in sample.lines() {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let key = if let Some(header) = bare.strip_prefix('[').filter(|_| bare.ends_with(']')) {
                table = header.trim_matches(['[', ']']).to_owned();
                Some(table.clone())
            } else {
                let name = bare.split_once(" = ").map(|(name, _)| name);
                let name = name.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
                name.map(|name| format!("{table}.{name}"))
            };
            let text = std::mem::take(&mut above);
            match key {
                Some(key) if !text.is_empty() => {
                    words.entry(key).or_insert(text);
                }
                None if line.starts_with("# ") => {
                    above = if text.is_empty() { bare.to_owned() } else { format!("{text} {bare}") };
                }
                _ => {}
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use toml::de::{DeTable, DeValue};

    use super::schema;

    /// Where a value does not keep to the schema.
    fn wrong(schema: &Value, value: &DeValue, path: &str, found: &mut Vec<String>) {
        let number = |text: &str| text.replace('_', "").parse::<f64>().unwrap();
        let in_range = |number: f64| {
            schema["minimum"].as_f64().is_none_or(|low| low <= number)
                && schema["maximum"].as_f64().is_none_or(|high| number <= high)
        };
        let fits = match (schema["type"].as_str().unwrap(), value) {
            ("object", DeValue::Table(table)) => {
                for (name, value) in table {
                    let known = schema["properties"].get(name.get_ref().as_ref());
                    let path = format!("{path}.{}", name.get_ref());
                    match known.or(schema["additionalProperties"]
                        .as_object()
                        .map(|_| &schema["additionalProperties"]))
                    {
                        Some(below) => wrong(below, value.get_ref(), &path, found),
                        None => found.push(path),
                    }
                }
                true
            }
            ("array", DeValue::Array(array)) => {
                for value in array {
                    wrong(&schema["items"], value.get_ref(), path, found);
                }
                let length = array.len() as u64;
                schema["minItems"].as_u64().is_none_or(|least| least <= length)
                    && schema["maxItems"].as_u64().is_none_or(|most| length <= most)
            }
            ("string", DeValue::String(text)) => {
                schema["enum"].as_array().is_none_or(|words| words.iter().any(|word| word == text.as_ref()))
            }
            ("integer" | "number", DeValue::Integer(integer)) => in_range(number(integer.as_str())),
            ("number", DeValue::Float(float)) => in_range(number(float.as_str())),
            ("boolean", DeValue::Boolean(_)) => true,
            _ => false,
        };
        if !fits {
            found.push(path.to_owned());
        }
    }

    fn judge(text: &str) -> Vec<String> {
        let table = DeTable::parse(text).unwrap().into_inner();
        let mut found = Vec::new();
        wrong(&schema(), &DeValue::Table(table), "", &mut found);
        found
    }

    /// The sample with what stands behind `#` in use, as far as it is TOML.
    fn everything_in_use() -> String {
        let in_use = |line: &'static str| {
            let bare = line.strip_prefix("# ")?;
            let key = bare
                .split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            (key || bare.starts_with('[') && bare.ends_with(']')).then_some(bare)
        };
        crate::EXAMPLE.lines().map(|line| in_use(line).unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_sample_keeps_to_the_schema() {
        assert_eq!(judge(crate::EXAMPLE), [""; 0]);
        assert_eq!(judge(&everything_in_use()), [""; 0]);
    }

    #[test]
    fn what_the_reader_refuses_by_itself_the_schema_refuses() {
        let least = "[aws]\nregion = \"eu-west-1\"\n[[camera]]\nid = \"gate\"\nurl = \"rtsp://192.0.2.1/\"\n";
        assert_eq!(judge(least), [""; 0]);
        for (text, path) in [
            ("[upload]\nfragmnt_ms = 1000\n", ".upload.fragmnt_ms"),
            ("[upload]\nfragment_ms = \"1000\"\n", ".upload.fragment_ms"),
            ("[mqtt]\nhost = \"h\"\nport = 70000\n", ".mqtt.port"),
            ("[verify]\nmode = \"always\"\n", ".verify.mode"),
            ("[[camera]]\nid = 7\n", ".camera.id"),
            ("camera = \"gate\"\n", ".camera"),
            ("[detect]\nenabled = \"yes\"\n", ".detect.enabled"),
        ] {
            assert_eq!(judge(text), [path], "{text}");
            let environment = crate::Environment::default();
            assert!(crate::Config::parse(text.as_bytes(), &environment).is_err(), "{text}");
        }
    }

    #[test]
    fn words_defaults_and_overrides_of_a_camera_are_in_it() {
        let schema = schema();
        let region = &schema["properties"]["aws"]["properties"]["region"];
        assert!(
            region["description"].as_str().unwrap().starts_with("Region of the KVS streams."),
            "{region}"
        );
        let camera = &schema["properties"]["camera"]["items"]["properties"];
        let of_all = &schema["properties"]["upload"]["properties"]["fragment_ms"];
        assert!(of_all["default"].is_u64() && of_all["maximum"].is_u64(), "{of_all}");
        let own = &camera["upload"]["properties"]["fragment_ms"];
        assert_eq!(own["maximum"], of_all["maximum"]);
        assert_eq!(own["description"], of_all["description"]);
    }
}
