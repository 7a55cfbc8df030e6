//! Thousands of seeded lives of a spool, each with a power cut or a failing disk at some operation.
//!
//! What must hold, whatever happens: a fragment that was called written and neither settled nor dropped waits, with its own
//! bytes; nothing waits that was never recorded; nothing comes back that was told as dropped. That holds for what had to make
//! room too, when the power goes while it does and the index is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kvs::FragmentId;
use kvs::upload::{Settled, Whole};

use crate::index::Index;
use crate::testing::{TestFiles, Trouble, fragment};
use crate::{Options, Store, WhenFull};

/// xorshift64*: a failing seed is printed and does the same again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}

#[expect(clippy::disallowed_methods, reason = "an Instant can be made in no other way")]
fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

const CAMERAS: [&str; 2] = ["dock", "gate"];

/// The one thing that is not on the disk whose power is cut.
fn key_file() -> &'static Path {
    static FILE: LazyLock<tempfile::NamedTempFile> = LazyLock::new(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "5e".repeat(32)).expect("written");
        file
    });
    FILE.path()
}

/// What the world outside knows, for each camera.
#[derive(Default)]
struct Account {
    recorded: BTreeMap<FragmentId, Whole>,
    /// Called written, in order.
    written: Vec<FragmentId>,
    settled: BTreeSet<FragmentId>,
    dropped: BTreeSet<FragmentId>,
}

struct Life {
    seed: u64,
    random: Random,
    files: TestFiles,
    options: Options,
    accounts: BTreeMap<&'static str, Account>,
    now: Instant,
    run: u64,
    sequence: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut options = Options::new("/spool", 40_000 + random.below(60_000), 2);
        options.segment_bytes = 2_000 + random.below(10_000);
        options.keep = Duration::from_secs(random.below(3) * 15);
        options.backlog = Duration::from_secs(20 + random.below(1000));
        options.when_full = if random.below(2) == 0 { WhenFull::DropOldest } else { WhenFull::StopRecording };
        let accounts = CAMERAS.map(|name| (name, Account::default())).into();
        let files = TestFiles::default();
        Self { seed, random, files, options, accounts, now: epoch(), run: 0, sequence: 0 }
    }

    fn open(&mut self, index: Index) -> Option<Store> {
        self.run += 1;
        // Of each second life footage is sealed, from some start on.
        if self.seed.is_multiple_of(2) && self.run > self.seed % 5 {
            self.options.key_file = Some(key_file().to_owned());
        }
        let store = Store::open(Arc::new(self.files.clone()), self.options.clone(), index);
        let mut store = match store {
            Ok(store) => store,
            Err(error) => {
                assert!(self.files.is_off(), "seed {}: {error}", self.seed);
                return None;
            }
        };
        self.note_dropped(&mut store);
        Some(store)
    }

    /// Everything that can be done, at random, until the power goes or it is enough.
    fn live(&mut self, store: &mut Store) {
        for _ in 0..5 + self.random.below(40) {
            let name = CAMERAS[usize::from(self.random.below(3) == 0)];
            self.now += Duration::from_millis(self.random.below(4000));
            match self.random.below(10) {
                0..=5 => {
                    self.sequence += 1;
                    let length = usize::try_from(self.random.below(2500)).expect("small");
                    let whole = fragment(self.run, self.sequence, length);
                    let id = whole.id();
                    let account = self.accounts.get_mut(name).expect("known");
                    account.recorded.insert(id, whole.clone());
                    let r = store.write(name, &whole, self.now);
                    if r.is_ok() {
                        account.written.push(id);
                    }
                }
                6..=7 => {
                    let account = self.accounts.get_mut(name).expect("known");
                    let open: Vec<_> =
                        account.written.iter().filter(|id| !account.settled.contains(id)).copied().collect();
                    for id in open.iter().take(usize::try_from(self.random.below(6)).expect("small")) {
                        // What could not be written down may be asked for again; it is never lost by it.
                        let _ = store.settle(name, *id, Settled::Persisted(None));
                        account.settled.insert(*id);
                    }
                }
                8 => {
                    let _ = store.flush();
                }
                _ => {
                    let _ = store.list(name, None, 5);
                }
            }
            self.note_dropped(store);
            if self.files.is_off() {
                return;
            }
        }
    }

    fn note_dropped(&mut self, store: &mut Store) {
        let dropped = store.dropped();
        if self.files.is_off() {
            return; // nobody is left who could tell: the next start does
        }
        for (name, dropped) in dropped {
            let account = self.accounts.get_mut(name.as_str()).expect("known");
            account.dropped.insert(dropped.id);
        }
        CAMERAS.iter().for_each(|name| store.told(name));
    }

    /// Compares what the store says with what must be so. `fresh`: since the opening nothing was done.
    fn check(&mut self, store: &mut Store) {
        let seed = self.seed;
        for name in CAMERAS {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let (fragments, left) = store.list(name, after, 7).expect("nothing fails now");
                after = fragments.last().map(|spooled| spooled.place).or(after);
                listed.extend(fragments);
                self.note_dropped(store);
                if left.fragments == 0 {
                    break;
                }
            }
            let account = &self.accounts[name];
            let names: BTreeSet<_> = listed.iter().map(|spooled| spooled.end.summary.id).collect();
            assert_eq!(names.len(), listed.len(), "seed {seed} {name}: listed twice");
            assert!(listed.is_sorted_by_key(|spooled| spooled.place), "seed {seed} {name}");
            let gone = [&account.settled, &account.dropped];
            for id in &account.written {
                if !gone.iter().any(|gone| gone.contains(id)) {
                    assert!(names.contains(id), "seed {seed} {name}: fragment {id} is lost");
                }
            }
            for spooled in &listed {
                let id = spooled.end.summary.id;
                let Some(whole) = account.recorded.get(&id) else {
                    panic!("seed {seed} {name}: nobody recorded {id}")
                };
                assert!(!account.dropped.contains(&id), "seed {seed} {name}: {id} was dropped");
                assert_eq!(spooled.end.summary, whole.end.summary, "seed {seed} {name}");
                assert_eq!(spooled.end.tag, whole.end.tag, "seed {seed} {name}");
                assert_eq!(spooled.header, whole.header, "seed {seed} {name}");
                let cluster = store.read(name, id).expect("nothing fails now");
                assert_eq!(cluster.as_deref(), Some(&*whole.pieces.concat()), "seed {seed} {name} {id}");
            }
        }
    }
}

fn index() -> Index {
    Index::in_memory().expect("memory is there")
}

/// One life with several starts. Each ends by a power cut, a kill, or in order; the index survives or does not.
fn power_cuts(seed: u64) {
    let mut life = Life::new(seed);
    let mut kept = index();
    for _ in 0..4 {
        let end = life.random.below(4);
        if end != 0 {
            let cut = life.files.changes() + life.random.below(120);
            life.files.plan(cut, Trouble::PowerCut);
        }
        let opened = life.open(kept);
        kept = index();
        if let Some(mut store) = opened {
            life.live(&mut store);
            if !life.files.is_off() && end != 0 {
                life.files.mend();
            }
            let index = store.into_index();
            // Without a power cut the process is killed: its last changes of the index are gone, or all of it is.
            if life.random.below(3) > 0 {
                kept = index.killed();
            }
        }
        let Life { files, random, .. } = &mut life;
        if files.is_off() {
            files.power_on(&mut || random.next());
        }
        files.mend();
        let mut store = life.open(kept).expect("the power is on");
        life.check(&mut store);
        kept = store.into_index().killed();
    }
}

#[test]
fn no_power_cut_loses_a_fragment_that_was_called_written() {
    (1..=600).for_each(power_cuts);
}

/// One life on a disk that fails for a while.
fn failing_disk(seed: u64) {
    const KINDS: [ErrorKind; 4] =
        [ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem, ErrorKind::Other, ErrorKind::QuotaExceeded];
    let mut life = Life::new(seed);
    let mut store = life.open(index()).expect("nothing fails yet");
    for _ in 0..4 {
        let kind = KINDS[usize::try_from(life.random.below(4)).expect("small")];
        let at = life.files.changes() + life.random.below(40);
        let trouble = if life.random.below(2) == 0 { Trouble::Once(kind) } else { Trouble::FromNow(kind) };
        life.files.plan(at, trouble);
        life.live(&mut store);
        life.files.mend();
        life.now += Duration::from_secs(120);
        life.check(&mut store);
        // It takes footage again at once.
        life.sequence += 1;
        let whole = fragment(life.run, life.sequence, 100);
        life.accounts.get_mut("dock").expect("known").recorded.insert(whole.id(), whole.clone());
        match store.write("dock", &whole, life.now) {
            Ok(_) => life.accounts.get_mut("dock").expect("known").written.push(whole.id()),
            Err(error) => assert!(
                matches!(error, crate::StoreError::Full { .. })
                    && life.options.when_full == WhenFull::StopRecording,
                "seed {seed}: {error}"
            ),
        }
        life.note_dropped(&mut store);
        if life.random.below(2) == 0 {
            let killed = store.into_index().killed();
            store = life.open(killed).expect("nothing fails now");
            life.check(&mut store);
        }
    }
}

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing_that_it_took() {
    (1..=300).for_each(failing_disk);
}
