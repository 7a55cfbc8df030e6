//! Every corpus file, and damaged copies of it, through its target. The damage is the same in each run.

use std::fs;
use std::path::{Path, PathBuf};

/// Damaged copies per target, shared among the files of its corpus.
const MUTATIONS: u64 = 4_000;

#[test]
fn every_target_withstands_its_corpus_and_damaged_copies_of_it() {
    for (target, run) in kvs_edge_fuzz::TARGETS {
        let files = corpus(target);
        assert!(!files.is_empty(), "corpus/{target} has no files");
        for (index, file) in files.iter().enumerate() {
            let data = fs::read(file).unwrap();
            run(&data);
            for seed in 0..MUTATIONS / files.len() as u64 {
                let damaged = damage(&data, seed << 16 | index as u64);
                let result = std::panic::catch_unwind(|| run(&damaged));
                assert!(result.is_ok(), "{} with damage of seed {seed}: {}", file.display(), hex(&damaged));
            }
        }
    }
}

#[test]
fn every_target_has_a_file_for_libfuzzer_and_a_manifest_entry() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (target, _) in kvs_edge_fuzz::TARGETS {
        let path = format!("fuzz_targets/{target}.rs");
        let text = fs::read_to_string(root().join(&path)).unwrap();
        assert!(text.contains(&format!("libfuzzer!({target});")), "{path}");
        assert!(manifest.contains(&format!("path = \"{path}\"")), "no [[bin]] for {path}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = root().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A copy with one to four changes: a byte set, a bit flipped, a run of 0xFF or 0x00, a piece repeated, the end cut off.
fn damage(data: &[u8], seed: u64) -> Vec<u8> {
    let mut random = SplitMix(seed);
    let mut out = data.to_vec();
    for _ in 0..=random.below(4) {
        if out.is_empty() {
            break;
        }
        let at = random.below(out.len());
        let length = (1 + random.below(12)).min(out.len() - at);
        match random.below(6) {
            0 => out[at] = random.byte(),
            1 => out[at] ^= 1 << random.below(8),
            2 => out[at..at + length].fill(0xFF),
            3 => out[at..at + length].fill(0),
            4 => {
                let piece = out[at..at + length].to_vec();
                out.splice(at..at, piece);
            }
            _ => out.truncate(at),
        }
    }
    out
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 <= result < `limit`; `limit` is small, so the bias does not matter.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}
