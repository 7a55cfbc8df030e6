//! Names of the classes: from a file with one label a line, or from the model's own metadata.

use std::collections::HashMap;

/// Most labels; the largest detection data sets have about a thousand.
pub const MAX_LABELS: usize = 4096;
/// Longest label, bytes of UTF-8: labels become parts of MQTT topics and of file names.
pub const MAX_LABEL_BYTES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    #[error("it is not UTF-8 text (byte {at})")]
    NotText { at: usize },
    #[error("it has no label; expected one a line, in the order of the model's classes")]
    Empty,
    #[error("line {line} is empty; expected one label a line")]
    EmptyLine { line: usize },
    #[error("label {label:?} on line {line} has {bytes} bytes, at most {MAX_LABEL_BYTES} are taken")]
    TooLong { line: usize, label: String, bytes: usize },
    #[error("label {label:?} on line {line} has a control character")]
    Control { line: usize, label: String },
    #[error("label {label:?} stands on line {first} and again on line {line}")]
    Duplicate { label: String, first: usize, line: usize },
    #[error("it has more than {MAX_LABELS} labels")]
    TooMany,
    #[error("it is not of the form {{0: 'person', 1: 'car'}} (byte {at})")]
    Metadata { at: usize },
    #[error("class {class} has no name")]
    Missing { class: usize },
}

/// Reads a label file: UTF-8, one label a line, line 1 is class 0. Spaces around a label and empty lines at the end do
/// not count.
pub fn parse(bytes: &[u8]) -> Result<Vec<String>, LabelsError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| LabelsError::NotText { at: error.valid_up_to() })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    if text.is_empty() {
        return Err(LabelsError::Empty);
    }
    check(text.lines().map(|line| line.trim().to_owned()))
}

fn check(lines: impl Iterator<Item = String>) -> Result<Vec<String>, LabelsError> {
    let mut labels = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (label, line) in lines.zip(1..) {
        let bytes = label.len();
        if label.is_empty() {
            return Err(LabelsError::EmptyLine { line });
        }
        if bytes > MAX_LABEL_BYTES {
            let label = label.chars().take(16).chain(['…']).collect();
            return Err(LabelsError::TooLong { line, label, bytes });
        }
        if label.chars().any(char::is_control) {
            return Err(LabelsError::Control { line, label });
        }
        if labels.len() == MAX_LABELS {
            return Err(LabelsError::TooMany);
        }
        if let Some(first) = seen.insert(label.clone(), line) {
            return Err(LabelsError::Duplicate { label, first, line });
        }
        labels.push(label);
    }
    Ok(labels)
}

/// Reads the `names` that Ultralytics writes into its exports: the text form of a Python dictionary,
/// `{0: 'person', 1: "driver's cab"}`. Lines of errors count from 1 as those of a file do.
pub fn parse_metadata(names: &str) -> Result<Vec<String>, LabelsError> {
    let mut by_class: HashMap<usize, String> = HashMap::new();
    let mut rest = Rest { text: names, at: 0 };
    rest.expect('{')?;
    while !rest.accept('}') {
        let class = rest.number()?;
        rest.expect(':')?;
        let label = rest.quoted()?;
        by_class.insert(class, label);
        if by_class.len() > MAX_LABELS {
            return Err(LabelsError::TooMany);
        }
        if !rest.accept(',') {
            rest.expect('}')?;
            break;
        }
    }
    if by_class.is_empty() {
        return Err(LabelsError::Empty);
    }
    let labels: Result<Vec<String>, _> = (0..by_class.len())
        .map(|class| by_class.remove(&class).ok_or(LabelsError::Missing { class }))
        .collect();
    check(labels?.into_iter())
}

struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl Rest<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Result<char, LabelsError> {
        let found = self.peek().ok_or(LabelsError::Metadata { at: self.at })?;
        self.at += found.len_utf8();
        Ok(found)
    }

    fn skip_spaces(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn accept(&mut self, expected: char) -> bool {
        self.skip_spaces();
        let found = self.peek() == Some(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn expect(&mut self, expected: char) -> Result<(), LabelsError> {
        if self.accept(expected) { Ok(()) } else { Err(LabelsError::Metadata { at: self.at }) }
    }

    fn number(&mut self) -> Result<usize, LabelsError> {
        self.skip_spaces();
        let start = self.at;
        while self.peek().is_some_and(|digit| digit.is_ascii_digit()) {
            self.at += 1;
        }
        self.text[start..self.at].parse().map_err(|_| LabelsError::Metadata { at: start })
    }

    /// A Python string in either kind of quotes, with backslashes before quotes and backslashes.
    fn quoted(&mut self) -> Result<String, LabelsError> {
        self.skip_spaces();
        let at = self.at;
        let quote = self.next()?;
        if quote != '\'' && quote != '"' {
            return Err(LabelsError::Metadata { at });
        }
        let mut label = String::new();
        loop {
            match self.next()? {
                end if end == quote => return Ok(label),
                '\\' => label.push(self.next()?),
                other => label.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_label_a_line() {
        let check = |text: &[u8], expected: Result<&[&str], LabelsError>| {
            let expected =
                expected.map(|labels| labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>());
            assert_eq!(parse(text), expected, "{:?}", String::from_utf8_lossy(text));
        };
        check(b"person\nvehicle\n", Ok(&["person", "vehicle"]));
        check("\u{feff}person\r\npotted plant\r\n\r\n".as_bytes(), Ok(&["person", "potted plant"]));
        check(b"", Err(LabelsError::Empty));
        check(b" \n\n", Err(LabelsError::Empty));
        check(b"person\n\nvehicle", Err(LabelsError::EmptyLine { line: 2 }));
        check(b"person\n\xff\xfe", Err(LabelsError::NotText { at: 7 }));
        check(b"a\nb\na", Err(LabelsError::Duplicate { label: "a".into(), first: 1, line: 3 }));
        check(b"a\tb", Err(LabelsError::Control { line: 1, label: "a\tb".into() }));
        check(
            &[b'x'; 65],
            Err(LabelsError::TooLong { line: 1, label: format!("{}…", "x".repeat(16)), bytes: 65 }),
        );
        let many: Vec<String> = (0..=MAX_LABELS).map(|n| n.to_string()).collect();
        check(many.join("\n").as_bytes(), Err(LabelsError::TooMany));
    }

    #[test]
    fn names_of_the_metadata() {
        let check = |text: &str, expected: Result<&[&str], LabelsError>| {
            let expected =
                expected.map(|labels| labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>());
            assert_eq!(parse_metadata(text), expected, "{text}");
        };
        check("{0: 'person', 1: 'vehicle'}", Ok(&["person", "vehicle"]));
        check("{1: \"driver's cab\", 0: 'a\\'b',}", Ok(&["a'b", "driver's cab"]));
        check("{}", Err(LabelsError::Empty));
        check("['person']", Err(LabelsError::Metadata { at: 0 }));
        check("{0: 'person', 2: 'x'}", Err(LabelsError::Missing { class: 1 }));
        check("{0: 'person", Err(LabelsError::Metadata { at: 11 }));
        check("{99999999999999999999: 'x'}", Err(LabelsError::Metadata { at: 1 }));
    }
}
