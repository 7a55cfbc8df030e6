//! `cargo xtask notes VERSION`: what the changelog says of a version, as the text of a release.

use std::fs;
use std::path::Path;

pub(crate) const USAGE: &str = "\
cargo xtask notes VERSION      the release notes of a version, such as 0.1.0 or unreleased, out of the changelog";

const CHANGELOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../CHANGELOG.md");

pub(crate) fn step(arguments: &[String]) -> Result<(), String> {
    let [version] = arguments else {
        return Err(format!("found `notes {}`, expected\n\n{USAGE}", arguments.join(" ")));
    };
    let text = fs::read_to_string(Path::new(CHANGELOG)).map_err(|error| format!("{CHANGELOG}: {error}"))?;
    println!("{}", notes(&text, version).map_err(|error| format!("{CHANGELOG}: {error}"))?);
    Ok(())
}

/// What stands under the heading of the version: `## 0.1.0`, or with a date behind it, `## 0.1.0 - 2026-12-01`.
fn notes(changelog: &str, version: &str) -> Result<String, String> {
    let wanted = version.strip_prefix('v').unwrap_or(version);
    let mut versions = Vec::new();
    for section in changelog.split("\n## ").skip(1) {
        let (heading, text) = section.split_once('\n').unwrap_or((section, ""));
        let name = heading.split_whitespace().next().unwrap_or_default();
        let name = name.trim_matches(['[', ']']);
        if name.eq_ignore_ascii_case(wanted) {
            return match text.trim() {
                "" => {
                    Err(format!("nothing stands under {heading}: say what changes for those who run the box"))
                }
                text => Ok(text.to_owned()),
            };
        }
        versions.push(name);
    }
    Err(format!("found no heading \"## {version}\", expected one of: {}", versions.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog\n\nWhat changes.\n\n## Unreleased\n\n## [0.2.0] - 2026-12-24\n\n### Added\n* Two.\n\n### Fixed\n\
                        * Three.\n\n## 0.1.0\n* One.\n";

    #[test]
    fn a_version_has_what_stands_under_its_heading() {
        assert_eq!(notes(TEXT, "0.2.0").unwrap(), "### Added\n* Two.\n\n### Fixed\n* Three.");
        assert_eq!(notes(TEXT, "v0.1.0").unwrap(), "* One.");
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let error = notes(TEXT, "0.3.0").unwrap_err();
        assert_eq!(error, "found no heading \"## 0.3.0\", expected one of: Unreleased, 0.2.0, 0.1.0");
        assert!(notes(TEXT, "0.2").unwrap_err().starts_with("found no heading"));
        assert!(notes(TEXT, "unreleased").unwrap_err().starts_with("nothing stands under Unreleased"));
    }

    #[test]
    fn the_version_that_is_being_built_has_notes() {
        let text = fs::read_to_string(CHANGELOG).unwrap();
        let notes = notes(&text, env!("CARGO_PKG_VERSION")).or_else(|_| notes(&text, "unreleased")).unwrap();
        assert!(notes.contains("### Added\n* "), "{notes}");
    }
}
