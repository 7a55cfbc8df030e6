//! Criteria: what was found against a limit. No IO.

use std::str::FromStr;

use serde::Serialize;

/// A limit as given on the command line: a number, or `off`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    Off,
    At(f64),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected a number of at least 0, or `off`")]
pub struct LimitError {
    found: String,
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Limit, LimitError> {
        if text == "off" {
            return Ok(Limit::Off);
        }
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        number.map(Limit::At).ok_or_else(|| LimitError { found: text.chars().take(64).collect() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

/// One thing to judge, before it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Criterion {
    /// The option that sets it, without dashes.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bound: Bound,
    /// `None`: not given on the command line.
    pub(crate) asked: Option<Limit>,
    pub(crate) default: Limit,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// The value, and in words what it is.
    Value(f64, String),
    /// In words what it would be, and why it is not known.
    Nothing(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// It could not be judged.
    NotMeasured,
    /// It has no limit.
    Off,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Judged {
    pub(crate) criterion: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) bound: Bound,
    pub(crate) limit: Option<f64>,
    pub(crate) found: Option<f64>,
    pub(crate) verdict: Verdict,
    /// Given on the command line.
    pub(crate) asked: bool,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

pub(crate) fn judge(criterion: &Criterion, found: Found) -> Judged {
    let limit = match criterion.asked.unwrap_or(criterion.default) {
        Limit::Off => None,
        Limit::At(limit) => Some(limit),
    };
    let (found, what, note) = match found {
        Found::Value(value, what) if value.is_finite() => (Some(value), what, None),
        Found::Value(_, what) => (None, what, Some("it is not a number".to_owned())),
        Found::Nothing(what, why) => (None, what, Some(why)),
    };
    let verdict = match (limit, found) {
        (None, _) => Verdict::Off,
        (Some(_), None) => Verdict::NotMeasured,
        (Some(limit), Some(found)) => {
            let holds = match criterion.bound {
                Bound::AtLeast => found >= limit,
                Bound::AtMost => found <= limit,
            };
            if holds { Verdict::Passed } else { Verdict::Failed }
        }
    };
    Judged {
        criterion: criterion.name,
        what,
        unit: criterion.unit,
        bound: criterion.bound,
        limit,
        found,
        verdict,
        asked: criterion.asked.is_some(),
        note,
    }
}

impl Judged {
    /// What could not be measured fails only where somebody asked for it.
    pub(crate) fn fails(&self) -> bool {
        self.verdict == Verdict::Failed || (self.verdict == Verdict::NotMeasured && self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn criterion(bound: Bound, asked: Option<Limit>, default: Limit) -> Criterion {
        Criterion { name: "x", unit: "ms", bound, asked, default }
    }

    #[test]
    fn limits_are_numbers_or_off() {
        assert_eq!("off".parse(), Ok(Limit::Off));
        assert_eq!("5.5".parse(), Ok(Limit::At(5.5)));
        assert_eq!("0".parse(), Ok(Limit::At(0.0)));
        for text in ["-1", "NaN", "inf", "", "five"] {
            let error = text.parse::<Limit>().expect_err(text).to_string();
            assert!(error.contains("expected a number of at least 0, or `off`"), "{error}");
        }
    }

    #[test]
    fn limits_themselves_pass() {
        use Bound::{AtLeast, AtMost};
        use Verdict::{Failed, Passed};
        for (bound, found, expected) in [
            (AtLeast, 5.0, Passed),
            (AtLeast, 4.999, Failed),
            (AtMost, 5.0, Passed),
            (AtMost, 5.001, Failed),
            (AtMost, 0.0, Passed),
        ] {
            let judged = judge(&criterion(bound, None, Limit::At(5.0)), Found::Value(found, "a time".into()));
            assert_eq!((judged.verdict, judged.limit, judged.found), (expected, Some(5.0), Some(found)));
            assert_eq!(judged.fails(), expected == Failed);
        }
    }

    #[test]
    fn what_is_asked_for_and_not_known_fails() {
        let nothing = || Found::Nothing("a time".into(), "detection is off".into());
        let at = Limit::At(5.0);
        for (asked, default, verdict, fails) in [
            (None, at, Verdict::NotMeasured, false),
            (Some(at), Limit::Off, Verdict::NotMeasured, true),
            (Some(Limit::Off), at, Verdict::Off, false),
            (None, Limit::Off, Verdict::Off, false),
        ] {
            let judged = judge(&criterion(Bound::AtMost, asked, default), nothing());
            assert_eq!((judged.verdict, judged.fails()), (verdict, fails), "{asked:?} {default:?}");
            assert_eq!(judged.note.as_deref(), Some("detection is off"));
        }
        // A value without a limit is shown and not judged; what is no number is not known.
        let off = criterion(Bound::AtMost, None, Limit::Off);
        assert_eq!(judge(&off, Found::Value(7.0, String::new())).found, Some(7.0));
        let judged = judge(&criterion(Bound::AtMost, Some(at), at), Found::Value(f64::NAN, String::new()));
        assert_eq!((judged.verdict, judged.fails()), (Verdict::NotMeasured, true));
    }
}
