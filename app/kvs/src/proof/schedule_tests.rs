use std::collections::BTreeMap;

use health::Reason;
use proptest::prelude::*;

use super::*;
use crate::api::seconds;
use crate::epoch;
use crate::ledger::{Cursor, LedgerLimits};
use crate::read::chunk::{ChunkReader, Event, Failure};
use crate::testing::{Whole, chunk_bytes, fragments};

const S: Duration = Duration::from_secs(1);

/// A stream, its ledger and its schedule; time passes from deadline to deadline.
struct Rig {
    schedule: Schedule,
    ledger: Ledger,
    cursor: Cursor,
    now: Instant,
    sent: Vec<Whole>,
    stored: BTreeMap<FragmentNumber, Stored>,
    /// From the ack until ListFragments names a fragment.
    lag: Duration,
    /// Answer of the archive while it does not work.
    failing: Option<ReadFailure>,
    /// Chooses samples: the newest.
    random: f64,
    asks: Vec<(Duration, Ask)>,
}

struct Stored {
    bytes: Vec<u8>,
    row: Fragment,
    since: Instant,
    shown: bool,
    listed: bool,
}

fn chunk(bytes: &[u8], answer: Answer) -> Chunk {
    let mut reader = ChunkReader::new(answer);
    reader.push(bytes.to_vec().into());
    loop {
        match reader.finish(true).expect("valid") {
            Some(Event::End(chunk)) => return chunk,
            Some(_) => {}
            None => panic!("no chunk"),
        }
    }
}

fn number(n: usize, whole: &Whole) -> FragmentNumber {
    FragmentNumber::new(n as u64, whole.summary.timecode.as_millis() + 100, 1)
}

impl Rig {
    fn new(mode: ProofMode) -> Self {
        Self::with(ProofConfig { mode, ..ProofConfig::default() }, LedgerLimits::default())
    }

    fn with(config: ProofConfig, limits: LedgerLimits) -> Self {
        let ledger = Ledger::new(limits);
        Self {
            schedule: Schedule::new(config, epoch()),
            cursor: ledger.cursor(),
            ledger,
            now: epoch(),
            sent: fragments(12),
            stored: BTreeMap::new(),
            lag: S,
            failing: None,
            random: 0.999,
            asks: Vec::new(),
        }
    }

    /// Fragment `n` is complete and kept.
    fn keep(&mut self, n: usize) {
        let whole = &self.sent[n];
        let (summary, number) = (whole.summary.clone(), number(n, whole));
        let row = Fragment {
            fragment_number: number.to_string(),
            fragment_size_in_bytes: summary.cluster_bytes + 500,
            producer_timestamp: seconds(summary.timecode.as_millis()),
            server_timestamp: seconds(number.server_time_ms()),
            fragment_length_in_milliseconds: summary.duration_ms,
        };
        let bytes = chunk_bytes(whole, n as u64, false);
        let stored = Stored { bytes, row, since: self.now, shown: true, listed: true };
        self.stored.insert(number, stored);
        self.ledger.complete(summary.clone(), self.now);
        self.ledger.persisted(summary.id, Some(number), self.now);
    }

    fn stored(&mut self, n: usize) -> &mut Stored {
        let number = number(n, &self.sent[n]);
        self.stored.get_mut(&number).expect("it was kept")
    }

    /// The lasting GetMedia returns fragment `n`.
    fn read_live(&mut self, n: usize) {
        let chunk = chunk(&chunk_bytes(&self.sent[n], n as u64, true), Answer::GetMedia);
        self.schedule.read_live(&mut self.ledger, &chunk, self.now);
    }

    /// One payload byte of what is stored, or of what is read, is another.
    fn damage(bytes: &mut [u8]) {
        let at = bytes.windows(4).position(|window| window == b"0000").expect("a payload");
        bytes[at] ^= 1;
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            self.schedule.follow(self.ledger.read(&mut self.cursor));
            while let Some(ask) = self.schedule.next_ask(&mut self.ledger, self.random, self.now) {
                self.asks.push((self.now - epoch(), ask.clone()));
                self.answer(ask);
            }
            self.schedule.verdict(&mut self.ledger, self.now);
            let next = self.schedule.next_deadline().unwrap_or(until);
            assert!(next > self.now, "it would turn without end: {:?}", self.schedule);
            self.now = next.min(until);
            if self.now == until {
                return;
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Fetch(numbers) => {
                let mut fetched = Fetched { failure: self.failing.clone(), ..Fetched::default() };
                for number in numbers.iter().filter(|_| self.failing.is_none()) {
                    match self.stored.get(number).filter(|stored| stored.shown) {
                        Some(stored) => fetched.chunks.push(chunk(&stored.bytes, Answer::FragmentList)),
                        None => {
                            let (code, message) = ("4000".to_owned(), "not found".to_owned());
                            fetched.notices.push(Failure { number: Some(*number), code, message });
                            break;
                        }
                    }
                }
                self.schedule.fetched(&mut self.ledger, &fetched, 1.0, self.now);
            }
            Ask::List(span) => {
                let rows = self.stored.values().filter(|stored| {
                    let at = crate::api::milliseconds(stored.row.producer_timestamp);
                    stored.listed && span.contains(at) && self.now >= stored.since + self.lag
                });
                let rows = rows.map(|stored| stored.row.clone()).collect();
                let rows = self.failing.clone().map_or(Ok(rows), Err);
                self.schedule.listed(&mut self.ledger, rows, 1.0, self.now);
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, verdict: Verdict, counts: [u64; 4]) {
        let found = self.schedule.verdict(&mut self.ledger, self.now);
        let now = self.ledger.counts();
        let found_counts = [now.identical, now.listed, now.missing, now.corrupt + now.misstated];
        assert_eq!(
            (found, found_counts),
            (verdict, counts),
            "identical, listed, missing, wrong; {:?}",
            self.asks
        );
    }

    fn fetches(&self) -> usize {
        self.asks.iter().filter(|(_, ask)| matches!(ask, Ask::Fetch(_))).count()
    }

    fn lists(&self) -> Vec<Span> {
        let span = |(_, ask): &(Duration, Ask)| if let Ask::List(span) = ask { Some(*span) } else { None };
        self.asks.iter().filter_map(span).collect()
    }
}

fn failure(kind: ReadFailureKind) -> Option<ReadFailure> {
    Some(ReadFailure::new(Reason::VerifyFailed, "GetMediaForFragmentList refused: 400 AccessDenied", kind))
}

proptest! {
    /// In whatever order, and however often, a live answer returns what was sent, before or after its acks.
    #[test]
    fn order_and_repetition_of_a_live_answer_do_not_matter(order in prop::collection::vec(0_usize..6, 0..30)) {
        let mut rig = Rig::new(ProofMode::Continuous);
        let all = order.into_iter().chain(0..6);
        for (step, n) in all.enumerate() {
            if n % 2 == 0 && rig.ledger.get(rig.sent[n].summary.id).is_none() {
                rig.ledger.complete(rig.sent[n].summary.clone(), rig.now);
            } else if rig.ledger.get(rig.sent[n].summary.id).is_none() {
                rig.keep(n);
            }
            rig.read_live(n);
            if step % 3 == 0 {
                rig.pass(S / 10);
            }
        }
        for n in [0, 2, 4] {
            rig.keep(n);
        }
        rig.pass(S * 20);
        rig.expect(Verdict::Ok, [6, 6, 0, 0]);
        prop_assert_eq!(rig.fetches(), 0, "a look by number is for what is late");
        prop_assert_eq!(rig.ledger.counts().duplicate, 0);
    }
}

#[test]
fn what_the_lasting_answer_left_out_is_late_and_asked_for_by_its_number() {
    let mut rig = Rig::new(ProofMode::Continuous);
    (0..3).for_each(|n| rig.keep(n));
    rig.read_live(0);
    rig.read_live(2);
    rig.pass(S * 29);
    rig.expect(Verdict::Ok, [2, 3, 0, 0]);
    assert_eq!(rig.fetches(), 0);
    rig.failing = failure(ReadFailureKind::Soon);
    rig.pass(S * 2);
    rig.expect(Verdict::Late, [2, 3, 0, 0]);
    assert_eq!(rig.schedule.overdue(), 1);
    rig.failing = None;
    rig.pass(S * 60);
    rig.expect(Verdict::Ok, [3, 3, 0, 0]);
    assert_eq!((rig.schedule.overdue(), rig.schedule.failure()), (0, None));
}

#[test]
fn a_cut_chunk_is_not_a_finding() {
    let mut rig = Rig::new(ProofMode::Continuous);
    rig.keep(0);
    let whole = chunk(&chunk_bytes(&rig.sent[0], 0, true), Answer::GetMedia);
    let cut = Chunk { complete: false, ..whole };
    assert_eq!(rig.schedule.read_live(&mut rig.ledger, &cut, rig.now), None);
    rig.pass(S * 31);
    rig.expect(Verdict::Ok, [1, 1, 0, 0]);
    assert_eq!(rig.fetches(), 1, "and so it was asked for");
}

#[test]
fn a_wrong_answer_is_told_and_heals_when_the_store_is_right() {
    let mut rig = Rig::new(ProofMode::Continuous);
    rig.keep(0);
    let mut bytes = chunk_bytes(&rig.sent[0], 0, true);
    Rig::damage(&mut bytes);
    rig.schedule.read_live(&mut rig.ledger, &chunk(&bytes, Answer::GetMedia), rig.now);
    rig.expect(Verdict::Mismatch, [0, 0, 0, 1]);
    rig.pass(S * 4);
    rig.expect(Verdict::Mismatch, [0, 0, 0, 1]);
    rig.pass(S * 2);
    rig.expect(Verdict::Ok, [1, 0, 0, 0]);
    assert_eq!(rig.ledger.counts().healed, 1);
}

#[test]
fn a_damaged_store_is_looked_at_again_at_growing_intervals_and_forgiven_after_an_hour() {
    let mut rig = Rig::new(ProofMode::Sampled);
    rig.keep(0);
    Rig::damage(&mut rig.stored(0).bytes);
    rig.pass(S * 60 * 59);
    rig.expect(Verdict::Mismatch, [0, 1, 0, 1]);
    assert!((5..15).contains(&rig.fetches()), "{:?}", rig.asks);
    rig.pass(S * 60 * 2);
    rig.expect(Verdict::Unknown, [0, 1, 0, 1]);
    assert_eq!(rig.ledger.counts().unproven, 0, "it is known to be bad");
}

#[test]
fn a_damaged_store_that_is_repaired_heals() {
    let mut rig = Rig::new(ProofMode::Sampled);
    rig.keep(0);
    let good = rig.stored(0).bytes.clone();
    Rig::damage(&mut rig.stored(0).bytes);
    rig.pass(S * 100);
    rig.expect(Verdict::Mismatch, [0, 1, 0, 1]);
    rig.stored(0).bytes = good;
    rig.pass(S * 300);
    rig.expect(Verdict::Ok, [1, 1, 0, 0]);
}

#[test]
fn a_list_that_lags_blames_nobody() {
    let mut rig = Rig::new(ProofMode::Sampled);
    rig.lag = S * 25;
    for n in 0..10 {
        rig.keep(n);
        rig.pass(S * 10);
    }
    rig.pass(S * 60);
    let counts = rig.ledger.counts();
    assert_eq!((counts.listed, counts.missing, counts.healed), (10, 0, 0), "{:?}", rig.asks);
}

#[test]
fn what_is_gone_is_missing_and_heals_when_it_is_there_after_all() {
    for mode in [ProofMode::Sampled, ProofMode::Continuous] {
        let mut rig = Rig::new(mode);
        (0..3).for_each(|n| rig.keep(n));
        // Read back live by everybody before it went.
        (0..3).for_each(|n| rig.read_live(n));
        (rig.stored(1).shown, rig.stored(1).listed) = (false, false);
        rig.pass(S * 20);
        rig.expect(Verdict::Ok, [3, 2, 0, 0]);
        rig.pass(S * 60);
        rig.expect(Verdict::Mismatch, [3, 2, 1, 0]);
        assert!(rig.fetches() > 0, "the list is not the last word");
        (rig.stored(1).shown, rig.stored(1).listed) = (true, true);
        rig.pass(S * 120);
        rig.expect(Verdict::Ok, [3, 3, 0, 0]);
        assert_eq!(rig.ledger.counts().healed, 1, "{mode:?}");
    }
}

#[test]
fn a_list_that_states_another_size_is_a_mismatch_until_it_states_the_right_one() {
    let mut rig = Rig::new(ProofMode::Sampled);
    (0..2).for_each(|n| rig.keep(n));
    let size = std::mem::replace(&mut rig.stored(1).row.fragment_size_in_bytes, 1);
    rig.pass(S * 20);
    rig.expect(Verdict::Mismatch, [1, 1, 0, 1]);
    rig.stored(1).row.fragment_size_in_bytes = size;
    rig.pass(S * 60);
    rig.expect(Verdict::Ok, [1, 2, 0, 0]);
}

#[test]
fn one_number_that_is_refused_does_not_block_the_others_of_its_batch() {
    let mut rig = Rig::new(ProofMode::Continuous);
    (0..10).for_each(|n| rig.keep(n));
    rig.stored(0).shown = false;
    rig.pass(S * 31);
    rig.expect(Verdict::Mismatch, [9, 10, 1, 0]);
}

#[test]
fn a_denied_read_back_is_no_finding_and_waits_for_the_operator() {
    let mut rig = Rig::new(ProofMode::Continuous);
    (0..3).for_each(|n| rig.keep(n));
    rig.failing = failure(ReadFailureKind::Operator);
    rig.pass(S * 600);
    rig.expect(Verdict::Late, [0, 0, 0, 0]);
    assert!(rig.asks.len() <= 12, "one each two minutes and kind: {:?}", rig.asks);
    assert!(rig.schedule.failure().is_some_and(|failure| failure.text.contains("AccessDenied")));
    rig.keep(3);
    let asked = rig.asks.len();
    rig.pass(S);
    assert_eq!(rig.asks.len(), asked, "footage that is kept does not give a permission");
    rig.failing = None;
    rig.pass(S * 240);
    rig.expect(Verdict::Ok, [4, 4, 0, 0]);
}

#[test]
fn a_failure_ends_when_footage_is_kept_again() {
    let mut rig = Rig::new(ProofMode::Continuous);
    rig.keep(0);
    rig.failing = failure(ReadFailureKind::Soon);
    rig.pass(S * 600);
    rig.failing = None;
    rig.keep(1);
    let asked = rig.asks.len();
    rig.pass(S / 100);
    assert!(rig.asks.len() > asked, "at once, not after the back-off");
    rig.pass(S / 100);
    assert_eq!(rig.ledger.counts().identical, 1);
}

#[test]
fn a_reader_of_the_log_that_fell_behind_proves_all_the_same() {
    let limits = LedgerLimits { log: 4, ..LedgerLimits::default() };
    let mut rig = Rig::with(ProofConfig { mode: ProofMode::Continuous, ..ProofConfig::default() }, limits);
    rig.pass(S);
    (0..12).for_each(|n| rig.keep(n));
    rig.pass(S * 70);
    rig.expect(Verdict::Ok, [12, 12, 0, 0]);
}

#[test]
fn a_schedule_that_begins_anew_goes_on_from_the_ledger() {
    let mut rig = Rig::new(ProofMode::Continuous);
    (0..4).for_each(|n| rig.keep(n));
    (0..2).for_each(|n| rig.read_live(n));
    rig.pass(S * 12);
    rig.expect(Verdict::Ok, [2, 4, 0, 0]);
    let from = rig.schedule.read_from_ms(&rig.ledger);
    let config = ProofConfig { mode: ProofMode::Continuous, ..ProofConfig::default() };
    rig.schedule = Schedule::new(config, rig.now);
    rig.cursor = rig.ledger.cursor();
    assert_eq!(rig.schedule.read_from_ms(&rig.ledger), from);
    assert_eq!(from, Some(rig.sent[2].summary.timecode.as_millis()));
    rig.pass(S * 30);
    rig.expect(Verdict::Ok, [4, 4, 0, 0]);
    assert_eq!(rig.fetches(), 1, "only what was still to be proven: {:?}", rig.asks);
}

#[test]
fn a_stop_asks_at_once_for_what_is_still_to_be_proven() {
    for mode in [ProofMode::Continuous, ProofMode::Sampled] {
        let mut rig = Rig::new(mode);
        rig.pass(S * 5);
        (0..3).for_each(|n| rig.keep(n));
        rig.pass(S);
        rig.expect(Verdict::Unknown, [0, 0, 0, 0]);
        rig.schedule.stop(S * 10, rig.now);
        assert!(!rig.schedule.is_done(&mut rig.ledger, rig.now));
        rig.pass(S * 2);
        assert!(rig.schedule.is_done(&mut rig.ledger, rig.now), "{:?}", rig.asks);
        let all = if mode == ProofMode::Continuous { 3 } else { 0 };
        let verdict = if all > 0 { Verdict::Ok } else { Verdict::Unknown };
        rig.expect(verdict, [all, 3, 0, 0]);
    }
}

#[test]
fn a_stop_ends_in_time_whatever_is_not_proven() {
    let mut rig = Rig::new(ProofMode::Continuous);
    (0..3).for_each(|n| rig.keep(n));
    rig.failing = failure(ReadFailureKind::Soon);
    rig.schedule.stop(S * 10, rig.now);
    rig.pass(S * 4 - S / 1000);
    assert!(!rig.schedule.is_done(&mut rig.ledger, rig.now));
    rig.now += S / 1000;
    assert!(rig.schedule.is_done(&mut rig.ledger, rig.now));
    let mut rig = Rig::new(ProofMode::Continuous);
    rig.keep(0);
    rig.schedule.stop(Duration::ZERO, rig.now);
    assert!(rig.schedule.is_done(&mut rig.ledger, rig.now), "no grace is no time");
}

#[test]
fn a_bad_fragment_does_not_hold_a_stop_up() {
    let mut rig = Rig::new(ProofMode::Continuous);
    rig.keep(0);
    Rig::damage(&mut rig.stored(0).bytes);
    rig.pass(S * 40);
    rig.expect(Verdict::Mismatch, [0, 1, 0, 1]);
    rig.schedule.stop(S * 10, rig.now);
    rig.pass(S * 2);
    assert!(rig.schedule.is_done(&mut rig.ledger, rig.now), "it was looked at once more");
    rig.expect(Verdict::Mismatch, [0, 1, 0, 1]);
}

#[test]
fn samples_are_the_newest_and_one_at_a_time() {
    let mut rig = Rig::new(ProofMode::Sampled);
    for n in 0..12 {
        rig.keep(n);
        rig.pass(S * 10);
    }
    rig.pass(S * 60);
    rig.expect(Verdict::Ok, [rig.fetches() as u64, 12, 0, 0]);
    assert_eq!(rig.fetches(), 3, "{:?}", rig.asks);
}

#[test]
fn what_cannot_be_proven_in_time_is_counted_and_not_called_missing() {
    let mut rig = Rig::new(ProofMode::Sampled);
    (0..5).for_each(|n| rig.keep(n));
    rig.failing = failure(ReadFailureKind::Soon);
    rig.pass(S * 60 * 55);
    // By now the shortest retention may have taken it.
    rig.failing = None;
    rig.stored.clear();
    rig.pass(S * 60 * 60);
    rig.expect(Verdict::Unknown, [0, 0, 0, 0]);
    assert_eq!(rig.ledger.counts().unproven, 5);
}

#[test]
fn lists_are_asked_for_in_bounded_spans() {
    let span = S / 5;
    let config = ProofConfig { span, mode: ProofMode::Sampled, ..ProofConfig::default() };
    let mut rig = Rig::with(config, LedgerLimits::default());
    (0..12).for_each(|n| rig.keep(n));
    rig.pass(S * 15);
    assert_eq!(rig.ledger.counts().listed, 12);
    let lists = rig.lists();
    assert!(lists.len() > 1 && lists.windows(2).all(|two| two[0].to_ms < two[1].from_ms), "{lists:?}");
    assert!(lists.iter().all(|list| list.to_ms - list.from_ms <= 200), "{lists:?}");
}

#[test]
fn a_fragment_that_is_stored_twice_is_found_in_the_list() {
    let mut rig = Rig::new(ProofMode::Sampled);
    rig.keep(0);
    let row =
        Fragment { fragment_number: number(1005, &rig.sent[0]).to_string(), ..rig.stored(0).row.clone() };
    let copy = Stored { bytes: rig.stored(0).bytes.clone(), row, since: rig.now, shown: true, listed: true };
    let second = number(1005, &rig.sent[0]);
    rig.stored.insert(second, copy);
    rig.pass(S * 80);
    assert_eq!(rig.ledger.counts().duplicate, 1);
    assert_eq!(
        rig.ledger.at(rig.sent[0].summary.timecode.as_millis()).expect("kept").duplicate,
        Some(second)
    );
}

#[test]
fn without_verification_nothing_is_asked() {
    let mut rig = Rig::new(ProofMode::Off);
    (0..3).for_each(|n| rig.keep(n));
    rig.pass(S * 3600);
    rig.schedule.stop(S * 10, rig.now);
    assert!(rig.schedule.is_done(&mut rig.ledger, rig.now));
    assert_eq!(rig.asks.len(), 0);
    rig.expect(Verdict::Unknown, [0, 0, 0, 0]);
}

#[test]
fn samples_are_any_of_those_that_came_since_the_last_one() {
    for (random, expected) in [(0.0, 0), (0.5, 2), (0.999, 4)] {
        let mut rig = Rig::new(ProofMode::Sampled);
        rig.random = random;
        (0..5).for_each(|n| rig.keep(n));
        rig.pass(S * 20);
        let identical = |n: usize| {
            rig.ledger.get(rig.sent[n].summary.id).is_some_and(|record| record.times.identical.is_some())
        };
        let read: Vec<_> = (0..5).filter(|n| identical(*n)).collect();
        assert_eq!(read, [expected]);
    }
}

#[test]
fn samples_are_as_many_as_the_budget_allows_and_lists_go_on() {
    let bytes = fragments(1)[0].summary.cluster_bytes;
    // At once a quarter: one. Then one in 40 minutes.
    let config = ProofConfig { read_back_per_hour: Some(bytes * 2), ..ProofConfig::default() };
    let mut rig = Rig::with(config, LedgerLimits::default());
    for n in 0..12 {
        rig.keep(n);
        rig.pass(S * 300);
    }
    let counts = rig.ledger.counts();
    assert_eq!((counts.listed, counts.missing, counts.corrupt), (12, 0, 0));
    assert!((2..=3).contains(&counts.identical), "{counts:?}");
    rig.expect(Verdict::Ok, [counts.identical, 12, 0, 0]);
}

#[test]
fn a_doubt_is_looked_into_when_there_is_budget_again_and_the_clock_never_turns_in_vain() {
    let bytes = fragments(1)[0].summary.cluster_bytes;
    let config = ProofConfig { read_back_per_hour: Some(bytes * 2), ..ProofConfig::default() };
    let mut rig = Rig::with(config, LedgerLimits::default());
    rig.keep(0);
    Rig::damage(&mut rig.stored(0).bytes);
    rig.pass(S * 3000);
    assert_eq!(rig.ledger.counts().corrupt, 1);
    assert!(rig.fetches() <= 3, "{:?}", rig.asks);
}

#[test]
fn what_is_damaged_or_removed_after_it_was_proven_is_found_by_a_later_look_within_the_budget() {
    for mode in [ProofMode::Continuous, ProofMode::Sampled] {
        for removed in [false, true] {
            let per_hour = Some(1 << 30);
            let config = ProofConfig { mode, read_back_per_hour: per_hour, ..ProofConfig::default() };
            let mut rig = Rig::with(config, LedgerLimits::default());
            rig.keep(0);
            if mode == ProofMode::Continuous {
                rig.read_live(0);
            }
            rig.pass(S * 90);
            assert_eq!((rig.ledger.counts().identical, rig.ledger.counts().bad), (1, 0), "{mode:?}");
            let looks = |rig: &Rig| rig.asks.iter().filter(|(_, ask)| matches!(ask, Ask::Fetch(_))).count();
            let before = looks(&rig);
            rig.pass(S * 60 * 8);
            assert_eq!(looks(&rig), before, "not so soon");
            rig.pass(S * 60 * 14);
            assert!((1..=2).contains(&(looks(&rig) - before)), "{:?}", rig.asks);
            assert_eq!(rig.schedule.verdict(&mut rig.ledger, rig.now), Verdict::Ok);
            match removed {
                true => rig.stored(0).shown = false,
                false => Rig::damage(&mut rig.stored(0).bytes),
            }
            rig.pass(S * 60 * 12);
            let counts = rig.ledger.counts();
            assert_eq!(
                (counts.missing, counts.corrupt),
                (u64::from(removed), u64::from(!removed)),
                "{mode:?}"
            );
            assert_eq!(rig.schedule.verdict(&mut rig.ledger, rig.now), Verdict::Mismatch);
        }
    }
}

#[test]
fn a_spent_budget_allows_no_second_look_at_what_is_proven() {
    let config = ProofConfig { read_back_per_hour: Some(4), ..ProofConfig::default() };
    let mut rig = Rig::with(ProofConfig { mode: ProofMode::Continuous, ..config }, LedgerLimits::default());
    rig.keep(0);
    rig.read_live(0);
    rig.schedule.read(1 << 40, rig.now);
    rig.pass(S * 60 * 40);
    assert!(rig.asks.iter().all(|(_, ask)| !matches!(ask, Ask::Fetch(_))), "{:?}", rig.asks);
}
