use std::sync::Arc;
use std::time::{Duration, Instant};

use kvs::stamping::{BootId, Estimate, FootageClock, RunStamp, Trusted};
use kvs::upload::{Settled, Spooled};
use kvs::{FragmentId, RunId};

use crate::index::Index;
use crate::testing::{TestFiles, Trouble, fragment, fragment_of_boot};
use crate::{Options, Store, StoreError};

/// UTC of the start of the present boot.
const BOOTED: u64 = 1_795_186_000_000;
const BOOT: BootId = BootId(9);

#[expect(clippy::disallowed_methods, reason = "an Instant can be made in no other way")]
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

fn index() -> Index {
    Index::in_memory().expect("memory is there")
}

fn options() -> Options {
    let mut options = Options::new("/spool", 1 << 30, 1);
    options.segment_bytes = 5000;
    options
}

fn open(files: &TestFiles, index: Index) -> Store {
    Store::open(Arc::new(files.clone()), options(), index).expect("it opens")
}

fn trusted() -> Trusted {
    Trusted { boot: BOOT, offset_ms: BOOTED.cast_signed(), before_ms: BOOTED + 3_600_000 }
}

fn record(store: &mut Store, run: u64, sequences: impl IntoIterator<Item = u64>, boot: BootId) {
    for sequence in sequences {
        let fragment = fragment_of_boot(run, sequence, 1000, boot);
        store.write("cam", &fragment, epoch()).expect("there is room");
    }
}

fn waiting(store: &mut Store) -> Vec<Spooled> {
    let (fragments, left) = store.list("cam", None, 10_000).expect("it can be read");
    assert_eq!(left.fragments, 0);
    fragments
}

/// Time, and that what is read has it and is what its sums say.
fn times(store: &mut Store) -> Vec<u64> {
    let listed = waiting(store);
    for spooled in &listed {
        let summary = &spooled.end.summary;
        let cluster = store.read("cam", summary.id).expect("it can be read").expect("it is there");
        assert_eq!(cluster.len() as u64, summary.cluster_bytes);
        if summary.blocks == 1 {
            let heads = cluster.len() - 1000;
            assert_eq!(kvs::identity::Sha256Sum::of(&cluster[..heads]), summary.sums.heads);
            assert_eq!(kvs::identity::Sha256Sum::of(&cluster[heads..]), summary.sums.payload);
        }
    }
    listed.iter().map(|spooled| spooled.end.summary.timecode.as_millis()).collect()
}

#[test]
fn what_has_no_time_is_listed_once_it_has_one_in_order_and_by_one_write() {
    let files = TestFiles::default();
    let mut store = open(&files, index());
    record(&mut store, 1, 1..=9, BOOT);
    assert_eq!(times(&mut store), [0; 0]);
    assert!(store.undated().contains("cam"));
    store.write("cam", &fragment(1, 100, 500), epoch()).expect("there is room");
    let syncs = files.costs().0;
    let stamps = store.stamp("cam", &trusted()).expect("it is written");
    assert_eq!(files.costs().0 - syncs, 2, "a small file, and its name");
    let offset_ms = BOOTED.cast_signed();
    assert_eq!(stamps, [(RunStamp { run: RunId::new(1), offset_ms, estimate: None }, 9)]);
    let mut expected: Vec<_> = (1..=9).map(|n| BOOTED + 60_000 + n * 1000).collect();
    expected.push(1_795_186_173_000);
    assert_eq!(times(&mut store), expected);
    assert!(store.undated().is_empty());
    assert_eq!(store.stamp("cam", &trusted()).expect("nothing is left"), []);
    // One that was begun before and ends now.
    record(&mut store, 1, [10], BOOT);
    expected.push(BOOTED + 70_000);
    assert_eq!(times(&mut store), expected);
    // With the index lost, and with the index of before.
    let kept = store.into_index().killed();
    assert_eq!(times(&mut open(&files, kept)), expected);
    assert_eq!(times(&mut open(&files, index())), expected);
}

#[test]
fn footage_of_an_earlier_boot_lies_between_what_is_known_and_says_so() {
    let files = TestFiles::default();
    let mut store = open(&files, index());
    // Real times up to here; then a boot without a clock, and another one in which it is set.
    let last_real = fragment(1, 1, 500);
    store.write("cam", &last_real, epoch()).expect("there is room");
    let after_ms = last_real.end.summary.end().as_millis();
    let mut store = open(&files, store.into_index().killed());
    record(&mut store, 2, 1..=3, BootId(8));
    let mut store = open(&files, store.into_index().killed());
    record(&mut store, 3, 1..=2, BOOT);
    // The present boot began an hour after the last real time.
    let offset_ms = (after_ms + 3_600_000).cast_signed();
    let trusted = Trusted { boot: BOOT, offset_ms, before_ms: after_ms + 7_200_000 };
    store.stamp("cam", &trusted).expect("it is written");
    for mut store in [open(&files, store.into_index().killed()), open(&files, index())] {
        let listed = waiting(&mut store);
        let clocks: Vec<_> = listed.iter().map(|spooled| spooled.end.summary.clock).collect();
        assert_eq!((clocks[0], clocks[4]), (FootageClock::Utc, FootageClock::Utc));
        let FootageClock::Estimated(Estimate { earlier_ms: Some(earlier_ms) }) = clocks[1] else {
            panic!("{clocks:?}")
        };
        let (first, last) = (&listed[1].end.summary, &listed[3].end.summary);
        assert_eq!(last.end().as_millis(), after_ms + 3_600_000 - 1, "before the present boot");
        assert_eq!(first.timecode.as_millis() - earlier_ms, after_ms + 1, "behind what is known");
        assert!(times(&mut store).is_sorted());
        let tags = String::from_utf8_lossy(&listed[1].end.tag).into_owned();
        assert!(tags.contains("KVS_EDGE_CLOCK") && tags.contains("estimated from="), "{tags}");
    }
}

#[test]
fn stamps_stay_as_long_as_what_they_are_for() {
    let files = TestFiles::default();
    let mut store = open(&files, index());
    record(&mut store, 1, 1..=3, BOOT);
    store.stamp("cam", &trusted()).expect("it is written");
    let is_stamp = |path: &std::path::PathBuf| path.to_string_lossy().ends_with(".stamps");
    let stamps = || files.paths().iter().filter(|path| is_stamp(path)).count();
    let mut store = open(&files, store.into_index().killed());
    assert_eq!((times(&mut store).len(), stamps()), (3, 1));
    for sequence in 1..=3 {
        let id = FragmentId { run: RunId::new(1), sequence };
        store.settle("cam", id, Settled::Persisted(None)).expect("it is noted");
    }
    store.flush().expect("it is written");
    for path in files.paths().iter().filter(|path| path.to_string_lossy().ends_with(".seg")) {
        crate::Files::remove(&files, path).expect("it is there");
    }
    drop(open(&files, index()));
    assert_eq!(stamps(), 0, "nothing is left of what it was for");
}

#[test]
fn local_recordings_without_a_clock_are_recalled_by_the_time_that_they_get() {
    let files = TestFiles::default();
    let mut store = open(&files, index());
    for sequence in 1..=5 {
        let fragment = fragment_of_boot(1, sequence, 1000, BOOT);
        store.write_as("cam", &fragment, true, epoch()).expect("there is room");
    }
    store.stamp("cam", &trusted()).expect("it is written");
    assert_eq!(times(&mut store), [0; 0]);
    let (recalled, left) = store.recall("cam", (BOOTED + 62_000, BOOTED + 63_500), 9).expect("it can");
    assert_eq!((recalled.len(), left), (2, 0));
    assert_eq!(times(&mut open(&files, index())), [0; 0], "not written down yet");
    store.flush().expect("it is written");
    assert_eq!(times(&mut open(&files, index())), [BOOTED + 62_000, BOOTED + 63_000]);
}

#[test]
fn what_has_no_time_is_never_too_old_and_gives_way_in_the_order_of_recording() {
    let files = TestFiles::default();
    let mut options = Options { keep: Duration::ZERO, ..options() };
    options.bytes = 30_000;
    let mut store = Store::open(Arc::new(files.clone()), options, index()).expect("it opens");
    record(&mut store, 1, 1..=8, BOOT);
    // Weeks later by its time; what has none stays.
    let mut late = fragment(1, 100, 500);
    late.end.summary.timecode = media::ProducerTimestamp::from_millis(BOOTED + 90 * 86_400_000);
    store.write("cam", &late, epoch()).expect("there is room");
    assert_eq!(store.dropped().len(), 0);
    record(&mut store, 1, 101..=130, BOOT);
    let dropped: Vec<_> = store.dropped().iter().map(|(_, dropped)| dropped.id.sequence).collect();
    assert!(dropped.len() > 8, "it is bounded: {dropped:?}");
    assert!(dropped.is_sorted(), "{dropped:?}");
    let stamps = store.stamp("cam", &trusted()).expect("it is written");
    assert_eq!(stamps.iter().map(|(_, count)| count).sum::<usize>() + dropped.len(), 8 + 1 + 30);
}

#[test]
fn a_disk_that_takes_no_stamps_is_asked_again() {
    let files = TestFiles::default();
    let mut store = open(&files, index());
    record(&mut store, 1, 1..=3, BOOT);
    files.plan(files.changes(), Trouble::FromNow(std::io::ErrorKind::Other));
    assert!(matches!(store.stamp("cam", &trusted()), Err(StoreError::Io { .. })));
    assert_eq!(times(&mut store), [0; 0], "nobody gets a time that is not on disk");
    files.mend();
    store.stamp("cam", &trusted()).expect("it is written");
    assert_eq!(times(&mut store).len(), 3);
    assert_eq!(times(&mut open(&files, index())).len(), 3);
}
