//! What is wrong in a configuration file, one line each.

use std::fmt;

/// One thing to correct. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// File name as given, for the line an editor can jump to.
    pub file: String,
    /// Both from 1, the column in characters; absent where the file itself is the matter.
    pub position: Option<(usize, usize)>,
    /// Such as `camera[1].url`, cameras counted from 0; empty for the whole file.
    pub key: String,
    pub found: String,
    pub expected: String,
    pub fix: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": found {}, expected {}; fix: {}", self.found, self.expected, self.fix)
    }
}

/// Every error of one file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    pub mistakes: Vec<Mistake>,
    /// What would have been warned about in a good file.
    pub warnings: Vec<Mistake>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
