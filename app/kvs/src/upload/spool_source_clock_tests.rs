//! Footage from before the clock was set: what is sent of it, when, and with what times.

use proptest::prelude::*;

use super::tests::{Disk, ask, send};
use super::*;
use crate::RunId;
use crate::fragmenter::Fragmenter;
use crate::stamping::BootId;
use crate::testing::{self, START_MS, config, format, unit};
use crate::{FragmentIds, upload::Settled};

const BOOT: BootId = BootId(7);
/// Time since boot of the first picture.
const BOOT_MS: u64 = 61_000;

/// UTC less time since boot.
fn offset_ms() -> i64 {
    (START_MS - BOOT_MS).cast_signed()
}

fn trusted(before_ms: u64) -> Trusted {
    Trusted { boot: BOOT, offset_ms: offset_ms(), before_ms }
}

/// A camera that delivers fragments of a second.
struct Camera {
    fragmenter: Fragmenter,
    pictures: u64,
    clock_set: bool,
}

impl Camera {
    fn new(run: u64) -> Self {
        let config =
            crate::fragmenter::FragmenterConfig { ids: FragmentIds::new(RunId::new(run)), ..config() };
        let mut fragmenter = Fragmenter::new(config);
        fragmenter.boot_timeline([1; 16], BOOT);
        Self { fragmenter, pictures: 0, clock_set: false }
    }

    fn set_clock(&mut self) {
        self.clock_set = true;
        self.fragmenter.new_timeline([2; 16]);
    }

    fn picture(&mut self) -> Vec<Part> {
        let at_ms = self.pictures * 200;
        let mut unit = unit(&format(640), at_ms, self.pictures.is_multiple_of(5));
        if !self.clock_set {
            unit.timestamp = ProducerTimestamp::from_millis(BOOT_MS + at_ms);
        }
        self.pictures += 1;
        self.fragmenter.video(&unit);
        testing::parts(&mut self.fragmenter)
    }

    fn end(&mut self) -> Vec<Part> {
        self.fragmenter.finish();
        testing::parts(&mut self.fragmenter)
    }
}

/// Timecodes of the clusters, as they were sent.
fn timecodes(sent: &[(FragmentId, Vec<u8>)]) -> Vec<u64> {
    let timecode = |cluster: &Vec<u8>| {
        (START_MS..START_MS + 10_000_000).step_by(1000).find(|ms| cluster.starts_with(&cluster_start(*ms)))
    };
    sent.iter().map(|(_, cluster)| timecode(cluster).expect("a whole second since the start")).collect()
}

fn settle(source: &mut SpoolSource, disk: &mut Disk) {
    ask(source, disk);
    while let Some(answer) = disk.answer() {
        source.answer(answer);
        ask(source, disk);
    }
}

/// Sends all that can be sent.
fn drain(source: &mut SpoolSource, disk: &mut Disk, sent: &mut Vec<(FragmentId, Vec<u8>)>) {
    let mut idle = 0;
    // What comes from disk is asked for by the first attempt.
    while idle < 2 {
        idle = if send(source, disk, sent) { 0 } else { idle + 1 };
        settle(source, disk);
    }
}

#[test]
fn nothing_is_sent_before_the_clock_is_set_and_all_of_it_in_order_afterwards() {
    for another_process in [false, true] {
        let mut camera = Camera::new(1);
        let (mut disk, mut sent) = (Disk::default(), Vec::new());
        let mut source = SpoolSource::with_spool(usize::MAX).waiting_for_clock();
        for _ in 0..50 {
            camera.picture().into_iter().for_each(|part| source.part(part));
            settle(&mut source, &mut disk);
            assert!(!send(&mut source, &mut disk, &mut sent));
        }
        assert!(source.bytes() < 600, "what is on disk needs no memory: {}", source.bytes());
        let before_ms = START_MS + 10_000;
        if another_process {
            camera.end().into_iter().for_each(|part| source.part(part));
            settle(&mut source, &mut disk);
            let pictures = camera.pictures;
            camera = Camera { pictures, ..Camera::new(2) };
            source = SpoolSource::with_spool(usize::MAX).waiting_for_clock();
        }
        camera.set_clock();
        let parts = testing::parts(&mut camera.fragmenter);
        parts.into_iter().for_each(|part| source.part(part));
        source.stamp(trusted(before_ms));
        for _ in 0..50 {
            camera.picture().into_iter().for_each(|part| source.part(part));
            settle(&mut source, &mut disk);
        }
        camera.end().into_iter().for_each(|part| source.part(part));
        settle(&mut source, &mut disk);
        drain(&mut source, &mut disk, &mut sent);
        let expected: Vec<_> = (0..20).map(|n| START_MS + n * 1000).collect();
        assert_eq!(timecodes(&sent), expected, "another process: {another_process}");
        assert_eq!(source.all(), (0, 0));
    }
}

#[test]
fn what_the_disk_does_not_take_is_stamped_in_memory() {
    let mut camera = Camera::new(1);
    let mut disk = Disk::default();
    disk.fails = true;
    let mut source = SpoolSource::with_spool(usize::MAX).waiting_for_clock();
    for _ in 0..20 {
        camera.picture().into_iter().for_each(|part| source.part(part));
        settle(&mut source, &mut disk);
    }
    camera.set_clock();
    source.stamp(trusted(START_MS + 4000));
    let mut sent = Vec::new();
    for _ in 0..20 {
        camera.picture().into_iter().for_each(|part| source.part(part));
        settle(&mut source, &mut disk);
        while send(&mut source, &mut disk, &mut sent) {}
    }
    let expected: Vec<_> = (0..7).map(|n| START_MS + n * 1000).collect();
    assert_eq!(timecodes(&sent), expected);
    let recalled: usize = source
        .take_news()
        .iter()
        .map(|news| if let News::Recalled { fragments, .. } = news { fragments.len() } else { 0 })
        .sum();
    assert_eq!(recalled, 4, "the ledger hears of them now");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever the disk does and whenever it answers, before and after the clock is set: each fragment is sent once, with its own
    /// time; and in order, unless the disk failed when it was to say what it has.
    #[test]
    fn each_fragment_is_sent_once_with_its_own_time(
        steps in prop::collection::vec((0_u8..10, 1_usize..40), 1..60),
        clock_set_at in 0_usize..60,
        closed in any::<bool>(),
        late in any::<bool>(),
    ) {
        let mut camera = Camera::new(1);
        let (mut disk, mut sent) = (Disk::default(), Vec::new());
        let mut source = SpoolSource::with_spool(20_000).waiting_for_clock();
        let (mut failed, mut untold) = (false, true);
        for (at, (what, many)) in steps.into_iter().enumerate() {
            if at >= clock_set_at && untold {
                untold = false;
                // The clock is known to be set before the camera's time is set by it, or with it.
                if !late {
                    camera.set_clock();
                    let parts = testing::parts(&mut camera.fragmenter);
                    parts.into_iter().for_each(|part| source.part(part));
                }
                source.stamp(trusted(START_MS + 10_000_000));
            }
            match what {
                0..=4 => for _ in 0..many {
                    if !untold && camera.pictures.is_multiple_of(5) && !camera.clock_set {
                        camera.set_clock();
                        let parts = testing::parts(&mut camera.fragmenter);
                        parts.into_iter().for_each(|part| source.part(part));
                    }
                    camera.picture().into_iter().for_each(|part| source.part(part));
                },
                5 => {
                    (disk.fails, failed) = (many > 30, failed || many > 30);
                    source.try_again();
                }
                6 => (0..many).for_each(|_| { send(&mut source, &mut disk, &mut sent); }),
                _ => for _ in 0..many {
                    ask(&mut source, &mut disk);
                    if let Some(answer) = disk.answer() {
                        source.answer(answer);
                    }
                },
            }
            prop_assert!(!untold || sent.is_empty());
        }
        disk.fails = false;
        camera.end().into_iter().for_each(|part| source.part(part));
        if untold {
            source.stamp(trusted(START_MS + 10_000_000));
        }
        source.try_again();
        settle(&mut source, &mut disk);
        if !closed {
            source.try_again();
            settle(&mut source, &mut disk);
        }
        drain(&mut source, &mut disk, &mut sent);
        let mut found = timecodes(&sent);
        if !failed {
            prop_assert!(found.is_sorted(), "{found:?}");
        }
        found.sort_unstable();
        let expected: Vec<_> = (0..camera.pictures.div_ceil(5)).map(|n| START_MS + n * 1000).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(source.all(), (0, 0));
        let settled = disk.asked.iter().filter(|one| matches!(one, Request::Settle(_, Settled::Persisted(_))));
        prop_assert_eq!(settled.count(), 0, "all was told");
    }
}
