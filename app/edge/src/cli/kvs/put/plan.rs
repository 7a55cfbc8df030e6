//! Which fragments a file is cut into, and which of them are missing in KVS.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use config::Upload;
use kvs_client::kvs::fragmenter::{Fragmenter, FragmenterConfig, Part};
use kvs_client::kvs::{FragmentIds, RunId};
use media::{Feed, ProducerTimestamp};

use super::source::FileUnits;
use crate::cli::kvs::Failed;

/// One fragment to come.
#[derive(Clone, Copy, Debug)]
struct Planned {
    start_ms: u64,
    end_ms: u64,
    /// Begins without a random access point: never without what is before it.
    forced: bool,
}

/// What is made of a file.
#[derive(Debug)]
pub(super) struct Plan {
    fragments: Vec<Planned>,
    /// Times of pictures at which decoding may begin.
    random_access: BTreeSet<u64>,
    /// Times of first pictures; whether what begins there is left out.
    groups: BTreeMap<u64, bool>,
    missing: u64,
    pub(super) shift_ms: i64,
    /// How the file ends, where that is not in order.
    pub(super) cut: Option<String>,
}

impl Plan {
    /// Reads the file once.
    pub(super) fn of(path: &Path, upload: &Upload) -> Result<Self, Failed> {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let mut fragmenter = Fragmenter::new(FragmenterConfig {
            fragment_ms: millis(upload.fragment),
            fragment_max_ms: millis(upload.fragment_max),
            ids: FragmentIds::new(RunId::new(1)),
            device: String::new(),
            camera: String::new(),
            writing_app: String::new(),
            segment_uid: [0; 16],
        });
        let (mut units, mut fragments, mut random_access) =
            (FileUnits::open(path, 0)?, Vec::new(), BTreeSet::new());
        let mut over = false;
        while !over {
            match units.next()? {
                Some(Feed::Video(unit)) => {
                    if unit.random_access {
                        random_access.insert(unit.timestamp.as_millis());
                    }
                    fragmenter.video(&unit);
                }
                Some(Feed::Audio(frame)) => fragmenter.audio(frame),
                Some(Feed::AudioTrack(format)) => fragmenter.announce_audio(format),
                Some(Feed::Break) => fragmenter.finish(),
                Some(Feed::NewTimeline) => fragmenter.new_timeline([1; 16]),
                None => {
                    fragmenter.finish();
                    over = true;
                }
            }
            while let Some(part) = fragmenter.next_part() {
                if let Part::End(end) = part {
                    fragments.push(Planned {
                        start_ms: end.summary.timecode.as_millis(),
                        end_ms: end.summary.end().as_millis(),
                        forced: end.summary.forced,
                    });
                }
            }
        }
        let cut = units.cut().map(ToOwned::to_owned);
        if fragments.is_empty() {
            let why = cut.unwrap_or("no picture in it is one at which decoding may begin".to_owned());
            return Err(format!("{}: there is nothing to send: {why}", path.display()).into());
        }
        let missing = fragments.len() as u64;
        Ok(Self { fragments, random_access, groups: BTreeMap::new(), missing, shift_ms: 0, cut })
    }

    pub(super) fn begins(&self) -> ProducerTimestamp {
        let begins = self.fragments.iter().map(|fragment| fragment.start_ms).min().unwrap_or(0);
        self.moved(begins)
    }

    pub(super) fn ends(&self) -> ProducerTimestamp {
        let ends = self.fragments.iter().map(|fragment| fragment.end_ms).max().unwrap_or(0);
        self.moved(ends)
    }

    fn moved(&self, ms: u64) -> ProducerTimestamp {
        ProducerTimestamp::from_millis(ms.saturating_add_signed(self.shift_ms))
    }

    /// The first picture was taken then.
    pub(super) fn move_to(&mut self, start: ProducerTimestamp) {
        let begins = i64::try_from(self.begins().as_millis()).unwrap_or(i64::MAX);
        self.shift_ms += i64::try_from(start.as_millis()).unwrap_or(i64::MAX).saturating_sub(begins);
    }

    pub(super) fn fragments(&self) -> u64 {
        self.fragments.len() as u64
    }

    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Leaves out what begins at these times and lasts as long, where nothing that is missing hangs on it.
    pub(super) fn leave_out(&mut self, stored: &BTreeMap<u64, u64>) {
        let (mut groups, mut missing) = (BTreeMap::new(), 0);
        // From the end: what begins without a random access point, or was moved off it, needs what is before it.
        let (mut needs_before, mut waiting) = (false, 0);
        for fragment in self.fragments.iter().rev() {
            let length_ms = fragment.end_ms.saturating_sub(fragment.start_ms);
            let found_ms = stored.get(&self.moved(fragment.start_ms).as_millis());
            // One that was cut short is sent again.
            let there = found_ms.is_some_and(|found| *found >= length_ms) && !needs_before;
            waiting += 1;
            let begins = !fragment.forced && self.random_access.contains(&fragment.start_ms);
            if begins {
                groups.insert(self.moved(fragment.start_ms).as_millis(), there);
                missing += if there { 0 } else { waiting };
                (needs_before, waiting) = (false, 0);
            } else {
                needs_before = !there;
            }
        }
        self.missing = missing + waiting;
        self.groups = groups;
    }

    /// Of a picture at which decoding may begin; `None`: nothing changes there.
    pub(super) fn is_left_out(&self, random_access_ms: u64) -> Option<bool> {
        self.groups.get(&random_access_ms).copied()
    }

    /// Of sound.
    pub(super) fn is_sound_left_out(&self, ms: u64) -> bool {
        self.groups.range(..=ms).next_back().is_some_and(|(_, left_out)| *left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fragments of 2 s: `K` begins at a random access point, `f` is forced. Which are sent, when these are stored.
    #[track_caller]
    fn check(kinds: &str, stored: &[u64], sent: &str) {
        let planned = |(n, kind): (u64, char)| Planned {
            start_ms: n * 2_000,
            end_ms: n * 2_000 + 1_960,
            forced: kind == 'f',
        };
        let fragments: Vec<Planned> = (0..).zip(kinds.chars()).map(planned).collect();
        let random_access = fragments.iter().filter(|one| !one.forced).map(|one| one.start_ms).collect();
        let missing = fragments.len() as u64;
        let groups = BTreeMap::new();
        let mut plan = Plan { fragments, random_access, groups, missing, shift_ms: 0, cut: None };
        plan.move_to(ProducerTimestamp::from_millis(1_000_000));
        let short = |n: u64| if n == 9 { 1_000 } else { 1_960 };
        plan.leave_out(&stored.iter().map(|n| (1_000_000 + n * 2_000, short(*n))).collect());
        let mut left_out = false;
        let told: String = (0..kinds.len() as u64)
            .map(|n| {
                left_out = plan.is_left_out(1_000_000 + n * 2_000).unwrap_or(left_out);
                if left_out { '-' } else { 's' }
            })
            .collect();
        assert_eq!(told, sent);
        assert_eq!(plan.missing(), sent.matches('s').count() as u64);
        assert_eq!((plan.begins().as_millis(), plan.fragments()), (1_000_000, missing));
    }

    #[test]
    fn what_is_stored_is_left_out_and_never_what_another_fragment_needs() {
        check("KKKK", &[], "ssss");
        check("KKKK", &[0, 1, 3], "--s-");
        check("KKKKKKKKKKK", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "---------s-");
        check("KKKK", &[0, 1, 2, 3], "----");
        check("KfKf", &[0, 1, 2], "--ss");
        check("KffK", &[0, 1, 3], "sss-");
        check("KffK", &[0, 2, 3], "sss-");
    }
}
