use std::path::PathBuf;
use std::sync::Arc;

use kvs::proof::records::{Book, BookConfig, Checker, Context, Fault, Row, RowState, RowTimes};
use kvs::{FragmentId, RunId};

use super::*;
use crate::FindingKind;
use crate::testing::{TestFiles, Trouble};

const START_MS: u64 = 1_795_186_080_000;

/// Fragment `n`, of two seconds, persisted and listed.
fn row(n: u64) -> Row {
    let timecode_ms = START_MS + n * 2000;
    let at = Some(timecode_ms + 2300);
    Row {
        id: FragmentId { run: RunId::new(7), sequence: n + 1 },
        timecode_ms,
        end_ms: timecode_ms + 1960,
        bytes: Some(1000),
        blocks: Some(50),
        sums: None,
        number: None,
        state: RowState::Persisted,
        text: None,
        times: RowTimes { complete: at, persisted: at, listed: at, ..RowTimes::default() },
    }
}

struct Rig {
    _folder: tempfile::TempDir,
    files: TestFiles,
    options: ProofOptions,
    life: Option<Life>,
}

struct Life {
    proofs: Proofs,
    camera: CameraProofs,
    book: Book,
    broken: Option<String>,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ProofOptions::new(folder.path().join("proofs"));
        Self { _folder: folder, files: TestFiles::default(), options, life: None }
    }

    fn begin(&mut self) -> &mut Life {
        self.life = None;
        let proofs = Proofs::open(self.options.clone(), Arc::new(self.files.clone())).expect("it opens");
        self.life = Some(begin(proofs));
        self.life.as_mut().expect("just made")
    }

    /// Minute `n` is recorded and proven.
    fn minute(&mut self, n: u64) -> Result<Vec<Line>, StoreError> {
        self.life.as_mut().expect("begun").minute(n)
    }

    fn path(&self, file: u64) -> PathBuf {
        self.options.folder.join("cameras/cam").join(name_of(file))
    }

    fn lines(&self) -> Vec<Vec<u8>> {
        let folder = self.options.folder.join("cameras/cam");
        let mut lines = Vec::new();
        for entry in self.files.list(&folder).expect("it is there") {
            let bytes = self.files.read(&folder.join(&entry.name), 0, usize::MAX).expect("it can be read");
            lines.extend(look::split(&bytes).whole.iter().map(|(_, text)| text.to_vec()));
        }
        lines
    }

    fn faults(&self, first: u64) -> Vec<Fault> {
        let mut checker = Checker::new();
        for (at, text) in self.lines().iter().enumerate() {
            checker.line(Line::parse(text).as_ref(), "file", at as u64);
        }
        checker.finish(Some(first), &[])
    }
}

fn begin(proofs: Proofs) -> Life {
    let (mut camera, resumed) = proofs.camera("cam", "box/cam").expect("it resumes");
    let Resumed { mut chain, next, unfinished, broken } = resumed;
    if let Some(text) = &broken {
        camera.tell_break(&mut chain, text.clone(), START_MS).expect("it is told");
    }
    let book = Book::new(BookConfig::default(), chain, next, unfinished, START_MS);
    Life { proofs, camera, book, broken }
}

impl Life {
    fn minute(&mut self, n: u64) -> Result<Vec<Line>, StoreError> {
        let rows: Vec<_> = (n * 30..=n * 30 + 30).map(row).collect();
        let context =
            Context { looks: true, now_ms: START_MS + (n + 1) * 60_000 + 5000, ..Context::default() };
        self.book.turn(&rows, &mut self.camera, &context).map_err(|(_, error)| error)
    }
}

#[test]
fn records_go_on_over_restarts_and_their_minutes_are_told_once() {
    let mut rig = Rig::new();
    for n in 0..5 {
        rig.begin();
        assert_eq!(rig.minute(n).expect("written").len(), 1 + usize::from(n == 0));
    }
    assert_eq!((rig.lines().len(), rig.faults(0)), (6, vec![]));
    let life = rig.begin();
    assert_eq!((life.broken.as_ref(), life.proofs.findings().len()), (None, 0));
    let newest = life.camera.newest(Minute::of(START_MS + 120_000)).expect("read").expect("written");
    assert_eq!(newest.summary().map(|summary| (summary.expected, summary.persisted)), Some((30, 30)));
}

#[test]
fn a_lost_or_damaged_index_is_made_anew_and_the_chain_goes_on() {
    for damaged in [false, true] {
        let mut rig = Rig::new();
        rig.begin();
        (0..3).for_each(|n| drop(rig.minute(n).expect("written")));
        rig.life = None;
        let index = rig.options.index();
        if damaged {
            std::fs::write(&index, b"This is no database. ".repeat(500)).expect("written");
        } else {
            std::fs::remove_file(&index).expect("removed");
        }
        let life = rig.begin();
        let kinds: Vec<_> = life.proofs.findings().iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, if damaged { vec![FindingKind::Index] } else { vec![] });
        assert_eq!(life.broken, None);
        rig.minute(3).expect("written");
        assert_eq!((rig.lines().len(), rig.faults(0)), (5, vec![]));
    }
}

#[test]
fn lines_that_are_gone_are_told_in_the_chain_for_good() {
    let mut rig = Rig::new();
    rig.begin();
    (0..3).for_each(|n| drop(rig.minute(n).expect("written")));
    // The newest two lines are cut off while nobody looks.
    let lines = rig.lines();
    let kept: usize = lines[..2].iter().map(|line| line.len() + 1).sum();
    rig.files.truncate(&rig.path(1), kept as u64).expect("cut");
    let life = rig.begin();
    assert_eq!(life.broken.as_deref(), Some("records 2 to 3 were written, and are gone"));
    rig.minute(3).expect("written");
    // The break, and from the rows of the fragments what was gone, and what is new.
    let numbers: Vec<_> = rig.lines().iter().map(|text| Line::parse(text).expect("whole").record.n).collect();
    assert_eq!((numbers, rig.faults(0)), (vec![0, 1, 4, 5, 6, 7], vec![]));
    // And so is a folder of which nothing is left.
    let mut rig = Rig::new();
    rig.begin();
    (0..3).for_each(|n| drop(rig.minute(n).expect("written")));
    rig.files.remove(&rig.path(1)).expect("removed");
    assert_eq!(rig.begin().broken.as_deref(), Some("records 0 to 3 were written, and are gone"));
    assert!(rig.faults(4).is_empty());
}

#[test]
fn a_line_that_was_changed_on_disk_is_told_and_what_is_written_behind_it_holds_on_to_the_right_one() {
    let mut rig = Rig::new();
    rig.begin();
    (0..3).for_each(|n| drop(rig.minute(n).expect("written")));
    rig.life = None;
    let mut bytes = rig.files.read(&rig.path(1), 0, usize::MAX).expect("read");
    let at = bytes.windows(4).rposition(|window| window == b"\"ok\"").expect("a verdict");
    bytes[at + 1] = b'x';
    rig.files.put(&rig.path(1), &bytes);
    rig.begin();
    rig.minute(3).expect("written");
    assert_eq!(rig.faults(0), [Fault::Changed { n: 3 }]);
}

#[test]
fn a_disk_that_refuses_costs_no_line() {
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::ReadOnlyFilesystem] {
        let mut rig = Rig::new();
        rig.begin();
        rig.minute(0).expect("written");
        rig.files.break_with(kind);
        assert!(rig.minute(1).is_err());
        rig.files.mend();
        assert_eq!(rig.minute(2).expect("written").len(), 2);
        assert_eq!((rig.lines().len(), rig.faults(0)), (4, vec![]));
    }
}

/// The power goes at each operation of the disk once: what was told stays, and the chain is whole.
#[test]
fn whatever_was_told_is_there_after_any_power_cut() {
    let mut rig = Rig::new();
    rig.begin();
    let begun = rig.files.changes();
    (0..4).for_each(|n| drop(rig.minute(n).expect("written")));
    let count = rig.files.changes() - begun;
    assert!(count > 8, "{count} operations");
    for cut in 0..count {
        let mut rig = Rig::new();
        rig.begin();
        rig.files.plan(begun + cut, Trouble::PowerCut);
        let mut told = Vec::new();
        for n in 0..4 {
            told.extend(rig.minute(n).into_iter().flatten().map(|line| line.to_string().into_bytes()));
        }
        let mut random = cut.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        rig.life = None;
        rig.files.power_on(&mut || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 33
        });
        rig.begin();
        rig.minute(4).expect("written");
        let lines = rig.lines();
        assert!(told.iter().all(|line| lines.contains(line)), "cut at {cut}: what was told is there");
        assert_eq!(rig.faults(0), [], "cut at {cut}");
    }
}

#[test]
fn old_records_go_by_whole_files_and_the_rest_is_a_chain() {
    let mut rig = Rig::new();
    rig.options.file_bytes = 4096;
    rig.options.keep = Duration::from_secs(3600);
    rig.begin();
    (0..240).for_each(|n| drop(rig.minute(n).expect("written")));
    let first = Line::parse(&rig.lines()[0]).expect("whole").record.n;
    assert!(first > 100, "{first}");
    assert_eq!(rig.faults(first), []);
    let life = rig.begin();
    assert_eq!(life.broken, None, "what went for its age is not missed");
    let heads = life.proofs.inner().tables.chain(life.camera.key).expect("asked").expect("there");
    assert_eq!((heads.0, heads.1.n), (first, 240));
}

#[test]
fn without_a_disk_records_are_kept_for_a_while() {
    let mut life = begin(Proofs::in_memory().expect("in memory"));
    (0..10).for_each(|n| drop(life.minute(n).expect("kept")));
    let newest = life.camera.newest(Minute::of(START_MS)).expect("asked").expect("kept");
    assert_eq!((newest.n, life.proofs.is_on_disk()), (1, false));
}

#[test]
fn two_at_a_time_are_refused() {
    let mut rig = Rig::new();
    rig.begin();
    let second = Proofs::open(rig.options.clone(), Arc::new(rig.files.clone()));
    assert!(matches!(second, Err(OpenError::Taken { .. })));
}

#[test]
fn a_folder_that_cannot_be_opened_at_first_gets_what_was_kept_in_memory_meanwhile() {
    let rig = Rig::new();
    // A file stands in its place.
    std::fs::write(&rig.options.folder, b"").expect("written");
    let proofs = Proofs::open_or_later(rig.options.clone(), Arc::new(rig.files.clone())).expect("in memory");
    let mut before = begin(proofs.clone());
    (0..3).for_each(|n| drop(before.minute(n).expect("kept in memory")));
    let (now, second) = (clock::Clock::system().now(), Duration::from_secs(1));
    proofs.try_again(now);
    std::fs::remove_file(&rig.options.folder).expect("it is there");
    for later in [1, 29] {
        proofs.try_again(now + second * later);
        assert!(!proofs.is_on_disk(), "not each moment");
    }
    proofs.try_again(now + second * 30);
    assert!(proofs.is_on_disk());
    assert!(matches!(before.minute(3), Err(StoreError::Reopened)));
    let mut behind = begin(proofs);
    assert_eq!(behind.minute(3).expect("written").len(), 5, "the beginning and four minutes");
    assert_eq!((rig.lines().len(), rig.faults(0)), (5, vec![]));
    let newest = behind.camera.newest(Minute::of(START_MS)).expect("read").expect("written");
    assert_eq!(newest.summary().map(|summary| (summary.expected, summary.persisted)), Some((30, 30)));
}
