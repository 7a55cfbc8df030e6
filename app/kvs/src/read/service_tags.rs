//! What the service says of a fragment in tags of its own.

use super::chunk::Failure;
use crate::{FragmentNumber, tag};

/// One such tag. `None`: its value is none that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceTag {
    Number(Option<FragmentNumber>),
    ServerTimestamp(Option<u64>),
    ProducerTimestamp(Option<u64>),
    MillisBehindNow(Option<u64>),
    ContinuationToken,
    /// A part of what [`FailureTags`] puts together.
    Failure,
}

impl ServiceTag {
    /// `None`: the tag is the producer's.
    pub(super) fn read(name: &str, value: &str) -> Option<Self> {
        Some(match name {
            tag::FRAGMENT_NUMBER => Self::Number(value.parse().ok()),
            tag::SERVER_TIMESTAMP | tag::SERVER_TIMESTAMP_DOCUMENTED => {
                Self::ServerTimestamp(tag::parse_seconds(value))
            }
            tag::PRODUCER_TIMESTAMP | tag::PRODUCER_TIMESTAMP_DOCUMENTED => {
                Self::ProducerTimestamp(tag::parse_seconds(value))
            }
            tag::MILLIS_BEHIND_NOW => Self::MillisBehindNow(value.parse().ok()),
            tag::CONTINUATION_TOKEN => Self::ContinuationToken,
            tag::ERROR_CODE | tag::EXCEPTION_ERROR_CODE | tag::ERROR_ID | tag::EXCEPTION_MESSAGE => {
                Self::Failure
            }
            _ => return None,
        })
    }
}

/// In place of a fragment the service may say, inside its answer, why there is none: in two or three tags, whose names
/// differ between its operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FailureTags {
    code: Option<String>,
    id: Option<String>,
    message: Option<String>,
}

impl FailureTags {
    /// Other tags are passed over.
    pub(super) fn take(&mut self, name: &str, value: &str) {
        let part = match name {
            tag::ERROR_CODE | tag::EXCEPTION_ERROR_CODE => &mut self.code,
            tag::ERROR_ID => &mut self.id,
            tag::EXCEPTION_MESSAGE => &mut self.message,
            _ => return,
        };
        *part = Some(value.to_owned());
    }

    /// `None`: there is no such tag. The id stands for a code that is missing, else for the message.
    pub(super) fn failure(self, number: Option<FragmentNumber>) -> Option<Failure> {
        let (code, message) = match (self.code, self.id, self.message) {
            (None, None, None) => return None,
            (Some(code), id, message) => (code, message.or(id)),
            (None, id, message) => (id.unwrap_or_default(), message),
        };
        Some(Failure { number, code, message: message.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_in_whatever_order_its_tags_come() {
        let check = |tags: &[(&str, &str)], expected: Option<(&str, &str)>| {
            for turned in [false, true] {
                let mut found = FailureTags::default();
                let order: Vec<_> = if turned { tags.iter().rev().collect() } else { tags.iter().collect() };
                order.iter().for_each(|(name, value)| found.take(name, value));
                let failure = found.failure(None);
                let found = failure.as_ref().map(|failure| (failure.code.as_str(), failure.message.as_str()));
                assert_eq!(found, expected, "{order:?}");
            }
        };
        check(&[], None);
        check(&[("place", "gate"), (tag::FRAGMENT_NUMBER, "1")], None);
        check(
            &[(tag::ERROR_CODE, "INTERNAL_ERROR"), (tag::ERROR_ID, "5000")],
            Some(("INTERNAL_ERROR", "5000")),
        );
        check(&[(tag::ERROR_ID, "5000")], Some(("5000", "")));
        check(
            &[(tag::EXCEPTION_ERROR_CODE, "4000"), (tag::EXCEPTION_MESSAGE, "gone")],
            Some(("4000", "gone")),
        );
        check(&[(tag::EXCEPTION_MESSAGE, "gone")], Some(("", "gone")));
    }

    #[test]
    fn both_spellings_of_times_are_read_and_what_cannot_be_read_is_none() {
        let time = Some(1_795_186_073_633);
        for name in [tag::SERVER_TIMESTAMP, tag::SERVER_TIMESTAMP_DOCUMENTED] {
            assert_eq!(ServiceTag::read(name, "1795186073.633"), Some(ServiceTag::ServerTimestamp(time)));
        }
        for name in [tag::PRODUCER_TIMESTAMP, tag::PRODUCER_TIMESTAMP_DOCUMENTED] {
            assert_eq!(ServiceTag::read(name, "1795186073.633"), Some(ServiceTag::ProducerTimestamp(time)));
        }
        assert_eq!(ServiceTag::read(tag::MILLIS_BEHIND_NOW, "-1"), Some(ServiceTag::MillisBehindNow(None)));
        assert_eq!(ServiceTag::read(tag::FRAGMENT_NUMBER, "1"), Some(ServiceTag::Number(None)));
        assert_eq!(ServiceTag::read("AWS_KINESISVIDEO_NEW", "1"), None);
    }
}
