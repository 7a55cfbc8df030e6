//! Damage, strangers, room: what is found, and that it costs only itself.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvs::upload::{Place, Settled};
use kvs::{FragmentId, RunId};

use crate::index::Index;
use crate::testing::{TestFiles, fragment};
use crate::{
    Files as _, FindingKind, Keys, OpenError, Options, RealFiles, Spool, Store, StoreError, WhenFull,
};

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

fn open(files: &TestFiles, options: &Options, index: Index) -> Store {
    Store::open(Arc::new(files.clone()), options.clone(), index).expect("it opens")
}

fn write(store: &mut Store, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        store.write("cam", &fragment(1, sequence, 1000), epoch()).expect("there is room");
    }
}

fn waiting(store: &mut Store) -> Vec<u64> {
    let (fragments, left) = store.list("cam", None, 10_000).expect("it can be read");
    assert_eq!(left.fragments, 0);
    fragments.iter().map(|spooled| spooled.end.summary.id.sequence).collect()
}

fn kinds(store: &mut Store) -> Vec<FindingKind> {
    store.findings().iter().map(|finding| finding.kind).collect()
}

fn id(sequence: u64) -> FragmentId {
    FragmentId { run: RunId::new(1), sequence }
}

fn segment(number: u64) -> std::path::PathBuf {
    Path::new("/spool/cameras/cam").join(crate::segment::name_of(number))
}

#[test]
fn one_write_and_one_sync_for_each_fragment_and_two_for_each_segment() {
    let files = TestFiles::default();
    let mut store = open(&files, &options(), index());
    write(&mut store, 1..=3); // the first segment
    let (before, changes) = (files.costs(), files.changes());
    write(&mut store, [4]);
    assert_eq!((files.costs().0 - before.0, files.changes() - changes), (1, 2), "a write and a sync");
    let record = files.costs().1 - before.1;
    assert!((1000..1400).contains(&record), "{record} bytes for one of 1000");
    let before = files.costs();
    store.settle("cam", id(1), Settled::Persisted(None)).expect("it is noted");
    assert_eq!(files.costs(), before, "what KVS has is written with the next fragment");
    write(&mut store, [5]);
    let (syncs, bytes) = (files.costs().0 - before.0, files.costs().1 - before.1);
    assert_eq!(syncs, 2, "a new segment, and its name");
    assert!(bytes > record && bytes < record + 120, "{bytes}");
}

#[test]
fn a_damaged_record_and_a_missing_segment_cost_themselves() {
    let files = TestFiles::default();
    let mut store = open(&files, &options(), index());
    write(&mut store, 1..=12);
    assert_eq!(files.paths().len(), 3);
    drop(store);
    // The head of the second record of the first segment, and all of the second segment.
    files.damage(&segment(1), |bytes| {
        let at = bytes.windows(4).enumerate().filter(|(_, four)| four == b"\xf7KSR").nth(1).expect("two").0;
        bytes[at + 9] ^= 1;
    });
    files.take(&segment(2));
    let mut store = open(&files, &options(), index());
    assert_eq!(kinds(&mut store), [FindingKind::Damaged]);
    assert_eq!(waiting(&mut store), [1, 3, 4, 9, 10, 11, 12]);
    // With an index the missing segment is missed, and what it held is told.
    let index = store.into_index();
    files.take(&segment(3));
    let mut store = open(&files, &options(), index);
    let dropped: Vec<_> = store.dropped().iter().map(|(_, dropped)| dropped.id.sequence).collect();
    assert_eq!((kinds(&mut store), dropped), (vec![FindingKind::Damaged], vec![9, 10, 11, 12]));
    assert_eq!(waiting(&mut store), [1, 3, 4]);
    // Told once.
    let mut store = open(&files, &options(), store.into_index());
    assert_eq!((kinds(&mut store), store.dropped()), (vec![], vec![]));
}

#[test]
fn a_body_that_rots_is_found_when_it_is_read() {
    let files = TestFiles::default();
    let mut store = open(&files, &options(), index());
    write(&mut store, 1..=3);
    files.damage(&segment(1), |bytes| bytes[900] ^= 1);
    assert!(store.read("cam", id(1)).expect("the disk answers").is_none());
    assert!(store.read("cam", id(2)).expect("the disk answers").is_some());
}

#[test]
fn strangers_are_told_and_left_alone() {
    let files = TestFiles::default();
    let mut store = open(&files, &options(), index());
    write(&mut store, 1..=3);
    let mut later = crate::record::segment_head(9, false).to_vec();
    later[8] = 3;
    let sum = crc32fast::hash(&later[..20]);
    later[20..].copy_from_slice(&sum.to_le_bytes());
    let strangers = [
        (Path::new("/spool/cameras/holiday.jpg").to_owned(), &b"JPEG"[..], FindingKind::Foreign),
        (segment(1).with_file_name("notes.txt"), b"notes", FindingKind::Foreign),
        (segment(9), &later, FindingKind::Later),
        (segment(8), b"This is no segment, whatever its name says.", FindingKind::Damaged),
    ];
    for (path, bytes, _) in &strangers {
        files.put(path, bytes);
    }
    let mut store = open(&files, &options(), store.into_index());
    let mut found = store.findings();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let mut expected: Vec<_> = strangers.iter().map(|(path, _, kind)| (path.clone(), *kind)).collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let found: Vec<_> = found.into_iter().map(|finding| (finding.path, finding.kind)).collect();
    assert_eq!(found, expected);
    assert_eq!(waiting(&mut store), [1, 2, 3]);
    write(&mut store, 4..=40);
    store.flush().expect("it is written");
    assert!(strangers.iter().all(|(path, ..)| files.paths().contains(path)));
    assert!(!files.paths().contains(&segment(7)), "no number is used again");
}

#[test]
fn room_is_made_by_what_is_in_kvs_and_then_by_the_oldest() {
    for when_full in [WhenFull::DropOldest, WhenFull::StopRecording] {
        let files = TestFiles::default();
        let options = Options { bytes: 18_000, when_full, ..options() };
        let mut store = open(&files, &options, index());
        write(&mut store, 1..=12);
        (5..=8).for_each(|n| store.settle("cam", id(n), Settled::Persisted(None)).expect("noted"));
        write(&mut store, 13..=16);
        assert_eq!(store.dropped(), [], "what KVS has gives way first");
        assert!(store.read("cam", id(5)).expect("the disk answers").is_none());
        let more: Vec<_> =
            (17..=24).map(|n| store.write("cam", &fragment(1, n, 1000), epoch()).is_ok()).collect();
        assert!(store.bytes() <= 18_000, "{}", store.bytes());
        let dropped: Vec<_> = store.dropped().iter().map(|(_, dropped)| dropped.id.sequence).collect();
        match when_full {
            WhenFull::DropOldest => {
                assert_eq!((more, dropped), (vec![true; 8], vec![1, 2, 3, 4, 9, 10, 11, 12]));
            }
            WhenFull::StopRecording => {
                assert_eq!((more[..3].to_vec(), dropped), (vec![true, true, false], vec![]));
                let error = store.write("cam", &fragment(1, 30, 1000), epoch()).expect_err("full");
                assert!(matches!(error, StoreError::Full { .. }), "{error}");
                assert!(waiting(&mut store).starts_with(&[1, 2, 3, 4, 9]));
            }
        }
    }
}

#[test]
fn local_recordings_go_by_age_and_so_does_what_waits_too_long() {
    let files = TestFiles::default();
    let options = Options { keep: Duration::from_secs(20), backlog: Duration::from_secs(60), ..options() };
    let mut store = open(&files, &options, index());
    write(&mut store, 1..=4);
    write(&mut store, 5..=8);
    (5..=8).for_each(|n| store.settle("cam", id(n), Settled::Persisted(None)).expect("noted"));
    write(&mut store, 9..=26);
    assert!(store.read("cam", id(5)).expect("the disk answers").is_some(), "kept");
    write(&mut store, 27..=40);
    assert!(store.read("cam", id(5)).expect("the disk answers").is_none());
    assert_eq!(store.dropped(), []);
    write(&mut store, 41..=70);
    let dropped: Vec<_> = store.dropped().iter().map(|(_, dropped)| dropped.id.sequence).collect();
    assert_eq!(dropped[..4], [1, 2, 3, 4], "given up after an hour, here a minute");
}

#[test]
fn a_failed_disk_is_left_alone_for_a_moment() {
    let files = TestFiles::default();
    let mut store = open(&files, &options(), index());
    write(&mut store, [1]);
    files.break_with(ErrorKind::ReadOnlyFilesystem);
    let now = epoch();
    let error = store.write("cam", &fragment(1, 2, 1000), now).expect_err("it fails");
    let text = error.to_string();
    assert!(text.contains("0000000001.seg") && text.contains("read-only"), "{text}");
    assert!(error.fix().contains("mount"), "{}", error.fix());
    let changes = files.changes();
    let error =
        store.write("cam", &fragment(1, 3, 1000), now + Duration::from_secs(1)).expect_err("it rests");
    assert!(matches!(error, StoreError::Resting { .. }), "{error}");
    assert_eq!(files.changes(), changes);
    files.mend();
    let place =
        store.write("cam", &fragment(1, 3, 1000), now + Duration::from_secs(2)).expect("it works again");
    assert_eq!(place, Place { segment: 2, offset: 24 }, "never behind an end that is in doubt");
    assert_eq!(waiting(&mut store), [1, 3]);
}

#[test]
fn on_a_real_disk_with_its_index_damaged_lost_or_of_a_later_release() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { folder: folder.path().join("spool"), ..options() };
    let spool = || Spool::open_inline(options.clone(), Arc::new(RealFiles), clock::Clock::system());
    let index_file = options.index();
    let damage: [(&str, &dyn Fn()); 4] = [
        ("fresh", &|| ()),
        ("damaged", &|| std::fs::write(&index_file, vec![7; 40_000]).expect("written")),
        ("lost", &|| std::fs::remove_file(&index_file).expect("removed")),
        ("later", &|| {
            let db = rusqlite::Connection::open(&index_file).expect("it opens");
            db.execute_batch("UPDATE schema SET oldest_reader = 9; PRAGMA user_version = 9")
                .expect("changed");
        }),
    ];
    for (round, (name, damage)) in damage.into_iter().enumerate() {
        damage();
        let opened = spool().expect("it opens whatever the index is");
        let told = opened.found().iter().any(|finding| finding.kind == FindingKind::Index);
        assert_eq!(told, matches!(name, "damaged" | "later"), "{name}: {:?}", opened.found());
        assert!(matches!(spool(), Err(OpenError::Taken { .. })), "one process at a time");
        let mut camera = opened.camera("cam");
        let sequence = round as u64 + 1;
        camera.ask(kvs::upload::Request::Write(fragment(1, sequence, 3000)));
        assert!(matches!(camera.try_next(), Some(kvs::upload::Answer::Written { .. })), "{name}");
        camera.ask(kvs::upload::Request::List { after: None, most: 99 });
        let Some(kvs::upload::Answer::Listed { fragments, .. }) = camera.try_next() else { panic!("{name}") };
        let listed: Vec<_> = fragments.iter().map(|spooled| spooled.end.summary.id.sequence).collect();
        assert_eq!(listed, (1..=sequence).collect::<Vec<_>>(), "{name}");
        opened.close();
    }
    let folder = options.cameras().join("cam");
    assert_eq!(RealFiles.list(&folder).expect("it is there").len(), 4, "a segment for each start");
}

#[test]
fn a_look_from_outside_finds_all_footage_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { folder: folder.path().join("spool"), ..options() };
    let opened =
        Spool::open_inline(options.clone(), Arc::new(RealFiles), clock::Clock::system()).expect("it opens");
    let camera = opened.camera("cam");
    for sequence in 1..=10 {
        camera.ask(kvs::upload::Request::Write(fragment(1, sequence, 1000)));
    }
    camera.ask(kvs::upload::Request::Settle(id(3), Settled::Persisted(None)));
    camera.ask(kvs::upload::Request::Write(fragment(1, 11, 1000)));
    let checked = crate::check(&options.folder, &Keys::default()).expect("it can be read while it is used");
    assert_eq!((checked.in_use, &checked.findings), (true, &vec![]));
    let [camera] = &checked.cameras[..] else { panic!("{checked:?}") };
    assert_eq!((camera.segments, camera.fragments, camera.waiting), (3, 11, 10), "{camera:?}");
    let at = |sequence: u64| 1_795_186_073_000 + sequence * 1000;
    assert_eq!((camera.from_ms, camera.to_ms), (Some(at(1)), Some(at(11) + 960)));
    let mut found = Vec::new();
    let findings = crate::footage(&options.folder, &Keys::default(), "cam", (at(4), at(7)), &mut |footage| {
        let whole = fragment(1, footage.summary.id.sequence, 1000);
        assert_eq!((&*footage.cluster, &footage.header), (&*whole.pieces.concat(), &*whole.header));
        found.push(footage.summary.id.sequence);
        Ok(())
    });
    assert_eq!((findings.expect("it can be read").findings, found), (vec![], vec![4, 5, 6]));
    assert!(
        matches!(crate::repair(&options.folder, None), Err(OpenError::Taken { .. })),
        "not while it is used"
    );
    opened.close();
}

#[test]
fn what_is_wrong_is_told_by_a_look_and_mended_by_a_repair() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { folder: folder.path().join("spool"), ..options() };
    {
        let opened = Spool::open_inline(options.clone(), Arc::new(RealFiles), clock::Clock::system())
            .expect("it opens");
        let camera = opened.camera("cam");
        let mut writes = (1..=8).map(|sequence| kvs::upload::Request::Write(fragment(1, sequence, 1000)));
        assert!(writes.all(|write| camera.ask(write)));
        opened.close();
    }
    let segment = |number| options.cameras().join("cam").join(crate::segment::name_of(number));
    let mut bytes = std::fs::read(segment(1)).expect("it is there");
    bytes[700] ^= 1;
    std::fs::write(segment(1), &bytes).expect("written");
    let length = std::fs::metadata(segment(2)).expect("it is there").len();
    let file = std::fs::OpenOptions::new().write(true).open(segment(2)).expect("it opens");
    file.set_len(length - 100).expect("cut");
    std::fs::write(options.index(), b"This is no index.").expect("written");
    let kinds = || {
        let checked = crate::check(&options.folder, &Keys::default()).expect("it can be read");
        let kinds: Vec<_> = checked.findings.iter().map(|finding| finding.kind).collect();
        (checked.in_use, kinds, checked.cameras[0].fragments)
    };
    let wrong = vec![FindingKind::Damaged, FindingKind::Torn, FindingKind::Index];
    assert_eq!(kinds(), (false, wrong.clone(), 6));
    assert_eq!(kinds(), (false, wrong, 6), "a look mends nothing");
    let mended = crate::repair(&options.folder, None).expect("nobody has it");
    assert_eq!(mended.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [FindingKind::Torn]);
    assert_eq!(kinds(), (false, vec![FindingKind::Damaged], 6), "what rots stays, and costs itself");
}

#[test]
fn a_spool_that_cannot_be_opened_says_what_to_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("spool");
    std::fs::write(&file, b"a file").expect("written");
    let options = Options { folder: file, ..options() };
    let error =
        Spool::open_inline(options, Arc::new(RealFiles), clock::Clock::system()).map(drop).expect_err("no");
    let problem = error.problem(std::time::UNIX_EPOCH);
    assert!(problem.to_string().contains("spool") && problem.fix.is_some(), "{problem}");
}

#[test]
fn what_had_to_make_room_is_told_although_the_power_went_and_the_index_is_lost() {
    let files = TestFiles::default();
    let options = Options { bytes: 18_000, ..options() };
    let mut store = open(&files, &options, index());
    // Until something has to go, and nobody is told of it.
    let gone = (1..=40)
        .find_map(|n| {
            write(&mut store, [n]);
            Some(store.dropped()).filter(|dropped| !dropped.is_empty())
        })
        .expect("something had to go");
    drop(store);
    let mut store = open(&files, &options, index());
    assert_eq!((store.dropped(), kinds(&mut store)), (gone.clone(), vec![]));
    let first: Vec<_> = gone.iter().map(|(_, dropped)| dropped.id.sequence).collect();
    assert_eq!(first, [1, 2, 3, 4]);
    // An uplink that answers for this camera was told: not again.
    store.told("cam");
    let mut store = open(&files, &options, index());
    assert_eq!(store.dropped(), []);
}

#[test]
fn what_the_index_knows_to_be_in_kvs_does_not_wait_although_a_kill_cost_the_segments_that_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { folder: folder.path().join("spool"), ..options() };
    std::fs::create_dir_all(&options.folder).expect("a folder");
    let open_index = || Index::open(&options.index()).expect("it opens");
    let mut store = Store::open(Arc::new(RealFiles), options.clone(), open_index()).expect("it opens");
    write(&mut store, 1..=3);
    store.settle("cam", id(2), Settled::Persisted(None)).expect("it is noted");
    // Killed between the commit of the index and the write of the segments.
    let mut index = store.into_index();
    index.commit().expect("it is kept");
    drop(index);
    let waiting =
        || crate::check(&options.folder, &Keys::default()).expect("it can be read").cameras[0].waiting;
    assert_eq!(waiting(), 2);
    std::fs::remove_file(options.index()).expect("it is there");
    assert_eq!(waiting(), 3, "without the index KVS is asked again");
}
