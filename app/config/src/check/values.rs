//! Single values: names, URLs, secrets and files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::Secret;
use crate::document::{At, Report, Section, brief, read_file};

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn seconds(
    report: &mut Report,
    section: &mut Section,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    default: Duration,
) -> Duration {
    Duration::from_secs(section.integer(report, key, range, default.as_secs()))
}

pub(super) fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Which characters a name may have.
#[derive(Clone, Copy)]
pub(super) struct Alphabet {
    text: &'static str,
    dot: bool,
}

/// Fits MQTT levels, Home Assistant ids and file names.
pub(super) const ID: Alphabet = Alphabet { text: "A-Z a-z 0-9 _ -", dot: false };
/// KVS CreateStream: `[a-zA-Z0-9_.-]+`, 1 to 256.
pub(super) const STREAM: Alphabet = Alphabet { text: "A-Z a-z 0-9 _ . -", dot: true };

impl Alphabet {
    pub(super) fn allows(self, c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_' || c == '-' || (self.dot && c == '.')
    }
}

pub(super) fn name_like(
    report: &mut Report,
    section: &Section,
    key: &str,
    name: At<String>,
    limit: usize,
    alphabet: Alphabet,
) -> Option<String> {
    let length = name.value.chars().count();
    if (1..=limit).contains(&length) && name.value.chars().all(|c| alphabet.allows(c)) {
        return Some(name.value);
    }
    let fix = if length == 0 {
        "write a name, or remove the key where it has a default".to_owned()
    } else {
        let clean: String =
            name.value.chars().map(|c| if alphabet.allows(c) { c } else { '-' }).take(limit).collect();
        format!("for example {clean:?}")
    };
    let expected = format!("1 to {limit} characters of {}", alphabet.text);
    report.mistake(name.at, &section.path(key), format!("{:?}", brief(&name.value)), expected, fix);
    None
}

/// A URL fit for a message: without user, password and query.
pub(super) fn redacted(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let shown = match url.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://***@{after}")
        }
        None => url.to_owned(),
    };
    format!("{:?}", brief(&shown))
}

pub(super) fn https_url(report: &mut Report, section: &mut Section, key: &'static str) -> Option<Url> {
    const EXPECTED: &str = "https://HOST[:PORT]";
    let text = section.string(report, key)?;
    let path = section.path(key);
    let fix = match Url::parse(&text.value) {
        Err(error) => format!("correct it ({error}), or remove it for the public endpoint"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            "use https://, or http:// on loopback".to_owned()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "remove user and password: requests are signed with the keys of [aws]".to_owned()
        }
        Ok(url) if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() => {
            "remove what follows the host: the operations add their own paths".to_owned()
        }
        Ok(url) => {
            if url.scheme() == "http" && !url.host_str().is_some_and(is_local) {
                let fix = "use https:// outside of tests";
                report.warning(text.at, &path, "footage without TLS", "https://", fix);
            }
            return Some(url);
        }
    };
    report.mistake(text.at, &path, redacted(&text.value), EXPECTED, fix);
    None
}

/// A folder that the daemon writes to; made at start where it is not there yet.
pub(super) fn own_folder(report: &mut Report, section: &mut Section, key: &'static str) -> Option<PathBuf> {
    let folder = section.string(report, key)?;
    let path = report.environment.folder.join(&folder.value);
    let found = if folder.value.is_empty() {
        "an empty path".to_owned()
    } else if path.exists() && !path.is_dir() {
        format!("{}, which is not a folder", brief(&path.display().to_string()))
    } else {
        return Some(path);
    };
    let fix = "give a folder of its own, which the daemon may write to; it is made when it is not there";
    report.mistake(folder.at, &section.path(key), found, "a folder", fix);
    None
}

/// The secret of `KEY_file` or `KEY_credential`. `None`: neither is there; `Some(Err)`: reported.
pub(super) fn secret(
    report: &mut Report,
    section: &mut Section,
    name: &str,
    file_key: &'static str,
    credential_key: &'static str,
) -> Option<Result<Secret, ()>> {
    let present = section.has(file_key) || section.has(credential_key);
    let file = section.string(report, file_key);
    let credential = section.string(report, credential_key);
    let (key, at, path) = match (file, credential) {
        (Some(_), Some(credential)) => {
            let fix = format!("remove {file_key} or {credential_key}");
            report.mistake(credential.at, &section.path(credential_key), "two sources", "one source", fix);
            return Some(Err(()));
        }
        (Some(file), None) => (file_key, file.at, report.environment.folder.join(&file.value)),
        (None, Some(credential)) => match credential_path(report, section, credential_key, &credential) {
            Some(path) => (credential_key, credential.at, path),
            None => return Some(Err(())),
        },
        (None, None) => return present.then_some(Err(())),
    };
    let found = match Secret::read(&path) {
        Ok(secret) => {
            warn_if_readable_by_all(report, &section.path(key), at, &path);
            return Some(Ok(secret));
        }
        Err(error) => format!("{} ({error})", file_name(&path, &report.environment.folder)),
    };
    let expected = format!("a readable file with the {} on one line", name.replace('_', " "));
    let fix = if name == "password" {
        "create it for the user of the daemon alone (chmod 600); the key takes a path, never the password itself"
    } else {
        "create it for the user of the daemon alone (chmod 600)"
    };
    report.mistake(at, &section.path(key), found, expected, fix);
    Some(Err(()))
}

fn credential_path(report: &mut Report, section: &Section, key: &str, name: &At<String>) -> Option<PathBuf> {
    let key = section.path(key);
    let value = &name.value;
    if value.is_empty() || value.contains(['/', '\0']) || value == "." || value == ".." {
        let fix = "write the name that LoadCredential= gives it, without a path";
        report.mistake(name.at, &key, format!("{:?}", brief(value)), "the name of a systemd credential", fix);
        return None;
    }
    if report.environment.credentials.is_none() {
        let fix = format!("add LoadCredential={value}:FILE to the unit, or use the _file key");
        report.mistake(
            name.at,
            &key,
            "no $CREDENTIALS_DIRECTORY",
            "a start by systemd with credentials",
            fix,
        );
        return None;
    }
    report.environment.credentials.as_ref().map(|folder| folder.join(value))
}

/// Where the keys of `KEY_file` or `KEY_credential` lie. They are read where they are used: without them the daemon starts all
/// the same, so that one that is not there is a warning.
pub(super) fn key_file(
    report: &mut Report,
    section: &mut Section,
    file_key: &'static str,
    credential_key: &'static str,
) -> Option<PathBuf> {
    let file = section.string(report, file_key);
    let credential = section.string(report, credential_key);
    let (key, at, path) = match (file, credential) {
        (Some(_), Some(credential)) => {
            let fix = format!("remove {file_key} or {credential_key}");
            report.mistake(credential.at, &section.path(credential_key), "two sources", "one source", fix);
            return None;
        }
        (Some(file), None) => (file_key, file.at, report.environment.folder.join(&file.value)),
        (None, Some(credential)) => {
            (credential_key, credential.at, credential_path(report, section, credential_key, &credential)?)
        }
        (None, None) => return None,
    };
    match read_file(&path) {
        Ok(_) => warn_if_readable_by_all(report, &section.path(key), at, &path),
        Err(error) => {
            let found = format!("{} ({error})", file_name(&path, &report.environment.folder));
            let fix = "make it with openssl rand -hex 32, for the user of the daemon alone (chmod 600); without it footage waits in \
                       memory only";
            report.warning(at, &section.path(key), found, "a readable file with a key a line", fix);
        }
    }
    Some(path)
}

/// The path as an operator knows it. A bare name is not repeated: it may be a password in the wrong place.
fn file_name(path: &Path, folder: &Path) -> String {
    match path.parent() {
        Some(parent) if parent == folder => {
            format!("a file in {}", brief(&folder.join("").display().to_string()))
        }
        _ => brief(&path.display().to_string()),
    }
}

#[cfg(unix)]
fn warn_if_readable_by_all(report: &mut Report, key: &str, at: usize, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        let fix = format!("chmod 600 {}", path.display());
        report.warning(at, key, format!("mode {mode:03o}"), "a secret that only its owner can read", fix);
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_all(_: &mut Report, _: &str, _: usize, _: &Path) {}

/// A PEM file that holds at least one block whose label ends in `label`. Its content is checked where it is used.
pub(super) fn pem_file(
    report: &mut Report,
    section: &mut Section,
    key: &'static str,
    label: &str,
    is_secret: bool,
) -> Option<PathBuf> {
    let file = section.string(report, key)?;
    let path = report.environment.folder.join(&file.value);
    let found = match read_file(&path) {
        Ok(bytes) => {
            let marker = format!("{label}-----");
            let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&marker);
            if String::from_utf8_lossy(&bytes).lines().any(begins) {
                if is_secret {
                    warn_if_readable_by_all(report, &section.path(key), file.at, &path);
                }
                return Some(path);
            }
            format!("{} without such a block", brief(&path.display().to_string()))
        }
        Err(error) => format!("{} ({error})", brief(&path.display().to_string())),
    };
    let expected = format!("a PEM file with -----BEGIN {label}-----");
    report.mistake(file.at, &section.path(key), found, expected, "check path, permissions and format");
    None
}

/// A file that can be read; its content is checked where it is used.
pub(super) fn file(
    report: &mut Report,
    section: &mut Section,
    key: &'static str,
    expected: &str,
) -> Option<PathBuf> {
    let file = section.string(report, key)?;
    let path = report.environment.folder.join(&file.value);
    // A pipe or a device may never end, so look before opening.
    let found = match std::fs::metadata(&path).and_then(|metadata| {
        let is_file = metadata.is_file();
        if is_file { std::fs::File::open(&path).map(|_| is_file) } else { Ok(is_file) }
    }) {
        Ok(true) => return Some(path),
        Ok(false) => format!("{} (not a regular file)", brief(&path.display().to_string())),
        Err(error) => format!("{} ({error})", brief(&path.display().to_string())),
    };
    report.mistake(file.at, &section.path(key), found, expected, "check path and permissions");
    None
}
