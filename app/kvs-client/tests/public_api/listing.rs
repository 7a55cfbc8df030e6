//! The public items of crates, one line each, as the compiler knows them.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Under which modules of a crate's files items are listed; all of it without any.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) modules: &'static [&'static str],
}

/// Has `cargo` describe these crates below the target folder, where what it needs is built already, and lists them.
pub(crate) fn of_crates(parts: &[Part]) -> Vec<String> {
    let program = std::env::current_exe().expect("this program has a path");
    // target/debug/deps/public_api-0123456789abcdef
    let target = program.ancestors().nth(3).expect("in the target folder");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["doc", "--quiet", "--no-deps", "--lib", "--all-features", "--locked", "--target-dir"]);
    cargo.arg(target).args(parts.iter().flat_map(|part| ["--package", part.name]));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.env("RUSTDOC", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/public_api/rustdoc.sh"));
    cargo.env("RUSTDOCFLAGS", "-Zunstable-options --output-format json --cap-lints allow");
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = |part: &Part| target.join("doc").join(format!("{}.json", part.name.replace('-', "_")));
    parts.iter().flat_map(|part| of_json(&file(part), part.modules)).collect()
}

/// Of one crate, as rustdoc has described it.
pub(crate) fn of_json(path: &Path, modules: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let items = public_api::Builder::from_rustdoc_json(path).omit_blanket_impls(true).build();
    let items = items.unwrap_or_else(|error| {
        let found = &json["format_version"];
        panic!(
            "{}: {error}: found format {found} of rustdoc, expected 57, that of Rust 1.95, which the crate public-api \
             reads in the version of the workspace's Cargo.toml: run with Rust 1.95",
            path.display()
        )
    });
    let parents: HashMap<u32, u32> =
        items.items().filter_map(|item| Some((item.id().0, item.parent_id()?.0))).collect();
    let told = |item: &public_api::PublicItem| {
        let (id, parent) = (item.id().0, item.parent_id().map(|id| id.0));
        if !modules.is_empty() && !lies_in(&json, &parents, id, modules) {
            return None;
        }
        let note = note(&inner(&json, id), parent.map(|id| inner(&json, id)).as_ref())?;
        Some(format!("{item}{note}"))
    };
    let mut lines: Vec<String> = items.items().filter_map(told).collect();
    // What is named in two places stands at the first.
    let mut seen = std::collections::HashSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    lines
}

fn inner(json: &Value, id: u32) -> Value {
    json["index"][id.to_string()]["inner"].clone()
}

/// Whether an item, or what it belongs to, stands in one of these modules.
fn lies_in(json: &Value, parents: &HashMap<u32, u32>, mut id: u32, modules: &[&str]) -> bool {
    loop {
        if let Some(path) = json["paths"][id.to_string()]["path"].as_array() {
            let path: Vec<&str> = path.iter().skip(1).filter_map(Value::as_str).collect();
            return modules.iter().any(|module| module.split("::").zip(&path).all(|(a, b)| a == *b));
        }
        match parents.get(&id) {
            Some(parent) => id = *parent,
            None => return false,
        }
    }
}

/// What the line of an item leaves out and its users depend upon; `None`: another line says the same.
fn note(item: &Value, parent: Option<&Value>) -> Option<&'static str> {
    if let Some(one) = item.get("impl") {
        let of = one["trait"]["path"].as_str();
        // Of those that the compiler derives from the fields only these two matter to callers.
        let wanted =
            |of: &str| !one["is_synthetic"].as_bool().unwrap_or(false) || ["Send", "Sync"].contains(&of);
        return of.filter(|of| wanted(of) && *of != "StructuralPartialEq").map(|_| "");
    }
    let of_trait = parent.is_some_and(|parent| parent.get("trait").is_some());
    let of_impl = parent.and_then(|parent| parent.get("impl"));
    if let Some(function) = item.get("function") {
        // The trait says what its methods look like.
        if of_impl.is_some_and(|of_impl| !of_impl["trait"].is_null()) {
            return None;
        }
        let required = of_trait && !function["has_body"].as_bool().unwrap_or(true);
        return Some(if required { REQUIRED } else { "" });
    }
    let absent = |kind: &str, default: &str| item.get(kind).is_some_and(|one| one[default].is_null());
    if of_trait && (absent("assoc_type", "type") || absent("assoc_const", "value")) {
        return Some(REQUIRED);
    }
    let fields = item.get("struct").map(|one| &one["kind"]);
    let stripped = fields.is_some_and(|kind| {
        let tuple = kind["tuple"].as_array().is_some_and(|fields| fields.iter().any(Value::is_null));
        tuple || kind["plain"]["has_stripped_fields"].as_bool().unwrap_or(false)
    });
    Some(if stripped { PRIVATE } else { "" })
}

/// An implementation of the trait must have it.
pub(crate) const REQUIRED: &str = " // required";
/// Nobody builds one from its fields.
pub(crate) const PRIVATE: &str = " // has private fields";
