//! What is promised to callers since a version, and whether a change keeps it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::listing::{PRIVATE, REQUIRED};

const HEAD: &str = "# Public items of kvs-client, of all features, and of what it re-exports. Written by `cargo xtask api`.\n\
                    # In front of a line: + is new since the version below, - was there and is gone or has changed.\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64, u64, u64);

/// The file as it was written last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    since: Version,
    /// In that version.
    promised: BTreeSet<String>,
    /// When it was written.
    recorded: BTreeSet<String>,
}

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// The first one that may take something away, as cargo understands versions.
    fn next_breaking(self) -> Self {
        if self.0 == 0 { Self(0, self.1 + 1, 0) } else { Self(self.0 + 1, 0, 0) }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Promise {
    pub(crate) fn of(since: Version, items: &[String]) -> Self {
        let items: BTreeSet<String> = items.iter().cloned().collect();
        Self { since, promised: items.clone(), recorded: items }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut since, mut promised, mut recorded) = (None, BTreeSet::new(), BTreeSet::new());
        for (line, number) in text.lines().zip(1..) {
            if line.starts_with('#') {
                continue;
            }
            let version = line.strip_prefix("since ").and_then(Version::parse);
            match (line.split_at_checked(2), version) {
                (_, Some(version)) => since = Some(version),
                (Some(("  ", item)), _) => {
                    promised.insert(item.to_owned());
                    recorded.insert(item.to_owned());
                }
                (Some(("+ ", item)), _) => drop(recorded.insert(item.to_owned())),
                (Some(("- ", item)), _) => drop(promised.insert(item.to_owned())),
                _ => return Err(format!("line {number} is `{line}`, expected two signs and an item")),
            }
        }
        Ok(Self { since: since.ok_or("no line says since which version")?, promised, recorded })
    }

    /// The file for these items: they in their order, then what is gone.
    pub(crate) fn record(&self, items: &[String]) -> String {
        let mut text = format!("{HEAD}since {}\n", self.since);
        for item in items {
            let mark = if self.promised.contains(item) { ' ' } else { '+' };
            let _ = writeln!(text, "{mark} {item}");
        }
        let now: BTreeSet<&String> = items.iter().collect();
        for gone in self.promised.iter().filter(|item| !now.contains(item)) {
            let _ = writeln!(text, "- {gone}");
        }
        text
    }

    /// Whether this version may look like this.
    pub(crate) fn keeps(&self, items: &[String], version: Version) -> Result<(), String> {
        let breaks = self.breaks(items);
        let needed = self.since.next_breaking();
        if breaks.is_empty() || version >= needed {
            return Ok(());
        }
        Err(format!(
            "{} changes break callers of kvs-client {}, and its version is {version}:\n{}\n\
             either keep what is there (add beside it, mark it deprecated), or make the version of kvs-client {needed} \
             (app/kvs-client/Cargo.toml), say in app/CHANGELOG.md what callers change, and run `cargo xtask api`",
            breaks.len(),
            self.since,
            breaks.join("\n")
        ))
    }

    /// Whether the file says what is there.
    pub(crate) fn is_of(&self, items: &[String]) -> Result<(), String> {
        let now: BTreeSet<String> = items.iter().cloned().collect();
        let new = now.difference(&self.recorded).map(|item| format!("+ {item}"));
        let gone = self.recorded.difference(&now).map(|item| format!("- {item}"));
        let changes: Vec<String> = new.chain(gone).collect();
        if changes.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the public items of kvs-client are not those of app/kvs-client/public-api.txt:\n{}\n\
             if callers shall have them, run `cargo xtask api` and commit the file with the change",
            changes.join("\n")
        ))
    }

    /// What a caller that compiles with the promised version may trip over.
    fn breaks(&self, items: &[String]) -> Vec<String> {
        let now: BTreeSet<&String> = items.iter().collect();
        let gone = self.promised.iter().filter(|item| !now.contains(item)).map(|item| format!("- {item}"));
        let new = items.iter().filter(|item| !self.promised.contains(*item) && self.is_in_the_way(item));
        gone.chain(new.map(|item| format!("+ {item}"))).collect()
    }

    /// Of a new item: what is there so far must know about it.
    fn is_in_the_way(&self, item: &str) -> bool {
        let Some((kind, path)) = parts(item) else { return false };
        let Some((owner, _)) = path.rsplit_once("::") else { return false };
        let of_owner = |kinds: &[&str]| {
            let is = |line: &&String| {
                parts(line).is_some_and(|(kind, path)| path == owner && kinds.contains(&kind))
            };
            self.promised.iter().find(is)
        };
        if item.ends_with(REQUIRED) {
            return of_owner(&["trait"]).is_some();
        }
        // A variant or a field: matches name every variant, and whoever builds one names every field.
        let open = |line: &String| line.starts_with(OPEN) || line.ends_with(PRIVATE);
        kind.is_empty() && of_owner(&["enum", "struct", "union", ""]).is_some_and(|line| !open(line))
    }
}

/// Callers count on more of them.
const OPEN: &str = "#[non_exhaustive] ";

/// Kind and path of an item: `fn` and `a::b` of `pub async fn a::b(u8)`; no kind of a field or variant, as `pub a::B::c: u8`.
fn parts(item: &str) -> Option<(&str, &str)> {
    let item = item.strip_prefix(OPEN).unwrap_or(item);
    let (mut kind, mut rest) = ("", item.strip_prefix("pub ")?);
    loop {
        let end = rest.find(|sign: char| !sign.is_alphanumeric() && !"_:".contains(sign));
        let word = &rest[..end.unwrap_or(rest.len())];
        if word.contains("::") {
            return Some((kind, word.trim_end_matches(':')));
        }
        rest = rest[word.len()..].strip_prefix(' ')?;
        kind = word;
    }
}
