//! Thousands of seeded lives of a spool, each with a power cut or a failing disk at some operation.
//!
//! What must hold, whatever happens: a fragment that was called written and neither settled nor dropped waits, with its own
//! bytes; nothing waits that was never recorded; nothing comes back that was told as dropped. That holds for what had to make
//! room too, when the power goes while it does and the index is lost. What was recorded without a clock waits for its time, and
//! keeps the one that it was ever seen with.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kvs::FragmentId;
use kvs::stamping::{BootId, Trusted};
use kvs::upload::{Settled, Whole};

use crate::index::Index;
use crate::testing::{TestFiles, Trouble, fragment, fragment_of_boot};
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
    /// Of what was recorded without a clock: its time, since somebody was told of it.
    dated: BTreeMap<FragmentId, u64>,
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
    boot: u64,
    /// Of the present process.
    has_clock: bool,
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
        let (now, run, sequence, boot, has_clock) = (epoch(), 0, 0, 1, true);
        Self { seed, random, files, options, accounts, now, run, sequence, boot, has_clock }
    }

    fn record(&mut self, name: &str, length: usize) -> Whole {
        self.sequence += 1;
        let whole = match self.has_clock {
            true => fragment(self.run, self.sequence, length),
            false => fragment_of_boot(self.run, self.sequence, length, BootId(self.boot.into())),
        };
        let account = self.accounts.get_mut(name).expect("known");
        account.recorded.insert(whole.id(), whole.clone());
        whole
    }

    /// The clock is set.
    fn stamp(&mut self, store: &mut Store, name: &str) {
        let offset_ms = 1_795_186_013_000;
        let before_ms = 1_795_186_073_000 + (self.sequence + 10) * 1000;
        let trusted = Trusted { boot: BootId(self.boot.into()), offset_ms, before_ms };
        let Ok(stamps) = store.stamp(name, &trusted) else { return };
        let account = self.accounts.get_mut(name).expect("known");
        for (stamp, _) in stamps {
            for id in account.written.iter().filter(|id| id.run == stamp.run) {
                let boot_ms = account.recorded[id].end.summary.timecode.as_millis();
                account.dated.entry(*id).or_insert(stamp.utc_ms(boot_ms));
            }
        }
    }

    fn open(&mut self, index: Index) -> Option<Store> {
        self.run += 1;
        // Of each second life footage is sealed, from some start on.
        if self.seed.is_multiple_of(2) && self.run > self.seed % 5 {
            self.options.key_file = Some(key_file().to_owned());
        }
        self.boot += self.random.below(2);
        self.has_clock = self.random.below(2) == 0;
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
                    let length = usize::try_from(self.random.below(2500)).expect("small");
                    let whole = self.record(name, length);
                    let r = store.write(name, &whole, self.now);
                    if r.is_ok() {
                        self.accounts.get_mut(name).expect("known").written.push(whole.id());
                    }
                }
                6..=7 => {
                    let account = self.accounts.get_mut(name).expect("known");
                    // Nobody sends what has no time.
                    let is_open = |id: &&FragmentId| {
                        let undated = account.recorded[id].end.summary.clock.is_boot();
                        !account.settled.contains(id) && (!undated || account.dated.contains_key(id))
                    };
                    let open: Vec<_> = account.written.iter().filter(is_open).copied().collect();
                    for id in open.iter().take(usize::try_from(self.random.below(6)).expect("small")) {
                        // What could not be written down may be asked for again; it is never lost by it.
                        let _ = store.settle(name, *id, Settled::Persisted(None));
                        account.settled.insert(*id);
                    }
                }
                8 if self.random.below(3) == 0 => self.stamp(store, name),
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

    /// Compares what the store says with what must be so. `all`: the clock is set now.
    fn check(&mut self, store: &mut Store, all: bool) {
        let seed = self.seed;
        for name in CAMERAS {
            if all {
                self.stamp(store, name);
            }
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
            let mut fresh = Vec::new();
            let names: BTreeSet<_> = listed.iter().map(|spooled| spooled.end.summary.id).collect();
            assert_eq!(names.len(), listed.len(), "seed {seed} {name}: listed twice");
            assert!(listed.is_sorted_by_key(|spooled| spooled.place), "seed {seed} {name}");
            let gone = [&account.settled, &account.dropped];
            for id in &account.written {
                let undated = account.recorded[id].end.summary.clock.is_boot();
                if undated && !all && !account.dated.contains_key(id) {
                    continue;
                }
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
                let cluster = store.read(name, id).expect("nothing fails now");
                let summary = &spooled.end.summary;
                if whole.end.summary.clock.is_boot() {
                    let time = summary.timecode.as_millis();
                    let told = account.dated.get(&id).copied().unwrap_or(time);
                    assert_eq!(time, told, "seed {seed} {name}: {id} has another time");
                    fresh.push((id, time));
                    assert_eq!(summary.sums.payload, whole.end.summary.sums.payload, "seed {seed} {name}");
                    let bytes = cluster.map(|cluster| cluster.len() as u64);
                    assert_eq!(bytes, Some(summary.cluster_bytes), "seed {seed} {name} {id}");
                    continue;
                }
                assert_eq!(spooled.end.summary, whole.end.summary, "seed {seed} {name}");
                assert_eq!(spooled.end.tag, whole.end.tag, "seed {seed} {name}");
                assert_eq!(spooled.header, whole.header, "seed {seed} {name}");
                assert_eq!(cluster.as_deref(), Some(&*whole.pieces.concat()), "seed {seed} {name} {id}");
            }
            self.accounts.get_mut(name).expect("known").dated.extend(fresh);
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
    for turn in 0..4 {
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
        let all = turn == 3 || life.random.below(3) == 0;
        life.check(&mut store, all);
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
        let all = life.random.below(2) == 0;
        life.check(&mut store, all);
        // It takes footage again at once.
        let whole = life.record("dock", 100);
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
            life.check(&mut store, true);
        }
    }
}

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing_that_it_took() {
    (1..=300).for_each(failing_disk);
}
