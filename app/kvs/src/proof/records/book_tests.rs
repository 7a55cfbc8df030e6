use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::identity::Sha256Sum;
use crate::proof::records::row::{RowState, RowTimes};
use crate::proof::records::{Cause, Checker, Fault};
use crate::proof::schedule::Verdict;
use crate::{FragmentId, FragmentNumber, RunId};

/// A full minute.
const START_MS: u64 = 1_795_186_080_000;
const MINUTE_MS: u64 = 60_000;
const FRAGMENT_MS: u64 = 2000;

/// Rows and lines in memory.
#[derive(Default)]
struct Memory {
    rows: BTreeMap<FragmentId, Row>,
    lines: Vec<Line>,
    refuses: bool,
}

impl Rows for Memory {
    type Error = &'static str;

    fn put(&mut self, rows: &[Row]) -> Result<(), Self::Error> {
        for row in rows {
            let merged = match self.rows.remove(&row.id) {
                Some(before) => before.merge(row.clone()),
                None => row.clone(),
            };
            self.rows.insert(row.id, merged);
        }
        Ok(())
    }

    fn minute(&mut self, minute: Minute) -> Result<MinuteRows, Self::Error> {
        let (start_ms, end_ms) = (minute.start_ms(), minute.end_ms());
        let all = || self.rows.values();
        Ok(MinuteRows {
            rows: all().filter(|row| (start_ms..end_ms).contains(&row.timecode_ms)).cloned().collect(),
            before_ms: all().filter(|row| row.timecode_ms < start_ms).map(|row| row.end_ms).max(),
            after_ms: all().map(|row| row.timecode_ms).filter(|ms| *ms >= end_ms).min(),
            is_over: false,
        })
    }

    fn first_from(&mut self, minute: Minute) -> Result<Option<Minute>, Self::Error> {
        let times = self.rows.values().map(|row| row.timecode_ms).filter(|ms| *ms >= minute.start_ms());
        Ok(times.min().map(Minute::of))
    }

    fn newest(&mut self, minute: Minute) -> Result<Option<Record>, Self::Error> {
        let about = |record: &&Record| {
            record.summary().is_some_and(|summary| {
                let first = Minute::of(summary.minute_ms);
                (first..first.later(summary.minutes)).contains(&minute)
            })
        };
        Ok(self.lines.iter().rev().map(|line| &line.record).find(about).cloned())
    }

    fn append(&mut self, line: &Line, _: bool) -> Result<(), Self::Error> {
        if self.refuses {
            return Err("the disk is full");
        }
        self.lines.push(line.clone());
        Ok(())
    }
}

fn row(n: u64, state: RowState) -> Row {
    let timecode_ms = START_MS + n * FRAGMENT_MS;
    let at = Some(timecode_ms + FRAGMENT_MS);
    let persisted = at.filter(|_| state == RowState::Persisted).map(|ms| ms + 300);
    let sum = Sha256Sum::of(&n.to_be_bytes());
    Row {
        id: FragmentId { run: RunId::new(7), sequence: n + 1 },
        timecode_ms,
        end_ms: timecode_ms + FRAGMENT_MS - 40,
        bytes: Some(1000),
        blocks: Some(50),
        sums: Some(crate::cluster_sums::ClusterSums { payload: sum, heads: sum }),
        number: persisted.map(|ms| FragmentNumber::new(n, ms, 1)),
        state,
        text: None,
        times: RowTimes { complete: at, sent: at, persisted, listed: persisted, ..RowTimes::default() },
    }
}

fn kept(n: u64) -> Row {
    row(n, RowState::Persisted)
}

struct Rig {
    book: Book,
    store: Memory,
    context: Context,
}

impl Rig {
    fn new() -> Self {
        let context = Context { looks: true, now_ms: START_MS, ..Context::default() };
        Self { book: book(None, None), store: Memory::default(), context }
    }

    fn turn_at(&mut self, after_ms: u64, rows: &[Row]) -> Vec<Line> {
        self.context.now_ms = START_MS + after_ms;
        self.book.turn(rows, &mut self.store, &self.context).expect("it takes everything")
    }

    fn newest(&mut self, minute: u64) -> Summary {
        let minute = Minute::of(START_MS).later(minute);
        let record = self.store.newest(minute).expect("it can be read").expect("it was written");
        record.summary().expect("of a minute").clone()
    }

    fn faults(&self) -> Vec<Fault> {
        check(&self.store.lines.iter().map(|line| line.to_bytes()).collect::<Vec<_>>(), None)
    }
}

fn book(head: Option<Head>, next: Option<Minute>) -> Book {
    Book::new(BookConfig::default(), Chain::new("box/cam", head), next, [], START_MS)
}

fn check(lines: &[Vec<u8>], told: Option<Head>) -> Vec<Fault> {
    let mut checker = Checker::new();
    for (at, line) in lines.iter().enumerate() {
        checker.line(Line::parse(line.trim_ascii_end()).as_ref(), "file", at as u64 + 1);
    }
    checker.finish(Some(0), told.as_slice())
}

#[test]
fn a_minute_that_is_proven_is_written_once_the_next_one_has_begun() {
    let mut rig = Rig::new();
    let minute: Vec<_> = (0..30).map(kept).collect();
    assert_eq!(rig.turn_at(61_000, &minute).len(), 1, "the chain begins");
    let lines = rig.turn_at(63_000, &[kept(30)]);
    let summary = rig.newest(0);
    assert_eq!((lines.len(), summary.verdict, summary.why.as_deref()), (1, Verdict::Ok, None));
    let counts = (summary.expected, summary.persisted, summary.listed, summary.verified, summary.bytes);
    assert_eq!(counts, (30, 30, 30, 0, 30_000));
    assert_eq!(summary.persist_ms, Some(crate::proof::records::Spread { p50: 300, p95: 300, max: 300 }));
    assert_eq!(rig.turn_at(64_000, &[]), [], "once");
    assert_eq!(rig.faults(), []);
}

#[test]
fn what_is_not_proven_in_time_is_late_and_amended_when_it_is() {
    let mut rig = Rig::new();
    let waiting = row(5, RowState::Waiting);
    let rows: Vec<_> = (0..31).map(|n| if n == 5 { waiting.clone() } else { kept(n) }).collect();
    assert_eq!(rig.turn_at(62_000, &rows).len(), 1);
    assert_eq!(rig.turn_at(200_000, &[]), []);
    rig.turn_at(210_000, &[]);
    let late = rig.newest(0);
    assert_eq!((late.verdict, late.expected, late.persisted), (Verdict::Late, 30, 29));
    assert_eq!(late.why.as_deref(), Some("1 of 30 fragments are not in KVS yet"));
    let lines = rig.turn_at(4_000_000, &[kept(5)]);
    let amended = lines.iter().find(|line| line.record.amends() == Some(1)).expect("it is amended");
    assert_eq!(amended.record.summary().map(|summary| summary.verdict), Some(Verdict::Ok));
    assert_eq!(rig.newest(0).persisted, 30);
    assert_eq!(rig.store.lines[1].record.summary().map(|summary| summary.verdict), Some(Verdict::Late));
    assert_eq!(rig.faults(), []);
}

#[test]
fn bad_fragments_and_pauses_are_holes_with_a_cause() {
    let mut rig = Rig::new();
    let lost = |n| Row { text: Some("no room".to_owned()), ..row(n, RowState::Bad(Cause::WindowFull)) };
    let mut rows: Vec<_> = (0..45).map(kept).collect();
    (rows[4], rows[5]) = (lost(4), lost(5));
    // Nothing from 20 s to 30 s.
    rows.drain(10..15);
    rig.turn_at(62_000, &rows);
    let summary = rig.newest(0);
    assert_eq!((summary.verdict, summary.why.as_deref()), (Verdict::Gap, Some("no room, and 1 more")));
    let at = |ms| START_MS + ms;
    let holes: Vec<_> = summary.gaps.iter().map(|hole| (hole.cause, hole.from_ms, hole.to_ms)).collect();
    let pause = (Cause::NotRecorded, at(19_960), at(30_000));
    assert_eq!(holes, [(Cause::WindowFull, at(8000), at(11_960)), pause]);
    let corrupt = row(40, RowState::Bad(Cause::Corrupt));
    rig.turn_at(271_000, &[kept(61), corrupt]);
    let causes = |summary: &Summary| summary.gaps.iter().map(|hole| hole.cause).collect::<Vec<_>>();
    let summary = rig.newest(1);
    assert_eq!(
        (summary.verdict, causes(&summary)),
        (Verdict::Mismatch, vec![Cause::Corrupt, Cause::NotRecorded])
    );
}

#[test]
fn minutes_without_footage_are_told_too() {
    let mut rig = Rig::new();
    rig.turn_at(62_000, &(0..30).map(kept).collect::<Vec<_>>());
    for at_s in (65..500).step_by(5) {
        rig.turn_at(at_s * 1000, &[]);
    }
    assert_eq!((rig.newest(0).verdict, rig.newest(1).verdict), (Verdict::Ok, Verdict::Gap));
    let lines = rig.store.lines.len();
    // Then the box is off for a day, and starts again.
    let next = rig.book.next;
    rig.book = book(rig.book.head(), next);
    let day = 24 * 60 * 30;
    rig.turn_at(day * FRAGMENT_MS, &[kept(day)]);
    assert_eq!(rig.store.lines.len(), lines + 1, "one record tells of all of it");
    let summary = rig.newest(700);
    assert_eq!((summary.verdict, summary.gaps.len(), summary.expected), (Verdict::Gap, 1, 0));
    assert_eq!(summary.minute_ms + summary.minutes * MINUTE_MS, START_MS + day * FRAGMENT_MS);
    assert_eq!(rig.faults(), []);
}

#[test]
fn whoever_keeps_nothing_or_does_not_look_is_told_to_be_unknown_and_why() {
    let nothing = Some("the stream keeps nothing (retention 0 h)".to_owned());
    let denied = Some("access denied".to_owned());
    let on = Context { looks: true, ..Context::default() };
    let unlisted = |n| Row { times: RowTimes { listed: None, ..kept(n).times }, ..kept(n) };
    let rows = |row: &dyn Fn(u64) -> Row| (0..31).map(row).collect::<Vec<_>>();
    let cases = [
        (
            Context { keeps_nothing: nothing.clone(), ..on.clone() },
            rows(&|n| row(n, RowState::Waiting)),
            nothing,
        ),
        (Context { unable: denied.clone(), ..on.clone() }, rows(&unlisted), denied.clone()),
        (Context::default(), rows(&unlisted), Some("verification is off".to_owned())),
    ];
    for (context, rows, why) in cases {
        let mut rig = Rig { context, ..Rig::new() };
        rig.turn_at(62_000, &rows);
        rig.turn_at(211_000, &[]);
        let summary = rig.newest(0);
        assert_eq!((summary.verdict, summary.why), (Verdict::Unknown, why));
    }
    let mut rig = Rig { context: Context { unable: denied, ..on }, ..Rig::new() };
    rig.turn_at(62_000, &rows(&kept));
    assert_eq!(rig.newest(0).verdict, Verdict::Ok, "all was looked at before");
}

#[test]
fn a_line_that_the_disk_refuses_is_written_at_the_next_turn() {
    let mut rig = Rig::new();
    rig.store.refuses = true;
    rig.context.now_ms = START_MS + 62_000;
    let rows: Vec<_> = (0..31).map(kept).collect();
    let refused = rig.book.turn(&rows, &mut rig.store, &rig.context);
    assert!(refused.is_err_and(|(lines, _)| lines.is_empty()));
    rig.store.refuses = false;
    assert_eq!(rig.turn_at(63_000, &[]).len(), 2);
    assert_eq!(rig.faults(), []);
}

#[test]
fn a_recalled_fragment_does_not_undo_what_was_known_of_it() {
    let recalled = Row { number: None, times: RowTimes::default(), ..row(3, RowState::Waiting) };
    assert_eq!(kept(3).merge(recalled), kept(3));
    let found = kept(3);
    let lost = Row { text: Some("gone".to_owned()), ..row(3, RowState::Bad(Cause::Stopped)) };
    assert_eq!(lost.merge(found).state, RowState::Persisted);
}

fn chain_of(lines: u64) -> Vec<Line> {
    let mut chain = Chain::new("box/cam", None);
    let mut all = Vec::new();
    for n in 0..lines {
        let summary = Box::new(Summary::nothing(Minute::of(START_MS).later(n), 1));
        let line = chain.next(Entry::Minute { amends: None, summary }, START_MS + n);
        chain.add(&line);
        all.push(line);
    }
    all
}

/// What somebody may do to a file.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Flip(usize),
    Edit,
    EditAndSum,
    Remove,
    Swap,
    Repeat,
    CutTail,
}

proptest! {
    /// Whatever is done to one record of a chain is found, and the right record is blamed.
    #[test]
    fn every_deed_is_found_and_the_right_record_is_blamed(
        length in 3_u64..30,
        at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        deed in prop::sample::select(&[0, 1, 2, 3, 4, 5, 6][..]),
    ) {
        let chain = chain_of(length);
        let head = chain.last().map(Line::head);
        let mut lines: Vec<_> = chain.iter().map(Line::to_bytes).collect();
        prop_assert_eq!(check(&lines, head), []);
        // The newest one has nobody who holds on to it but whoever was told of it.
        let at = at.index(lines.len() - 1);
        let n = at as u64;
        let deed = [
            Deed::Flip(byte.index(lines[at].len() - 1)), Deed::Edit, Deed::EditAndSum, Deed::Remove, Deed::Swap, Deed::Repeat,
            Deed::CutTail,
        ][deed];
        let text = chain[at].body.replace("\"gap\"", "\"ok\"");
        match deed {
            Deed::Flip(byte) => lines[at][byte] ^= 1,
            Deed::Edit => lines[at] = format!("{} {text}\n", chain[at].sum).into_bytes(),
            Deed::EditAndSum => lines[at] = format!("{} {text}\n", Sha256Sum::of(text.as_bytes())).into_bytes(),
            Deed::Remove => drop(lines.remove(at)),
            Deed::Swap => lines.swap(at, at + 1),
            Deed::Repeat => lines.insert(at + 1, lines[at].clone()),
            Deed::CutTail => lines.truncate(at + 1),
        }
        let faults = check(&lines, head);
        let first = faults.first().cloned();
        match deed {
            // Its number, its sum or its form may be what was hit: then that is said.
            Deed::Flip(_) => prop_assert!(!faults.is_empty()),
            Deed::Edit => prop_assert_eq!(faults, [Fault::Changed { n }]),
            Deed::EditAndSum => prop_assert_eq!(faults, [Fault::Replaced { n }]),
            Deed::Remove => prop_assert_eq!(first, Some(Fault::Removed { from: n, to: n })),
            Deed::Swap => prop_assert_eq!(faults, [Fault::Moved { n, behind: n + 1 }]),
            Deed::Repeat => prop_assert_eq!(faults, [Fault::Added { n }]),
            Deed::CutTail => prop_assert_eq!(faults, [Fault::Shortened { found: n, expected: length - 1 }]),
        }
    }

    /// Whatever bytes there are, reading them ends, and what is read is what is written again.
    #[test]
    fn any_bytes_are_a_line_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(line) = Line::parse(&bytes) {
            prop_assert_eq!(line.to_string().into_bytes(), bytes);
        }
    }

    /// In whatever order and however late things become known, the newest record of each minute says in the end what the rows
    /// say, and the chain is whole.
    #[test]
    fn in_the_end_the_newest_records_say_what_the_rows_say(
        steps in prop::collection::vec((0_u64..150, 0_u8..4, 0_u64..40), 1..120),
    ) {
        let mut rig = Rig::new();
        let mut now_ms = 0;
        for (n, state, pause_s) in steps {
            now_ms += pause_s * 1000;
            let state = [
                RowState::Waiting, RowState::Persisted, RowState::Bad(Cause::Corrupt), RowState::Bad(Cause::Refused),
            ][usize::from(state)];
            rig.turn_at(now_ms, &[row(n, state)]);
        }
        // Everything comes to rest.
        for _ in 0..20 {
            now_ms += 700_000;
            rig.turn_at(now_ms, &[]);
        }
        prop_assert_eq!(rig.faults(), []);
        let minutes: std::collections::BTreeSet<_> =
            rig.store.rows.values().map(|row| Minute::of(row.timecode_ms)).collect();
        for minute in minutes {
            let mut found = rig.store.minute(minute).expect("in memory");
            found.is_over = true;
            let expected = Summary::of(minute, &found, &rig.context);
            let told = rig.store.newest(minute).expect("in memory").expect("it was written");
            let told = told.summary().expect("of a minute");
            // Holes at the end depend on what came later.
            prop_assert_eq!(
                (told.expected, told.persisted, told.listed, &told.footage),
                (expected.expected, expected.persisted, expected.listed, &expected.footage)
            );
        }
        prop_assert_eq!(rig.book.changed(), 0);
    }
}

#[test]
fn what_a_break_tells_of_is_no_fault_and_stays_visible() {
    let chain = chain_of(5);
    let mut lines: Vec<_> = chain.iter().take(3).map(Line::to_bytes).collect();
    // Records 3 and 4 were written, and are gone.
    let mut after = Chain::new("box/cam", Some(chain[2].head()));
    after.skip_to(4);
    let line = after.next(Entry::Break { text: "records 3 to 4 are gone".to_owned() }, START_MS);
    lines.push(line.to_bytes());
    assert_eq!(check(&lines, Some(line.head())), []);
    assert_eq!(line.record.n, 5);
    let empty: Result<Infallible, _> = Err("no line");
    assert!(empty.is_err() && Line::parse(b"").is_err());
    let long = vec![b'0'; super::super::chain::MOST_BYTES + 1];
    assert!(matches!(Line::parse(&long), Err(super::super::chain::LineError::Long { .. })));
}

#[test]
fn golden_bytes_of_the_first_line() {
    // Made by `printf '%s' BODY | sha256sum` of coreutils over the body below.
    let line = Chain::new("box/cam", None).next(Entry::Begin { text: "x".to_owned() }, 5);
    let zeros = "0".repeat(64);
    let body =
        format!(r#"{{"v":1,"n":0,"prev":"{zeros}","chain":"box/cam","at_ms":5,"kind":"begin","text":"x"}}"#);
    assert_eq!(line.body, body);
    assert_eq!(line.sum.to_string(), GOLDEN);
}

const GOLDEN: &str = "63fd93bfe5f9c58b287e613db961291726ea2f6a1fc4bb645f1cab555897df17";
