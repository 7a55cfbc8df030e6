//! Walks a TOML document table by table, remembers which keys were asked for, and collects every mistake.

use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::schema::Kind;
use super::{Environment, Mistake};

/// Longest configuration file that is read.
const LIMIT_BYTES: u64 = 1 << 20;

pub(super) fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(std::io::Error::other("longer than 1 MiB"));
    }
    Ok(bytes)
}

/// Everything found so far. Offsets are bytes into the text.
pub(super) struct Report<'a> {
    pub(super) environment: &'a Environment,
    text: &'a str,
    mistakes: Vec<(usize, Mistake)>,
    warnings: Vec<(usize, Mistake)>,
    /// Keys that some section was asked for, as `camera.upload.fragment_ms`: without indices.
    #[cfg(any(test, feature = "schema"))]
    pub(super) asked: std::collections::BTreeMap<String, Kind>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str, environment: &'a Environment) -> Report<'a> {
        Report {
            environment,
            text,
            mistakes: Vec::new(),
            warnings: Vec::new(),
            #[cfg(any(test, feature = "schema"))]
            asked: Default::default(),
        }
    }

    /// Parses as much as can be parsed; what cannot is reported.
    pub(super) fn parse(&mut self) -> DeTable<'a> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let (message, expected) =
                error.message().split_once(", expected ").unwrap_or((error.message(), "TOML 1.0"));
            let at = error.span().map_or(0, |span| span.start);
            let fix = "strings need quotes, each table header its own line, each key one value";
            self.mistake(at, "syntax", message.to_owned(), expected, fix);
        }
        document.into_inner()
    }

    pub(super) fn mistake(
        &mut self,
        at: usize,
        key: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let mistake = self.describe(at, key, found.into(), expected.into(), fix.into());
        self.mistakes.push((at, mistake));
    }

    pub(super) fn warning(
        &mut self,
        at: usize,
        key: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let mistake = self.describe(at, key, found.into(), expected.into(), fix.into());
        self.warnings.push((at, mistake));
    }

    fn describe(&self, at: usize, key: &str, found: String, expected: String, fix: String) -> Mistake {
        Mistake {
            file: self.environment.file.clone(),
            position: Some(position(self.text, at)),
            key: key.to_owned(),
            found,
            expected,
            fix,
        }
    }

    /// Problems and warnings in the order of the file. A line that is not TOML is reported as such only, and keys it
    /// may have held are not reported as missing.
    pub(super) fn into_parts(mut self) -> (Vec<Mistake>, Vec<Mistake>) {
        self.mistakes.sort_by_key(|(at, _)| *at);
        self.warnings.sort_by_key(|(at, _)| *at);
        let broken: Vec<usize> = (self.mistakes.iter())
            .filter(|(_, mistake)| mistake.key == "syntax")
            .filter_map(|(_, mistake)| mistake.position.map(|(line, _)| line))
            .collect();
        let keep = |mistake: &Mistake| {
            mistake.key == "syntax"
                || broken.is_empty()
                || (mistake.found != MISSING
                    && mistake.position.is_none_or(|(line, _)| !broken.contains(&line)))
        };
        let mistakes = self.mistakes.into_iter().map(|(_, mistake)| mistake).filter(keep).collect();
        (mistakes, self.warnings.into_iter().map(|(_, mistake)| mistake).collect())
    }
}

/// `found` of a key that is not there.
const MISSING: &str = "nothing";

/// Line and column of a byte offset, both from 1, the column in characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// One table of the document, present or not.
pub(super) struct Section<'d> {
    /// Such as `camera[1].upload`; empty for the root.
    path: String,
    table: Option<&'d DeTable<'d>>,
    /// Where the table begins; for an absent one, where its parent begins.
    pub(super) at: usize,
    asked: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(super) fn root(table: &'d DeTable<'d>) -> Section<'d> {
        Section { path: String::new(), table: Some(table), at: 0, asked: Vec::new() }
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the file has the key, of whatever type.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where the value of a key stands.
    pub(super) fn at_key(&self, key: &str) -> Option<usize> {
        Some(self.table?.get(key)?.span().start)
    }

    /// The path of this table.
    pub(super) fn name(&self) -> &str {
        &self.path
    }

    /// The full path of a key of this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    #[cfg_attr(
        not(any(test, feature = "schema")),
        expect(unused_variables, reason = "only the schema tells what was asked for")
    )]
    fn ask(
        &mut self,
        report: &mut Report,
        key: &'static str,
        kind: impl FnOnce() -> Kind,
    ) -> Option<(usize, &'d DeValue<'d>)> {
        self.asked.push(key);
        #[cfg(any(test, feature = "schema"))]
        {
            report.asked.insert(header(&self.path(key)), kind());
        }
        let value = self.table?.get(key)?;
        Some((value.span().start, value.get_ref()))
    }

    fn wrong_type(
        &self,
        report: &mut Report,
        at: usize,
        key: &str,
        value: &DeValue,
        expected: &str,
        fix: &str,
    ) {
        report.mistake(at, &self.path(key), type_name(value), expected, fix);
    }

    /// A key without which nothing works.
    pub(super) fn missing(&self, report: &mut Report, key: &str, expected: &str, fix: &str) {
        report.mistake(self.at, &self.path(key), MISSING, expected, fix);
    }

    pub(super) fn string(&mut self, report: &mut Report, key: &'static str) -> Option<At<String>> {
        self.text(report, key, || Kind::Text)
    }

    fn text(
        &mut self,
        report: &mut Report,
        key: &'static str,
        kind: impl FnOnce() -> Kind,
    ) -> Option<At<String>> {
        let (at, value) = self.ask(report, key, kind)?;
        match value {
            DeValue::String(text) => Some(At { value: text.clone().into_owned(), at }),
            other => {
                self.wrong_type(report, at, key, other, "a string", &format!("write {key} = \"...\""));
                None
            }
        }
    }

    /// An integer in `range`, or `default`.
    pub(super) fn integer(
        &mut self,
        report: &mut Report,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.integer_if(report, key, range, default).map_or(default, |integer| integer.value)
    }

    /// An integer in `range`. `None`: absent or wrong; `default` is only told.
    pub(super) fn integer_if(
        &mut self,
        report: &mut Report,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Option<At<u64>> {
        let (low, high) = (range.start(), range.end());
        let (at, value) = self.ask(report, key, || Kind::Integer { low: *low, high: *high, default })?;
        let expected = format!("an integer from {low} to {high}");
        let DeValue::Integer(integer) = value else {
            self.wrong_type(report, at, key, value, &expected, &format!("write {key} = {default}"));
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if range.contains(&value) => Some(At { value, at }),
            _ => {
                let fix = format!("choose a value in the range; the default is {default}");
                report.mistake(at, &self.path(key), brief(integer.as_str()), expected, fix);
                None
            }
        }
    }

    /// A number in `range`, written as an integer or not. `None`: absent or wrong; `default` is only told.
    pub(super) fn number(
        &mut self,
        report: &mut Report,
        key: &'static str,
        range: RangeInclusive<f64>,
        default: f64,
    ) -> Option<At<f64>> {
        let (low, high) = (*range.start(), *range.end());
        let (at, value) = self.ask(report, key, || Kind::Number { low, high, default })?;
        let expected = format!("a number from {} to {}", range.start(), range.end());
        match number(value) {
            // False for what is not a number.
            Some((value, _)) if range.contains(&value) => Some(At { value, at }),
            Some((_, text)) => {
                let fix = format!("choose a value in the range; the default is {default}");
                report.mistake(at, &self.path(key), brief(text), expected, fix);
                None
            }
            None => {
                self.wrong_type(report, at, key, value, &expected, &format!("write {key} = {default}"));
                None
            }
        }
    }

    /// A list of strings. `None`: absent or wrong.
    pub(super) fn strings(&mut self, report: &mut Report, key: &'static str) -> Option<Vec<At<String>>> {
        let (at, value) = self.ask(report, key, || Kind::Texts)?;
        let (expected, fix) = ("a list of strings", format!("write {key} = [\"...\", \"...\"]"));
        let DeValue::Array(array) = value else {
            self.wrong_type(report, at, key, value, expected, &fix);
            return None;
        };
        let (mut strings, mut good) = (Vec::new(), true);
        for (i, item) in array.iter().enumerate() {
            let at = item.span().start;
            if let DeValue::String(text) = item.get_ref() {
                strings.push(At { value: text.clone().into_owned(), at });
            } else {
                let path = format!("{}[{i}]", self.path(key));
                report.mistake(at, &path, type_name(item.get_ref()), "a string", &fix);
                good = false;
            }
        }
        good.then_some(strings)
    }

    /// A place in the picture, `[x, y]`. `None`: absent or wrong.
    pub(super) fn point(&mut self, report: &mut Report, key: &'static str) -> Option<At<[f64; 2]>> {
        let (at, value) = self.ask(report, key, || Kind::Point)?;
        point(report, &self.path(key), at, value)
    }

    /// A list of places in the picture, and where the list stands. `None`: absent or wrong.
    pub(super) fn points(&mut self, report: &mut Report, key: &'static str) -> Option<At<Vec<At<[f64; 2]>>>> {
        let (at, value) = self.ask(report, key, || Kind::Points)?;
        let DeValue::Array(array) = value else {
            let fix = format!("write {key} = [[0.1, 0.5], [0.9, 0.5], [0.5, 0.9]]");
            self.wrong_type(report, at, key, value, "a list of corners", &fix);
            return None;
        };
        let mut points = Vec::new();
        for (i, item) in array.iter().enumerate() {
            let path = format!("{}[{i}]", self.path(key));
            points.push(point(report, &path, item.span().start, item.get_ref()));
        }
        Some(At { value: points.into_iter().collect::<Option<_>>()?, at })
    }

    /// The tables inside this one, each under a name of the operator's choice.
    pub(super) fn named(self, report: &mut Report) -> Vec<(At<String>, Section<'d>)> {
        #[cfg(any(test, feature = "schema"))]
        report.asked.insert(header(&self.path), Kind::Named);
        let mut sections = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let (key, at): (&str, _) = (name.get_ref(), name.span().start);
            let bare =
                !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            let shown = if bare { brief(key) } else { format!("{:?}", brief(key)) };
            let path = self.path(&shown);
            match value.get_ref() {
                DeValue::Table(table) => {
                    let section = Section { path, table: Some(table), at, asked: Vec::new() };
                    sections.push((At { value: key.to_owned(), at }, section));
                }
                other => {
                    let fix = format!("write [{}]", header(&path));
                    report.mistake(value.span().start, &path, type_name(other), "a table", fix);
                }
            }
        }
        sections
    }

    pub(super) fn boolean(&mut self, report: &mut Report, key: &'static str, default: bool) -> bool {
        match self.ask(report, key, || Kind::Boolean { default }) {
            None => default,
            Some((_, DeValue::Boolean(value))) => *value,
            Some((at, other)) => {
                self.wrong_type(report, at, key, other, "true or false", &format!("write {key} = {default}"));
                default
            }
        }
    }

    /// One of a few words. `None`: absent or wrong.
    pub(super) fn choice<T: Copy>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let kind = || Kind::Words(words.iter().map(|(word, _)| (*word).to_owned()).collect());
        let text = self.text(report, key, kind)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let all: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let fix = match closest(&text.value, words.iter().map(|(word, _)| *word)) {
            Some(word) => format!("did you mean {word:?}?"),
            None => "choose one of them".to_owned(),
        };
        report.mistake(text.at, &self.path(key), format!("{:?}", brief(&text.value)), all.join(" or "), fix);
        None
    }

    /// A table inside this one.
    pub(super) fn section(&mut self, report: &mut Report, key: &'static str) -> Section<'d> {
        let mut section = Section { path: self.path(key), table: None, at: self.at, asked: Vec::new() };
        match self.ask(report, key, || Kind::Table) {
            None => {}
            Some((at, DeValue::Table(table))) => (section.at, section.table) = (at, Some(table)),
            Some((at, other)) => {
                let fix = format!("write [{}]", header(&section.path));
                self.wrong_type(report, at, key, other, "a table", &fix);
            }
        }
        section
    }

    /// An array of tables.
    pub(super) fn sections(&mut self, report: &mut Report, key: &'static str) -> Vec<Section<'d>> {
        let fix = format!("write [[{}]] with two brackets before each one", header(&self.path(key)));
        let Some((at, value)) = self.ask(report, key, || Kind::Tables) else { return Vec::new() };
        let DeValue::Array(array) = value else {
            self.wrong_type(report, at, key, value, "an array of tables", &fix);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (i, item) in array.iter().enumerate() {
            let (path, at) = (format!("{}[{i}]", self.path(key)), item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section { path, table: Some(table), at, asked: Vec::new() });
                }
                other => report.mistake(at, &path, type_name(other), "a table", &fix),
            }
        }
        sections
    }

    /// Reports every key that nobody asked for. Values of unknown keys are never shown: they may be passwords.
    pub(super) fn finish(self, report: &mut Report) {
        for (name, _) in self.table.into_iter().flatten() {
            let key: &str = name.get_ref();
            if self.asked.contains(&key) {
                continue;
            }
            let fix = if let Some(fix) = advice(key) {
                fix.to_owned()
            } else if let Some(known) = closest(key, self.asked.iter().copied()) {
                format!("did you mean {known}?")
            } else {
                let mut known = self.asked.clone();
                known.sort_unstable();
                format!("remove it; known here: {}", known.join(", "))
            };
            report.mistake(name.span().start, &self.path(&brief(key)), "an unknown key", "a known one", fix);
        }
    }
}

/// For keys that people try although there is no such key.
fn advice(key: &str) -> Option<&'static str> {
    Some(match key {
        "password" | "pass" | "passwd" => {
            "secrets do not stand in this file: put it into a file of its own and give password_file"
        }
        "user" | "login" => "the key is username",
        "secret_access_key" | "secret_key" | "access_key" | "access_key_id" | "session_token" => {
            "keys do not stand in this file: give access_key_id_file and secret_access_key_file"
        }
        "cameras" => "write [[camera]], once for each camera",
        "model" => "the key is model_file",
        "zone" | "zones" | "line" | "lines" => {
            "each camera has its own: write [[camera.detect.zone]] or [[camera.detect.line]] below its [[camera]]"
        }
        "enable" | "disabled" => "the key is enabled = true or false",
        _ => return None,
    })
}

/// A path as table headers have it: `camera[1].upload` as `camera.upload`.
fn header(path: &str) -> String {
    let mut header = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        header.push_str(before);
        match after.split_once(']') {
            Some((index, after)) if index.bytes().all(|byte| byte.is_ascii_digit()) => rest = after,
            _ => {
                header.push('[');
                rest = after;
            }
        }
    }
    header + rest
}

/// The number and how it is written; `None` for another type. What is too large for a float is infinite.
fn number<'v>(value: &'v DeValue) -> Option<(f64, &'v str)> {
    match value {
        DeValue::Float(float) => Some((float.as_str().parse().unwrap_or(f64::NAN), float.as_str())),
        #[expect(clippy::cast_precision_loss, reason = "every range here ends far below 2^53")]
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            Some((number.map_or(f64::NAN, |number| number as f64), integer.as_str()))
        }
        _ => None,
    }
}

/// `[x, y]` within the picture.
fn point(report: &mut Report, path: &str, at: usize, value: &DeValue) -> Option<At<[f64; 2]>> {
    let found = match value {
        DeValue::Array(array) => {
            match array.iter().map(|item| number(item.get_ref())).collect::<Vec<_>>()[..] {
                [Some((x, shown_x)), Some((y, shown_y))] => {
                    if (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y) {
                        return Some(At { value: [x, y], at });
                    }
                    format!("[{}, {}]", brief(shown_x), brief(shown_y))
                }
                [_, _] => "an array with other things than numbers".to_owned(),
                ref other => format!("an array of length {}", other.len()),
            }
        }
        other => type_name(other).to_owned(),
    };
    let fix =
        "write parts of the picture from its left top corner: x in pixels / width, y in pixels / height";
    report.mistake(at, path, found, "[x, y], both from 0 to 1", fix);
    None
}

fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Printable and at most 80 characters.
pub(super) fn brief(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The candidate that is a slip of the finger away from `word`.
fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    if word.chars().count() > 40 {
        return None;
    }
    let (distance, best) = candidates.map(|candidate| (distance(word, candidate), candidate)).min()?;
    (distance <= 2.min(best.len() / 2) || best.starts_with(word) && word.len() >= 4).then_some(best)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
