//! A password or key that never shows itself.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest secret file that is read.
const LIMIT_BYTES: u64 = 64 * 1024;

/// A secret and the file it came from; `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    file: Option<PathBuf>,
}

/// Why a secret file gives no secret. Never holds any of its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read it: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("not a regular file")]
    NotAFile,
    #[error("longer than {LIMIT_BYTES} bytes")]
    TooLong,
    #[error("not UTF-8 text")]
    NotText,
    #[error("empty")]
    Empty,
    #[error("more than one line")]
    SeveralLines,
}

impl Secret {
    /// A secret that has no file: for programs that configure the daemon themselves.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret { value: value.into(), file: None }
    }

    /// Reads one line; its line end is not part of the secret.
    pub fn read(file: &Path) -> Result<Secret, SecretError> {
        // A pipe or a device may never end, so look before opening.
        if !std::fs::metadata(file)?.is_file() {
            return Err(SecretError::NotAFile);
        }
        let mut bytes = Vec::new();
        std::fs::File::open(file)?.take(LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT_BYTES {
            return Err(SecretError::TooLong);
        }
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(SecretError::Empty);
        }
        if line.contains(['\n', '\r']) {
            return Err(SecretError::SeveralLines);
        }
        Ok(Secret { value: line.to_owned(), file: Some(file.to_owned()) })
    }

    /// The secret as its file holds it now, for credentials that are rotated while the daemon runs.
    pub fn reread(&self) -> Result<Secret, SecretError> {
        match &self.file {
            Some(file) => Secret::read(file),
            None => Ok(self.clone()),
        }
    }

    /// The secret itself; never log it.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Where it came from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
