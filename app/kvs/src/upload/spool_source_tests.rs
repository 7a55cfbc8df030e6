use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::stamping::{self, Stretch};
use crate::testing::{stream, wholes};

#[test]
fn pieces_are_the_cameras_own_buffers_and_bytes_add_up() {
    let parts = stream(3);
    let mut source = SpoolSource::in_memory();
    parts.iter().cloned().for_each(|part| source.part(part));
    let sent: Vec<_> = parts
        .iter()
        .flat_map(|part| match part {
            Part::Start(start) => vec![&start.head],
            Part::Block { head, payload } => vec![head, payload],
            Part::End(_) => vec![],
        })
        .collect();
    let ids: Vec<_> = source.held().map(|held| (held.id, held.pieces)).collect();
    let pieces = ids.iter().flat_map(|&(id, pieces)| (0..pieces).map(move |index| (id, index)));
    let kept: Vec<_> = pieces.map(|(id, index)| source.piece(id, index).expect("it is there")).collect();
    assert_eq!(
        kept.iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>(),
        sent.iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>()
    );
    assert_eq!(source.bytes(), sent.iter().map(|bytes| bytes.len()).sum::<usize>());
    assert_eq!(source.all(), (3, source.bytes()));
    assert!(source.next_request().is_none(), "nobody is asked where there is no spool");
    for (id, _) in ids {
        assert!(source.release(id).is_some());
        assert_eq!(source.release(id), None);
    }
    assert_eq!((source.bytes(), source.held().count()), (0, 0));
}

#[test]
fn the_rest_of_a_fragment_that_was_released_while_it_grew_is_thrown_away() {
    let mut parts = stream(2).into_iter();
    let mut source = SpoolSource::in_memory();
    parts.by_ref().take(3).for_each(|part| source.part(part));
    let first = source.held().next().map(|held| held.id).expect("one grows");
    source.release(first);
    parts.for_each(|part| source.part(part));
    assert_eq!(source.held().map(|held| held.id.sequence).collect::<Vec<_>>(), [first.sequence + 1]);
    assert_eq!(source.bytes(), source.held().map(|held| held.bytes).sum::<usize>());
}

/// A spool that answers in order, when it is told to.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) kept: BTreeMap<Place, Whole>,
    settled: BTreeSet<FragmentId>,
    /// Not to be sent.
    local: BTreeSet<FragmentId>,
    stamps: Vec<RunStamp>,
    next: u64,
    pub(super) asked: VecDeque<Request>,
    pub(super) fails: bool,
}

/// As the store stamps.
fn stamped(whole: &mut Whole, stamps: &[RunStamp]) {
    if let Some(stamp) = stamps.iter().find(|stamp| stamp.run == whole.id().run)
        && let Some(end) = stamp.end(&whole.end, &whole.heads())
    {
        whole.pieces[0] = cluster_start(end.summary.timecode.as_millis());
        whole.end = end;
    }
}

impl Disk {
    pub(super) fn answer(&mut self) -> Option<Answer> {
        Some(match self.asked.pop_front()? {
            Request::Write(whole) | Request::Keep(whole) if self.fails => {
                Answer::NotWritten { id: whole.id() }
            }
            Request::Keep(whole) => {
                self.local.insert(whole.id());
                self.asked.push_front(Request::Write(whole));
                return self.answer();
            }
            Request::Recall { .. } if self.fails => Answer::NotRecalled,
            Request::Recall { from_ms, to_ms, most } => {
                let ms = ProducerTimestamp::as_millis;
                let of = |whole: &Whole| (ms(whole.end.summary.timecode), ms(whole.end.summary.end()));
                let inside = |whole: &&Whole| {
                    let (start, end) = of(whole);
                    self.local.contains(&whole.id()) && start <= to_ms && from_ms <= end
                };
                let all: Vec<_> = self.kept.iter().filter(|(_, whole)| inside(whole)).collect();
                let left = all.len().saturating_sub(most);
                let spooled = |(place, whole): (&Place, &Whole)| Spooled {
                    place: *place,
                    header: whole.header.clone(),
                    end: whole.end.clone(),
                };
                let fragments: Vec<_> = all.into_iter().take(most).map(spooled).collect();
                for spooled in &fragments {
                    self.local.remove(&spooled.end.summary.id);
                }
                Answer::Recalled { fragments, left }
            }
            Request::Stamp(_) if self.fails => Answer::NotStamped,
            Request::Stamp(trusted) => {
                let mut runs: BTreeMap<_, (Stretch, usize)> = BTreeMap::new();
                for whole in self.kept.values() {
                    let summary = &whole.end.summary;
                    let FootageClock::Boot(boot) = summary.clock else { continue };
                    let (run, to_ms) = (summary.id.run, summary.end().as_millis());
                    let from_ms = summary.timecode.as_millis();
                    let stretch = Stretch { run, boot, from_ms, to_ms, after_ms: 0 };
                    let (stretch, count) = runs.entry(run).or_insert((stretch, 0));
                    (stretch.to_ms, *count) = (to_ms, *count + 1);
                }
                let stretches: Vec<_> = runs.values().map(|(stretch, _)| *stretch).collect();
                let stamps = stamping::stamp(&stretches, &trusted);
                self.kept.values_mut().for_each(|whole| stamped(whole, &stamps));
                self.stamps.extend(&stamps);
                Answer::Stamped(stamps.into_iter().zip(runs.values().map(|(_, count)| *count)).collect())
            }
            Request::Write(mut whole) => {
                stamped(&mut whole, &self.stamps);
                self.next += 1;
                let (id, place) = (whole.id(), Place { segment: 1, offset: self.next });
                self.kept.insert(place, whole);
                Answer::Written { id, place }
            }
            Request::Settle(id, _) => {
                self.settled.insert(id);
                return self.answer();
            }
            Request::Read(id) if self.fails => Answer::NotRead { id },
            Request::Read(id) => {
                let whole = self.kept.values().find(|whole| whole.id() == id);
                let cluster = whole.map(|whole| Bytes::from(whole.pieces.concat()));
                Answer::Read { id, cluster }
            }
            Request::List { .. } if self.fails => Answer::NotListed,
            Request::List { after, most } => {
                let waiting: Vec<_> = self
                    .kept
                    .iter()
                    .filter(|(place, whole)| {
                        after.is_none_or(|after| **place > after)
                            && !self.settled.contains(&whole.id())
                            && !self.local.contains(&whole.id())
                            && !whole.end.summary.clock.is_boot()
                    })
                    .collect();
                let left = waiting.len().saturating_sub(most);
                let bytes = waiting.iter().skip(most).map(|(_, whole)| whole.end.summary.cluster_bytes).sum();
                let fragments = waiting.iter().take(most).map(|(place, whole)| Spooled {
                    place: **place,
                    header: whole.header.clone(),
                    end: whole.end.clone(),
                });
                Answer::Listed { fragments: fragments.collect(), left: Waiting { fragments: left, bytes } }
            }
        })
    }
}

pub(super) fn ask(source: &mut SpoolSource, disk: &mut Disk) {
    let mut asked = 0;
    while let Some(request) = source.next_request() {
        disk.asked.push_back(request);
        asked += 1;
        assert!(asked < 100, "it asks without end");
    }
}

/// Sends the oldest as a session would; true if that was possible now.
pub(super) fn send(source: &mut SpoolSource, disk: &mut Disk, sent: &mut Vec<(FragmentId, Vec<u8>)>) -> bool {
    let Some(held) = source.held().next().filter(|held| held.end.is_some()) else { return false };
    let (id, count) = (held.id, held.pieces);
    let pieces: Option<Vec<_>> = (0..count).map(|index| source.piece(id, index)).collect();
    let Some(pieces) = pieces else { return false };
    sent.push((id, pieces.concat()));
    source.release(id);
    disk.asked.push_back(Request::Settle(id, crate::upload::Settled::Persisted(None)));
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the order in which footage comes, the disk answers and fails, and fragments leave: each is sent once, in order,
    /// byte for byte, and what is on disk takes no more memory than it may.
    #[test]
    fn each_fragment_is_sent_once_in_order_and_memory_stays_in_its_limit(
        count in 1_u64..1400,
        steps in prop::collection::vec((0_u8..10, 1_usize..160), 1..120),
        limit in 2000_usize..40_000,
        restart in any::<bool>(),
    ) {
        let parts = stream(count);
        let expected: Vec<_> =
            wholes(parts.clone()).into_iter().map(|whole| (whole.summary.id, whole.cluster)).collect();
        let largest = expected.iter().map(|(_, cluster)| cluster.len()).max().unwrap_or(0);
        let mut parts = parts.into_iter();
        let (mut source, mut disk, mut sent) = (SpoolSource::with_spool(limit), Disk::default(), Vec::new());
        let mut failed = false;
        for (what, many) in steps {
            match what {
                0..=3 => for part in parts.by_ref().take(many * 11) {
                    source.part(part);
                    ask(&mut source, &mut disk);
                    if !disk.fails && let Some(answer) = disk.answer() {
                        source.answer(answer);
                    }
                },
                4 => {
                    (disk.fails, failed) = (many > 80, failed || many > 80);
                    source.try_again();
                }
                5..=6 => (0..many).for_each(|_| { send(&mut source, &mut disk, &mut sent); }),
                _ => (0..many).for_each(|_| {
                    ask(&mut source, &mut disk);
                    if let Some(answer) = disk.answer() {
                        source.answer(answer);
                    }
                }),
            }
            ask(&mut source, &mut disk);
            if !failed {
                prop_assert!(source.bytes() <= limit + 4 * largest, "{} of {limit}", source.bytes());
            }
        }
        disk.fails = false;
        source.try_again();
        parts.for_each(|part| source.part(part));
        if restart {
            // All that is on disk by now is there in the next life; the rest would be lost, so it is waited for.
            source.try_again();
            while { ask(&mut source, &mut disk); disk.answer().map(|answer| source.answer(answer)).is_some() } {}
            let left: BTreeSet<_> = source.front.iter().chain(&source.tail).map(|one| (one.id, one.place.is_some())).collect();
            prop_assert!(left.iter().all(|(_, stored)| *stored));
            source = SpoolSource::with_spool(limit);
        }
        let mut idle = 0;
        while idle < 3 {
            ask(&mut source, &mut disk);
            let answered = disk.answer().map(|answer| source.answer(answer)).is_some();
            let moved = send(&mut source, &mut disk, &mut sent);
            idle = if answered || moved { 0 } else { idle + 1 };
        }
        let names = |all: &[(FragmentId, Vec<u8>)]| all.iter().map(|(id, _)| id.sequence).collect::<Vec<_>>();
        prop_assert_eq!(names(&sent), names(&expected));
        prop_assert!(sent == expected, "other bytes");
        prop_assert_eq!(source.all(), (0, 0));
        prop_assert_eq!(source.bytes(), 0);
    }

    /// What an earlier life left is listed only after a while, while footage comes and is sent: none is lost, none comes twice,
    /// and what is recorded meanwhile is whole.
    #[test]
    fn a_list_that_comes_late_loses_nothing_and_repeats_nothing(
        earlier in 1_u64..900,
        before in 0_usize..60,
        after in 1_usize..60,
        limit in 2000_usize..40_000,
        sends in 0_usize..20,
    ) {
        let parts = stream(earlier + 40);
        let expected: BTreeMap<_, _> =
            wholes(parts.clone()).into_iter().map(|whole| (whole.summary.id, whole.cluster)).collect();
        let mut parts = parts.into_iter();
        let (mut source, mut disk, mut sent) = (SpoolSource::with_spool(1 << 30), Disk::default(), Vec::new());
        for part in parts.by_ref().take(usize::try_from(earlier).expect("small") * 7) {
            source.part(part);
            while { ask(&mut source, &mut disk); disk.answer().map(|answer| source.answer(answer)).is_some() } {}
        }
        prop_assert_eq!(disk.kept.len() as u64, earlier);
        source = SpoolSource::with_spool(limit);
        disk.fails = true;
        let turn = |source: &mut SpoolSource, disk: &mut Disk, part: Option<Part>| {
            part.into_iter().for_each(|part| source.part(part));
            ask(source, disk);
            if let Some(answer) = disk.answer() {
                source.answer(answer);
            }
        };
        for part in parts.by_ref().take(before) {
            turn(&mut source, &mut disk, Some(part));
        }
        (0..sends).for_each(|_| { send(&mut source, &mut disk, &mut sent); });
        disk.fails = false;
        source.try_again();
        for part in parts.by_ref().take(after) {
            turn(&mut source, &mut disk, Some(part));
            send(&mut source, &mut disk, &mut sent);
        }
        parts.for_each(|part| source.part(part));
        let mut idle = 0;
        while idle < 3 {
            ask(&mut source, &mut disk);
            let answered = disk.answer().map(|answer| source.answer(answer)).is_some();
            let moved = send(&mut source, &mut disk, &mut sent);
            idle = if answered || moved { 0 } else { idle + 1 };
        }
        let names: Vec<_> = sent.iter().map(|(id, _)| *id).collect();
        let once: BTreeMap<_, _> = sent.into_iter().collect();
        prop_assert_eq!(names.len(), once.len(), "twice: {:?}", names);
        prop_assert_eq!(once.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        prop_assert!(once == expected, "other bytes");
        prop_assert_eq!((source.all(), source.bytes()), ((0, 0), 0));
    }

    /// Whatever is asked for and when: what lies in a stretch is sent, once and byte for byte, and nothing else is.
    #[test]
    fn of_a_selection_all_that_is_wanted_is_sent_and_nothing_else(
        count in 1_u64..700,
        wants in prop::collection::vec((0_usize..5000, 0_u64..700, 0_u64..40), 0..12),
        limit in 2000_usize..40_000,
        restart in 0_usize..5000,
        fails in 0_usize..5000,
    ) {
        let parts = stream(count);
        let all = wholes(parts.clone());
        let start = crate::testing::START_MS;
        let stretch = |from: u64, length: u64| (start + from * 1000 + 500, start + (from + length) * 1000 + 500);
        // A stretch that is past when the box starts again was recalled from the disk by then.
        let inside = |at: &crate::testing::Whole| {
            let (first, last) = (at.summary.timecode.as_millis(), at.summary.end().as_millis());
            wants.iter().any(|(_, from, length)| {
                let (from, to) = stretch(*from, *length);
                first <= to && from <= last
            })
        };
        let expected: BTreeMap<_, _> =
            all.iter().filter(|one| inside(one)).map(|one| (one.summary.id, one.cluster.clone())).collect();
        let (mut source, mut disk, mut sent) = (SpoolSource::selective(limit), Disk::default(), Vec::new());
        let tell = |source: &mut SpoolSource, at: usize| {
            for (when, from, length) in &wants {
                let (from, to) = stretch(*from, *length);
                let at_ms = ProducerTimestamp::from_millis;
                if *when == at || at == usize::MAX {
                    source.want(at_ms(from), at_ms(to));
                }
            }
        };
        let settle = |source: &mut SpoolSource, disk: &mut Disk| {
            while { ask(source, disk); disk.answer().map(|answer| source.answer(answer)).is_some() } {}
        };
        for (at, part) in parts.into_iter().enumerate() {
            disk.fails = at / 30 == fails / 30;
            tell(&mut source, at);
            let ends = matches!(part, Part::End(_));
            source.part(part);
            if at % 3 > 0 && !(ends && at == restart) {
                ask(&mut source, &mut disk);
                disk.answer().into_iter().for_each(|answer| source.answer(answer));
                send(&mut source, &mut disk, &mut sent);
            }
            prop_assert!(source.bytes() < 200_000);
        }
        disk.fails = false;
        tell(&mut source, usize::MAX);
        for _ in 0..3 {
            source.try_again();
            settle(&mut source, &mut disk);
        }
        if restart.is_multiple_of(2) {
            source = SpoolSource::selective(limit);
        }
        let mut idle = 0;
        while idle < 3 {
            source.try_again();
            settle(&mut source, &mut disk);
            idle = if send(&mut source, &mut disk, &mut sent) { 0 } else { idle + 1 };
        }
        let names: Vec<_> = sent.iter().map(|(id, _)| *id).collect();
        let once: BTreeMap<_, _> = sent.into_iter().collect();
        prop_assert_eq!(names.len(), once.len(), "twice: {:?}", names);
        prop_assert_eq!(once.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        prop_assert!(once == expected, "other bytes");
        prop_assert_eq!((source.all(), source.bytes()), ((0, 0), 0));
    }
}
