//! A spool whose footage is sealed: mixed with plain footage, with another key, without any.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::Clock;
use kvs::upload::{Answer, Request};

use crate::index::Index;
use crate::record::{SegmentHead, read_segment_head};
use crate::testing::fragment;
use crate::{FindingKind, Keys, OpenError, Options, RealFiles, Spool, StoreError};

struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    fn options(&self, keys: &[&str]) -> Options {
        let mut options = Options::new(self.spool(), 1 << 30, 1);
        options.segment_bytes = 5000;
        options.key_file = (!keys.is_empty()).then(|| self.key_file(keys));
        options
    }

    fn key_file(&self, keys: &[&str]) -> PathBuf {
        let path = self.folder.path().join("keys");
        let lines: Vec<_> = keys.iter().map(|digit| digit.repeat(64)).collect();
        std::fs::write(&path, lines.join("\n")).expect("written");
        path
    }

    fn open(&self, keys: &[&str]) -> Result<Spool, OpenError> {
        Spool::open_inline(self.options(keys), Arc::new(RealFiles), Clock::system())
    }

    /// Fragments of this life, written with these keys.
    fn live(&self, keys: &[&str], sequences: std::ops::RangeInclusive<u64>) {
        let spool = self.open(keys).expect("it opens");
        let camera = spool.camera("cam");
        for sequence in sequences {
            assert!(camera.ask(Request::Write(fragment(1, sequence, 1000))));
        }
        spool.close();
    }

    /// What waits, as it was recorded.
    fn expect_waiting(&self, keys: &[&str], expected: std::ops::RangeInclusive<u64>) {
        let spool = self.open(keys).expect("it opens");
        let mut camera = spool.camera("cam");
        camera.ask(Request::List { after: None, most: 100 });
        let Some(Answer::Listed { fragments, .. }) = camera.try_next() else { panic!("a list") };
        let sequences: Vec<_> = fragments.iter().map(|spooled| spooled.end.summary.id.sequence).collect();
        assert_eq!(sequences, expected.clone().collect::<Vec<_>>());
        for (spooled, sequence) in fragments.iter().zip(expected) {
            let whole = fragment(1, sequence, 1000);
            assert_eq!((&*spooled.header, &spooled.end.tag), (&*whole.header, &whole.end.tag));
            camera.ask(Request::Read(whole.id()));
            let Some(Answer::Read { cluster, .. }) = camera.try_next() else { panic!("an answer") };
            assert_eq!(cluster.as_deref(), Some(&*whole.pieces.concat()));
        }
        spool.close();
    }

    fn segments(&self) -> Vec<Vec<u8>> {
        let folder = self.spool().join("cameras/cam");
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("it can be read")).collect()
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn plain_and_sealed_footage_stand_side_by_side_and_nothing_of_the_sealed_can_be_read() {
    let disk = Disk::new();
    disk.live(&[], 1..=3);
    disk.live(&["a"], 4..=6);
    disk.expect_waiting(&["a"], 1..=6);
    let whole = fragment(1, 5, 1000);
    let (picture, tag) = (whole.pieces.concat(), whole.end.tag.clone());
    let plain: Vec<_> = disk.segments().iter().map(|bytes| read_segment_head(bytes)).collect();
    assert!(matches!(plain[..], [SegmentHead::Number(1), SegmentHead::Number(2)]), "{plain:?}");
    let [first, second] = &disk.segments()[..] else { panic!("two segments") };
    assert_eq!((first[8], second[8]), (1, 2), "a release without keys leaves the second alone");
    assert!(holds(first, &fragment(1, 2, 1000).pieces.concat()));
    assert!(!holds(second, &picture) && !holds(second, &tag) && !holds(second, &whole.header.bytes));
    // Back to plain, with the key for what is there.
    disk.live(&["b", "a"], 7..=8);
    disk.expect_waiting(&["b", "a"], 1..=8);
    disk.expect_waiting(&["a", "b"], 1..=8);
}

#[test]
fn without_the_key_of_what_is_there_the_spool_does_not_open_and_says_which_it_wants() {
    let disk = Disk::new();
    disk.live(&["a"], 1..=6);
    for keys in [&[][..], &["b"]] {
        let error = disk.open(keys).map(drop).expect_err("no key");
        assert!(matches!(&error, OpenError::Store { source: StoreError::Locked { .. }, .. }), "{error:?}");
        let problem = error.problem(std::time::UNIX_EPOCH);
        let text = problem.to_string();
        assert!(text.contains("sealed with key") && text.contains("0000000001.seg"), "{text}");
        assert!(problem.fix.is_some_and(|fix| fix.contains("key_file")));
    }
    // Nothing was lost by it.
    disk.expect_waiting(&["a"], 1..=6);
    std::fs::remove_file(disk.folder.path().join("keys")).expect("it is there");
    let mut options = disk.options(&[]);
    options.key_file = Some(disk.folder.path().join("keys"));
    // As the daemon does: it goes on from memory, and opens once the key is there.
    let spool = Spool::start_inline(options, Arc::new(RealFiles), Clock::system());
    let problem = spool.problem().borrow().clone().expect("a problem");
    assert!(problem.found.contains("key file") && problem.found.contains("memory"), "{problem}");
    let mut camera = spool.camera("cam");
    camera.ask(Request::Write(fragment(1, 7, 1000)));
    assert!(matches!(camera.try_next(), Some(Answer::NotWritten { .. })));
}

#[test]
fn a_look_from_outside_needs_the_key_and_says_so() {
    let disk = Disk::new();
    disk.live(&[], 1..=2);
    disk.live(&["a"], 3..=5);
    let look = |keys: &Keys| {
        let checked = crate::check(&disk.spool(), keys).expect("it can be read");
        let kinds: Vec<_> = checked.findings.iter().map(|finding| finding.kind).collect();
        let mut exported = 0;
        let findings = crate::footage(&disk.spool(), keys, "cam", (0, u64::MAX), &mut |_| {
            exported += 1;
            Ok(())
        });
        let findings = findings.expect("it can be read").findings.len();
        (kinds, checked.cameras[0].fragments, findings, exported)
    };
    assert_eq!(look(&Keys::default()), (vec![FindingKind::Locked], 2, 1, 2));
    let keys = Keys::read(&disk.key_file(&["a"])).expect("a key");
    assert_eq!(look(&keys), (vec![], 5, 0, 5));
    let missing = Keys::read(Path::new("/none")).map(drop).expect_err("no file");
    assert!(
        matches!(missing, crate::KeyError::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound)
    );
    assert!(crate::repair(&disk.spool(), None).is_err(), "the index cannot be made anew without the key");
    disk.key_file(&["a"]);
    crate::repair(&disk.spool(), Some(disk.folder.path().join("keys"))).expect("it can");
    disk.expect_waiting(&["a"], 1..=5);
    // The index is not the truth: with none at all everything is found again.
    drop(Index::anew(&disk.options(&[]).index()).expect("a new one"));
    disk.expect_waiting(&["a"], 1..=5);
}
