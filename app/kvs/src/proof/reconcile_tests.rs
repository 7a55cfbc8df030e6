use std::collections::BTreeMap;

use health::Reason;
use proptest::prelude::*;

use super::*;
use crate::api::seconds;
use crate::epoch;
use crate::proof::fetches::Fetched;
use crate::read::ReadFailureKind;
use crate::read::chunk::{Answer, Chunk, ChunkReader, Event, Failure};
use crate::testing::{Whole, chunk_bytes, fragments};

const S: Duration = Duration::from_secs(1);

/// What KVS has, and what of it its two operations show.
struct Archive {
    stored: BTreeMap<FragmentNumber, (Vec<u8>, u64)>,
    /// A list names a fragment from then on.
    listed_from: Instant,
    /// As the service does for numbers that it does not know.
    refuses_all: bool,
    failing: Option<ReadFailure>,
    asked: Vec<Step>,
}

fn number(n: u64, whole: &Whole) -> FragmentNumber {
    FragmentNumber::new(n, whole.summary.timecode.as_millis() + 100, 1)
}

fn chunk(bytes: &[u8]) -> Chunk {
    let mut reader = ChunkReader::new(Answer::FragmentList);
    reader.push(bytes.to_vec().into());
    loop {
        if let Some(Event::End(chunk)) = reader.finish(true).expect("valid") {
            return chunk;
        }
    }
}

impl Archive {
    fn new(listed_from: Instant) -> Self {
        Self { stored: BTreeMap::new(), listed_from, refuses_all: false, failing: None, asked: Vec::new() }
    }

    fn keep(&mut self, n: u64, whole: &Whole) {
        let stored = (chunk_bytes(whole, n, false), whole.summary.timecode.as_millis());
        self.stored.insert(number(n, whole), stored);
    }

    fn fetch(&self, numbers: &[FragmentNumber]) -> Fetched {
        let mut fetched = Fetched { failure: self.failing.clone(), ..Fetched::default() };
        if self.failing.is_some() {
            return fetched;
        }
        if self.refuses_all && numbers.iter().any(|number| !self.stored.contains_key(number)) {
            let text = "Fragment numbers are invalid";
            fetched.failure = Some(ReadFailure::new(Reason::VerifyFailed, text, ReadFailureKind::Refused));
            return fetched;
        }
        for number in numbers {
            match self.stored.get(number) {
                Some((bytes, _)) => fetched.chunks.push(chunk(bytes)),
                None => {
                    let (code, message) = ("4000".to_owned(), String::new());
                    fetched.notices.push(Failure { number: Some(*number), code, message });
                }
            }
        }
        fetched
    }

    fn list(&self, span: Span, now: Instant) -> Result<Vec<Fragment>, ReadFailure> {
        if let Some(failure) = &self.failing {
            return Err(failure.clone());
        }
        let shown = self.stored.iter().filter(|(_, (_, ms))| span.contains(*ms) && now >= self.listed_from);
        let row = |(number, (bytes, ms)): (&FragmentNumber, &(Vec<u8>, u64))| Fragment {
            fragment_number: number.to_string(),
            fragment_size_in_bytes: bytes.len() as u64,
            producer_timestamp: seconds(*ms),
            server_timestamp: seconds(number.server_time_ms()),
            fragment_length_in_milliseconds: 0,
        };
        Ok(shown.map(row).collect())
    }

    /// Asks to the end; also when that was.
    fn reconcile(
        &mut self,
        fragments: &[(&Whole, Option<FragmentNumber>)],
        settled_at: Instant,
    ) -> (Reconciled, Instant) {
        let mut now = epoch();
        let fragments = fragments.iter().map(|(whole, number)| (whole.summary.clone(), *number));
        let mut reconcile = Reconcile::new(fragments, settled_at, now);
        for _ in 0..1000 {
            let step = reconcile.next_step(now);
            self.asked.push(step.clone());
            match step {
                Step::Fetch(numbers) => reconcile.fetched(&self.fetch(&numbers)),
                Step::List(span) => reconcile.listed(self.list(span, now)),
                Step::Wait(until) => {
                    assert!(until > now, "it would turn without end");
                    now = until;
                }
                Step::Done => return (reconcile.finish(), now),
            }
        }
        panic!("no end: {:?}", self.asked);
    }

    fn lists(&self) -> usize {
        self.asked.iter().filter(|step| matches!(step, Step::List(_))).count()
    }
}

fn ids(found: &[(FragmentId, FragmentNumber)]) -> Vec<u64> {
    let mut ids: Vec<_> = found.iter().map(|(id, _)| id.sequence).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_named_fragment_is_asked_for_by_its_number_whatever_the_list_says() {
    let sent = fragments(2);
    let mut archive = Archive::new(epoch() + S * 3600);
    archive.keep(7, &sent[0]);
    let (result, at) = archive.reconcile(&[(&sent[0], Some(number(7, &sent[0])))], epoch() + S * 2);
    assert_eq!(result.found, [(sent[0].summary.id, number(7, &sent[0]))]);
    assert_eq!((result.absent.len(), at, archive.lists()), (0, epoch(), 0), "at once");
}

#[test]
fn what_a_list_does_not_name_is_absent_only_once_it_lags_no_more() {
    let sent = fragments(2);
    let settled = epoch() + S * 2;
    let mut archive = Archive::new(epoch() + S);
    archive.keep(7, &sent[0]);
    let (result, at) = archive.reconcile(&[(&sent[0], None), (&sent[1], None)], settled);
    assert_eq!(ids(&result.found), [sent[0].summary.id.sequence]);
    assert_eq!((result.absent, at), (vec![sent[1].summary.id], settled));
    let mut archive = Archive::new(epoch() + S);
    archive.keep(7, &sent[0]);
    let (result, at) = archive.reconcile(&[(&sent[0], None)], settled);
    assert_eq!((result.found.len(), at), (1, epoch() + S), "nobody waits longer than needed");
}

#[test]
fn an_answer_is_complete_at_once_where_nothing_lags() {
    let sent = fragments(1);
    let (result, at) = Archive::new(epoch()).reconcile(&[(&sent[0], None)], epoch());
    assert_eq!((result.absent, at), (vec![sent[0].summary.id], epoch()));
    let (result, _) = Archive::new(epoch()).reconcile(&[], epoch() + S);
    assert_eq!(result, Reconciled::default());
}

#[test]
fn another_copy_of_the_same_time_is_not_the_fragment() {
    let sent = fragments(1);
    let mut archive = Archive::new(epoch());
    archive.keep(7, &sent[0]);
    let (bytes, _) = archive.stored.values_mut().next().expect("one");
    let at = bytes.windows(4).position(|window| window == b"0000").expect("a payload");
    bytes[at] ^= 1;
    let (result, _) = archive.reconcile(&[(&sent[0], Some(number(7, &sent[0])))], epoch());
    assert_eq!((ids(&result.found), result.absent), (vec![], vec![sent[0].summary.id]));
    // A whole one beside it, under a number that no ack has said.
    archive.keep(1007, &sent[0]);
    let (result, _) = archive.reconcile(&[(&sent[0], Some(number(7, &sent[0])))], epoch());
    assert_eq!(result.found, [(sent[0].summary.id, number(1007, &sent[0]))]);
}

#[test]
fn what_could_not_be_asked_is_neither_found_nor_absent() {
    let sent = fragments(2);
    for kind in [ReadFailureKind::Soon, ReadFailureKind::Slower, ReadFailureKind::Operator] {
        for named in [true, false] {
            let mut archive = Archive::new(epoch());
            archive.failing = Some(ReadFailure::new(Reason::VerifyFailed, "no", kind));
            let number = named.then(|| number(7, &sent[0]));
            let (result, _) = archive.reconcile(&[(&sent[0], number), (&sent[1], None)], epoch());
            assert_eq!((result.found.len(), result.absent.len()), (0, 0), "{kind:?}");
            assert_eq!(result.failure, archive.failing, "{kind:?}");
        }
    }
}

#[test]
fn what_cannot_be_read_to_its_end_is_neither_found_nor_absent() {
    let sent = fragments(1);
    let named = [(sent[0].summary.clone(), Some(number(7, &sent[0])))];
    let mut reconcile = Reconcile::new(named, epoch(), epoch());
    let mut whole = Archive::new(epoch());
    whole.keep(7, &sent[0]);
    let cut = Chunk { complete: false, ..chunk(&chunk_bytes(&sent[0], 7, false)) };
    loop {
        match reconcile.next_step(epoch()) {
            Step::Fetch(_) => reconcile.fetched(&Fetched { chunks: vec![cut.clone()], ..Fetched::default() }),
            Step::List(span) => reconcile.listed(whole.list(span, epoch())),
            Step::Wait(_) => panic!("nothing lags"),
            Step::Done => break,
        }
    }
    assert_eq!(reconcile.finish(), Reconciled::default());
}

#[test]
fn far_times_are_listed_in_spans_of_their_own() {
    let mut sent = fragments(3);
    let far = media::ProducerTimestamp::from_millis(sent[2].summary.timecode.as_millis() + 3_600_000);
    sent[2].summary.timecode = far;
    let mut archive = Archive::new(epoch());
    let (result, _) = archive.reconcile(&sent.iter().map(|whole| (whole, None)).collect::<Vec<_>>(), epoch());
    assert_eq!((result.absent.len(), archive.lists()), (3, 2));
}

proptest! {
    /// Whatever is there, named or not, however the service refuses, however long its list lags: each fragment gets the
    /// right answer.
    #[test]
    fn each_fragment_gets_the_right_answer(
        there in prop::collection::vec(any::<bool>(), 12),
        named in prop::collection::vec(any::<bool>(), 12),
        refuses_all in any::<bool>(),
        lag_ms in 0_u64..2000,
    ) {
        let sent = fragments(12);
        let mut archive = Archive::new(epoch() + Duration::from_millis(lag_ms));
        archive.refuses_all = refuses_all;
        let mut asked = Vec::new();
        for (n, whole) in sent.iter().enumerate() {
            if there[n] {
                archive.keep(n as u64, whole);
            }
            asked.push((whole, named[n].then(|| number(n as u64, whole))));
        }
        let (result, _) = archive.reconcile(&asked, epoch() + S * 2);
        let right = |there_or_not: bool| -> Vec<_> {
            let all = sent.iter().zip(&there).filter(|(_, there)| **there == there_or_not);
            all.map(|(whole, _)| whole.summary.id.sequence).collect()
        };
        prop_assert_eq!(ids(&result.found), right(true));
        let absent: Vec<_> = result.absent.iter().map(|id| id.sequence).collect();
        prop_assert_eq!(absent, right(false));
    }
}
