//! Compares the rows of ListFragments with what was sent and acknowledged.
//!
//! A row has to state the number of the ack, the producer time and length of the fragment, a size that accounts for it, and
//! the server time that its number carries.
//!
//! What a size counts is documented as "the fragment and information about it", no more: the cluster in any case, and of what
//! we send around it and KVS writes around it something. So the size is known to within these, and not to the byte.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::FragmentNumber;
use crate::api::{Fragment, milliseconds};
use crate::ledger::Record;

/// What KVS writes around a fragment: opening tags with the number and two times, closing tags with the continuation token
/// (about 700 bytes in captures).
const MOST_OF_KVS_BYTES: u64 = 1 << 10;
/// Numbers of the known layout carry a time after this one (2015, before there was any KVS).
const LAYOUT_KNOWN_FROM_MS: u64 = 1_420_070_400_000;

/// Producer times to list, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_ms: u64,
    pub to_ms: u64,
}

impl Span {
    /// The earliest of `times_ms`, and as many behind it as lie within `longest`.
    pub fn of(times_ms: impl Iterator<Item = u64> + Clone, longest: Duration) -> Option<Self> {
        let from_ms = times_ms.clone().min()?;
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let last_ms = from_ms.saturating_add(longest_ms);
        let to_ms = times_ms.filter(|ms| *ms <= last_ms).max()?;
        Some(Self { from_ms, to_ms })
    }

    pub fn contains(&self, ms: u64) -> bool {
        (self.from_ms..=self.to_ms).contains(&ms)
    }
}

/// A row that does not state what was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fragment {number} at {timecode_ms} ms: the list states {what} {found}, expected {expected}")]
pub struct Misstated {
    pub timecode_ms: u64,
    pub number: FragmentNumber,
    /// What differs, with its unit.
    pub what: &'static str,
    pub found: u64,
    /// The least, where what KVS counts in is not known to the byte.
    pub expected: u64,
}

/// How the list names a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// As it was sent, under this number.
    AsSent(FragmentNumber),
    Misstated(Misstated),
    Absent,
}

/// All rows of a span.
#[derive(Debug)]
pub struct Listing {
    by_number: BTreeMap<FragmentNumber, Fragment>,
    by_time: BTreeMap<u64, Vec<FragmentNumber>>,
}

impl Listing {
    /// Rows whose number is none are left out: nothing can be fetched by it.
    pub fn new(rows: Vec<Fragment>) -> Self {
        let (mut by_number, mut by_time) = (BTreeMap::new(), BTreeMap::<u64, Vec<_>>::new());
        for row in rows {
            let Ok(number) = row.fragment_number.parse::<FragmentNumber>() else { continue };
            let numbers = by_time.entry(milliseconds(row.producer_timestamp)).or_default();
            // The pages of a list may overlap.
            if by_number.insert(number, row).is_none() {
                numbers.push(number);
            }
        }
        Self { by_number, by_time }
    }

    /// Numbers of the fragments that begin at this producer time.
    pub fn at(&self, timecode_ms: u64) -> &[FragmentNumber] {
        self.by_time.get(&timecode_ms).map_or(&[], Vec::as_slice)
    }

    /// How a fragment is named. One whose number no ack has said is looked for by its time.
    pub fn judge(&self, record: &Record) -> Listed {
        let timecode_ms = record.timecode.as_millis();
        let number = record.number.or_else(|| self.at(timecode_ms).first().copied());
        let Some((number, row)) = number.and_then(|number| Some((number, self.by_number.get(&number)?)))
        else {
            return Listed::Absent;
        };
        let misstated = |(what, found, expected)| {
            Listed::Misstated(Misstated { timecode_ms, number, what, found, expected })
        };
        differences(record, number, row).next().map_or(Listed::AsSent(number), misstated)
    }

    /// Another number under which KVS holds the fragment. What another producer sent at the same millisecond is none: its
    /// length or size is another.
    pub fn second(&self, record: &Record) -> Option<FragmentNumber> {
        let first = record.number?;
        let same = |number: &FragmentNumber| {
            let row = self.by_number.get(number);
            row.is_some_and(|row| differences(record, *number, row).next().is_none())
        };
        self.at(record.timecode.as_millis()).iter().copied().find(|number| *number != first && same(number))
    }
}

/// What the row states otherwise: what, found, expected.
fn differences(
    record: &Record,
    number: FragmentNumber,
    row: &Fragment,
) -> impl Iterator<Item = (&'static str, u64, u64)> {
    let producer_ms = (milliseconds(row.producer_timestamp), record.timecode.as_millis());
    let server_ms = Some((milliseconds(row.server_timestamp), number.server_time_ms()));
    let server_ms = server_ms.filter(|(_, time)| *time >= LAYOUT_KNOWN_FROM_MS);
    let summary = record.summary.as_ref();
    let length = summary.map(|summary| (row.fragment_length_in_milliseconds, summary.duration_ms));
    let size = summary.map(|summary| {
        let (found, least) = (row.fragment_size_in_bytes, summary.cluster_bytes);
        let most = least.saturating_add(summary.around_bytes).saturating_add(MOST_OF_KVS_BYTES);
        (found, if (least..=most).contains(&found) { found } else { least })
    });
    [
        Some(("a producer time (ms) of", producer_ms)),
        length.map(|pair| ("a length (ms) of", pair)),
        size.map(|pair| ("a size (bytes) of", pair)),
        server_ms.map(|pair| ("a server time (ms) of", pair)),
    ]
    .into_iter()
    .flatten()
    .filter(|(_, (found, expected))| found != expected)
    .map(|(what, (found, expected))| (what, found, expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::seconds;
    use crate::fragmenter::FragmentSummary;
    use crate::ledger::{Ledger, LedgerLimits};
    use crate::testing::fragments;
    use crate::{FragmentId, epoch};

    fn number(n: u64) -> FragmentNumber {
        FragmentNumber::new(n, 1_795_186_073_633, 1)
    }

    /// A persisted fragment, and the row that states it.
    fn listed(numbered: bool) -> (Ledger, FragmentId, Fragment) {
        let sent = fragments(1).remove(0).summary;
        let mut ledger = Ledger::new(LedgerLimits::default());
        ledger.complete(sent.clone(), epoch());
        ledger.persisted(sent.id, numbered.then(|| number(1)), epoch());
        let row = Fragment {
            fragment_number: number(1).to_string(),
            fragment_size_in_bytes: sent.cluster_bytes + 700,
            producer_timestamp: seconds(sent.timecode.as_millis()),
            server_timestamp: seconds(number(1).server_time_ms()),
            fragment_length_in_milliseconds: sent.duration_ms,
        };
        (ledger, sent.id, row)
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Fragment), what: Option<&str>) {
        let (ledger, id, mut row) = listed(true);
        change(&mut row);
        let judged = Listing::new(vec![row]).judge(ledger.get(id).expect("it is there"));
        match what {
            None => assert_eq!(judged, Listed::AsSent(number(1))),
            Some(what) => {
                let Listed::Misstated(misstated) = judged else { panic!("{judged:?}") };
                assert!(misstated.to_string().contains(what), "{misstated}");
            }
        }
    }

    #[test]
    fn a_row_has_to_state_what_was_sent() {
        let FragmentSummary { cluster_bytes: bytes, around_bytes: around, .. } =
            fragments(1).remove(0).summary;
        let most = bytes + around + MOST_OF_KVS_BYTES;
        check(|_| {}, None);
        check(|row| row.fragment_size_in_bytes = bytes, None);
        check(|row| row.fragment_size_in_bytes = bytes - 1, Some("size (bytes)"));
        check(|row| row.fragment_size_in_bytes = most, None);
        check(|row| row.fragment_size_in_bytes = most + 1, Some("size (bytes)"));
        check(|row| row.fragment_length_in_milliseconds += 1, Some("length (ms)"));
        check(|row| row.producer_timestamp += 0.001, Some("producer time (ms)"));
        check(|row| row.server_timestamp -= 0.001, Some("server time (ms)"));
    }

    #[test]
    fn another_number_at_the_same_time_is_not_it_but_a_second_one() {
        let (ledger, id, row) = listed(true);
        let record = ledger.get(id).expect("it is there");
        let other = Fragment { fragment_number: number(9).to_string(), ..row.clone() };
        let alone = Listing::new(vec![other.clone()]);
        assert_eq!((alone.judge(record), alone.second(record)), (Listed::Absent, Some(number(9))));
        let both = Listing::new(vec![other, row.clone()]);
        assert_eq!((both.judge(record), both.second(record)), (Listed::AsSent(number(1)), Some(number(9))));
        let overlapping = Listing::new(vec![row.clone(), row]);
        assert_eq!(overlapping.second(record), None);
    }

    #[test]
    fn thousands_of_fragments_of_others_blame_nobody() {
        let (ledger, id, row) = listed(true);
        let record = ledger.get(id).expect("it is there");
        let other = |n: u64| Fragment {
            fragment_number: number(n + 10).to_string(),
            fragment_size_in_bytes: 5000 + n,
            // Some of them at the very millisecond.
            producer_timestamp: row.producer_timestamp + if n.is_multiple_of(3) { 0.0 } else { seconds(n) },
            ..row.clone()
        };
        let rows: Vec<_> = (0..6000).map(other).chain([row.clone()]).collect();
        let listing = Listing::new(rows);
        assert_eq!((listing.judge(record), listing.second(record)), (Listed::AsSent(number(1)), None));
        let alone = Listing::new((0..6000).map(other).collect());
        assert_eq!((alone.judge(record), alone.second(record)), (Listed::Absent, None));
    }

    #[test]
    fn a_fragment_without_a_number_is_found_by_its_time() {
        let (ledger, id, row) = listed(false);
        let record = ledger.get(id).expect("it is there");
        assert_eq!(Listing::new(vec![row.clone()]).judge(record), Listed::AsSent(number(1)));
        let wrong = Fragment { fragment_size_in_bytes: 1, ..row.clone() };
        assert!(matches!(Listing::new(vec![wrong]).judge(record), Listed::Misstated(_)));
        let odd = Fragment { fragment_number: "77".to_owned(), ..row };
        assert_eq!(Listing::new(vec![odd]).judge(record), Listed::Absent);
    }

    #[test]
    fn spans_are_bounded_and_begin_with_the_earliest() {
        let span = |times: &[u64]| Span::of(times.iter().copied(), Duration::from_secs(900));
        assert_eq!(span(&[]), None);
        assert_eq!(span(&[7000, 5000]), Some(Span { from_ms: 5000, to_ms: 7000 }));
        let far = span(&[2_000_000, 5000, 905_000, 905_001]);
        assert_eq!(far, Some(Span { from_ms: 5000, to_ms: 905_000 }));
        assert_eq!(span(&[u64::MAX]), Some(Span { from_ms: u64::MAX, to_ms: u64::MAX }));
    }
}
