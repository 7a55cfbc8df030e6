//! Cuts a camera's access units into fragments and writes them as Matroska, block by block.
//!
//! ```text
//!  nothing --random access--> open --random access and fragment_ms over--> End, Start
//!                              |   --fragment_max_ms over (long GOP)-----> End, Start (forced, no random access)
//!                              |   --other parameter sets----------------> End, Start under another header
//!                              +---finish (stop, stall)------------------> End (closing)
//! ```
//!
//! A block leaves as soon as its picture is here: the fragment is on its way to the cloud while it still grows.
//! Every time in a fragment lies after every time of the fragment before it, over all tracks, or KVS refuses it
//! (error 4004). Audio therefore waits for the picture that it belongs to, and a border between fragments waits for
//! audio: while the audio track is behind, the pictures from the border on are held, for half a second of pictures
//! at most. A frame that comes later still is moved up behind the border, 1 ms behind the frame before it, and
//! counted. None is left out because it is late.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::mkv::write;
use media::{AccessUnit, AudioFormat, AudioFrame, ProducerTimestamp, VideoFormat};

use crate::cluster_sums::{ClusterHasher, ClusterSums};
use crate::identity::{self, FragmentIdentity};
use crate::stamping::{BootId, FootageClock};
use crate::{FragmentId, FragmentIds};

/// More audio is not kept while no fragment takes it; ten seconds of the shortest usual frames.
const AUDIO_QUEUE_FRAMES: usize = 512;
/// Audio further behind its pictures than this moves to the next fragment, and audio without pictures is kept for
/// so long in front of the first picture and behind the last one.
const AUDIO_LAG_MS: u64 = 500;
/// More pictures are not held, whatever their times say.
const HELD_PICTURES: usize = 64;
/// Block times are signed 16-bit offsets to the cluster's timecode.
const MAX_OFFSET_MS: u64 = 30_000;

#[derive(Clone, Debug)]
pub struct FragmenterConfig {
    /// A fragment is at least this long before a random access point ends it.
    pub fragment_ms: u64,
    /// It never grows longer than this, random access point or not. Under the 10 s of the service.
    pub fragment_max_ms: u64,
    /// Names of the fragments. Kept by the owner across restarts, so that none is given twice.
    pub ids: FragmentIds,
    /// For the identity tag.
    pub device: String,
    /// For the identity tag.
    pub camera: String,
    /// Goes into the Matroska header.
    pub writing_app: String,
    /// Goes into the Matroska header; random per process.
    pub segment_uid: [u8; 16],
}

/// What a PutMedia session has to open with: fragments under another header need another session.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// EBML, Segment, Info, Tracks.
    pub bytes: Bytes,
    /// The same without the audio track; for a fragment in which audio fell silent.
    pub video_only: Bytes,
    pub has_audio: bool,
}

/// A piece of the outgoing stream, in order.
#[derive(Clone, Debug)]
pub enum Part {
    Start(FragmentStart),
    /// Block header and payload; the payload is the camera's own buffer.
    Block {
        head: Bytes,
        payload: Bytes,
    },
    End(FragmentEnd),
}

#[derive(Clone, Debug)]
pub struct FragmentStart {
    pub id: FragmentId,
    pub timecode: ProducerTimestamp,
    /// What its times are.
    pub clock: FootageClock,
    pub header: Arc<StreamHeader>,
    /// Opening bytes of the cluster.
    pub head: Bytes,
    /// Starts without a random access point: the camera's GOP is longer than `fragment_max_ms`.
    pub forced: bool,
}

#[derive(Clone, Debug)]
pub struct FragmentEnd {
    pub summary: FragmentSummary,
    /// The identity tag, to be sent behind the cluster.
    pub tag: Bytes,
    /// Nothing follows for now: tell the service that the fragment is complete.
    pub closing: bool,
}

/// What was put into one fragment, to be compared with what comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentSummary {
    pub id: FragmentId,
    pub timecode: ProducerTimestamp,
    /// What its times are.
    pub clock: FootageClock,
    /// First to last block time.
    pub duration_ms: u64,
    pub blocks: u32,
    pub audio_blocks: u32,
    /// The Cluster element, header included.
    pub cluster_bytes: u64,
    /// What goes with it: the header of its session, and the identity tag.
    pub around_bytes: u64,
    /// Over the Cluster element as sent.
    pub sums: ClusterSums,
    pub forced: bool,
}

impl FragmentSummary {
    /// Time of its last block.
    pub fn end(&self) -> ProducerTimestamp {
        ProducerTimestamp::from_millis(self.timecode.as_millis().saturating_add(self.duration_ms))
    }
}

/// Counts of what the fragmenter had to do about unusual input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmenterStats {
    /// Access units before the first random access point.
    pub skipped_units: u64,
    /// Frames whose time was moved up to the fragment border.
    pub moved_frames: u64,
    /// Fragments that had to start without a random access point.
    pub forced_cuts: u64,
    /// Audio frames left out because no picture came with them.
    pub dropped_audio: u64,
}

pub struct Fragmenter {
    config: FragmenterConfig,
    /// What the times of all that comes are.
    clock: FootageClock,
    open: Option<Open>,
    header: Option<Header>,
    /// The latest time in any finished fragment.
    border_ms: Option<u64>,
    /// Pictures from a border on, which wait for the audio before it.
    held: VecDeque<AccessUnit>,
    audio: VecDeque<AudioFrame>,
    /// Of the audio frame that came last.
    newest_audio_ms: Option<u64>,
    /// Of the audio frame that was written last.
    written_audio_ms: Option<u64>,
    audio_format: Option<Arc<AudioFormat>>,
    /// Audio came (or was announced) since the open fragment began.
    audio_flows: bool,
    parts: VecDeque<Part>,
    stats: FragmenterStats,
}

struct Header {
    video: Arc<VideoFormat>,
    audio: Option<Arc<AudioFormat>>,
    written: Arc<StreamHeader>,
}

struct Open {
    id: FragmentId,
    clock: FootageClock,
    timecode_ms: u64,
    last_ms: u64,
    blocks: u32,
    audio_blocks: u32,
    cluster: ClusterHasher,
    header_bytes: usize,
    forced: bool,
}

impl Fragmenter {
    pub fn new(config: FragmenterConfig) -> Self {
        Self {
            config,
            clock: FootageClock::Utc,
            open: None,
            header: None,
            border_ms: None,
            held: VecDeque::new(),
            audio: VecDeque::new(),
            newest_audio_ms: None,
            written_audio_ms: None,
            audio_format: None,
            audio_flows: false,
            parts: VecDeque::new(),
            stats: FragmenterStats::default(),
        }
    }

    /// What is to be sent next; call until `None` after each input.
    pub fn next_part(&mut self) -> Option<Part> {
        self.parts.pop_front()
    }

    pub fn stats(&self) -> FragmenterStats {
        self.stats
    }

    /// Takes the next coded picture in decoding order.
    pub fn video(&mut self, unit: &AccessUnit) {
        if self.held.is_empty() && !self.waits_for_audio(unit, unit) {
            self.place(unit);
        } else {
            self.held.push_back(unit.clone());
            self.release_held();
        }
    }

    /// Whether the audio before the border at `unit` may still come; `newest` is the latest picture.
    fn waits_for_audio(&self, unit: &AccessUnit, newest: &AccessUnit) -> bool {
        let time_ms = unit.timestamp.as_millis();
        let declared = self.header.as_ref().is_some_and(|header| header.audio.is_some());
        declared
            && self.open.is_some()
            && self.is_border(unit)
            && self.newest_audio_ms.is_none_or(|audio_ms| audio_ms < time_ms)
            && newest.timestamp.as_millis() < time_ms.saturating_add(AUDIO_LAG_MS)
    }

    fn release_held(&mut self) {
        while let (Some(first), Some(newest)) = (self.held.front(), self.held.back()) {
            if self.held.len() <= HELD_PICTURES && self.waits_for_audio(first, newest) {
                return;
            }
            let Some(unit) = self.held.pop_front() else { return };
            self.place(&unit);
        }
    }

    /// Whether `unit` begins a fragment.
    fn is_border(&self, unit: &AccessUnit) -> bool {
        let time_ms = unit.timestamp.as_millis();
        let new_format = self.header.as_ref().is_some_and(|header| header.video != unit.format);
        let long_enough = |open: &Open, limit_ms| time_ms.saturating_sub(open.timecode_ms) >= limit_ms;
        match &self.open {
            None => unit.random_access,
            Some(_) if new_format => true,
            Some(open) if unit.random_access => long_enough(open, self.config.fragment_ms),
            // A time before the cluster is a jump back: block offsets could not express it.
            Some(open) => {
                long_enough(open, self.config.fragment_max_ms) || time_ms + MAX_OFFSET_MS < open.timecode_ms
            }
        }
    }

    fn place(&mut self, unit: &AccessUnit) {
        let time_ms = unit.timestamp.as_millis();
        if self.is_border(unit) {
            if self.open.is_some() {
                self.release_audio(time_ms);
                self.end(false);
            } else {
                self.drop_audio_before(time_ms.saturating_sub(AUDIO_LAG_MS));
            }
            self.start(unit);
        } else if self.open.is_none() {
            self.stats.skipped_units += 1;
            return;
        }
        self.block(1, time_ms, unit.random_access, unit.data.clone());
        self.release_audio(time_ms.saturating_add(1));
    }

    /// The camera offers this audio track: the first fragment declares it, before a frame of it was seen.
    pub fn announce_audio(&mut self, format: Arc<AudioFormat>) {
        self.audio_format = Some(format);
        self.audio_flows = true;
    }

    /// Takes an audio frame; it is sent with the picture that follows it.
    pub fn audio(&mut self, frame: AudioFrame) {
        if self.audio.len() == AUDIO_QUEUE_FRAMES {
            self.audio.pop_front();
            self.stats.dropped_audio += 1;
        }
        self.audio_format = Some(frame.format.clone());
        self.audio_flows = true;
        self.newest_audio_ms = Some(frame.timestamp.as_millis());
        self.audio.push_back(frame);
        self.release_held();
    }

    /// Time went far back: what follows is another timeline, in UTC. KVS takes earlier times only in another session, so
    /// the header changes with the `segment_uid`.
    pub fn new_timeline(&mut self, segment_uid: [u8; 16]) {
        self.begin_timeline(segment_uid, FootageClock::Utc);
    }

    /// Nobody vouches for the wall clock: what follows has times since this boot.
    pub fn boot_timeline(&mut self, segment_uid: [u8; 16], boot: BootId) {
        self.begin_timeline(segment_uid, FootageClock::Boot(boot));
    }

    fn begin_timeline(&mut self, segment_uid: [u8; 16], clock: FootageClock) {
        self.finish();
        self.clock = clock;
        self.config.segment_uid = segment_uid;
        self.header = None;
        self.border_ms = None;
        self.written_audio_ms = None;
        self.drop_audio_before(u64::MAX);
    }

    /// Ends the open fragment: the camera stalled, was lost, or the program stops. The next fragment starts at
    /// the next random access point.
    pub fn finish(&mut self) {
        for unit in std::mem::take(&mut self.held) {
            self.place(&unit);
        }
        // Audio further ahead stays for the next fragment: it would move the border, and pictures with it.
        if let Some(open) = &self.open {
            self.release_audio(open.last_ms.saturating_add(AUDIO_LAG_MS));
        }
        self.end(true);
    }

    /// Writes out the waiting audio with times before `until_ms`.
    fn release_audio(&mut self, until_ms: u64) {
        let declared = self.header.as_ref().and_then(|header| header.audio.clone());
        let (Some(declared), Some(open)) = (declared, &self.open) else { return };
        // After a stall the sound of the next picture is no reason to make this fragment longer than it may be.
        let until_ms = until_ms.min(open.timecode_ms.saturating_add(self.config.fragment_max_ms + 1));
        while self.audio.front().is_some_and(|frame| frame.timestamp.as_millis() < until_ms) {
            let Some(frame) = self.audio.pop_front() else { return };
            if frame.format == declared {
                self.block(2, frame.timestamp.as_millis(), true, frame.data);
            } else {
                self.stats.dropped_audio += 1;
            }
        }
    }

    /// Leaves waiting audio out that no picture will be near to.
    fn drop_audio_before(&mut self, until_ms: u64) {
        while self.audio.front().is_some_and(|frame| frame.timestamp.as_millis() < until_ms) {
            self.audio.pop_front();
            self.stats.dropped_audio += 1;
        }
    }

    fn start(&mut self, unit: &AccessUnit) {
        // Audio is declared only while it flows: a declared track without a frame makes KVS refuse the fragment.
        let start_ms = unit.timestamp.as_millis();
        let audio = self.audio_format.clone().filter(|_| std::mem::take(&mut self.audio_flows));
        let header = self.header_for(unit.format.clone(), audio);
        let timecode_ms = start_ms.max(self.border_ms.map_or(0, |border| border + 1));
        let head = write::cluster_start(timecode_ms);
        let forced = !unit.random_access;
        self.stats.forced_cuts += u64::from(forced);
        let mut open = Open {
            id: self.config.ids.next_id(),
            clock: self.clock,
            timecode_ms,
            last_ms: timecode_ms,
            blocks: 0,
            audio_blocks: 0,
            cluster: ClusterHasher::default(),
            header_bytes: header.bytes.len(),
            forced,
        };
        open.cluster.head(&head);
        self.parts.push_back(Part::Start(FragmentStart {
            id: open.id,
            timecode: ProducerTimestamp::from_millis(timecode_ms),
            clock: open.clock,
            header,
            head,
            forced,
        }));
        self.open = Some(open);
    }

    fn header_for(&mut self, video: Arc<VideoFormat>, audio: Option<Arc<AudioFormat>>) -> Arc<StreamHeader> {
        if let Some(header) = &self.header
            && header.video == video
            && header.audio == audio
        {
            return header.written.clone();
        }
        let mut tracks = vec![write::Track::Video(video.clone())];
        let written = |tracks: &[_]| write::header(self.config.segment_uid, &self.config.writing_app, tracks);
        let video_only = written(&tracks);
        tracks.extend(audio.clone().map(write::Track::Audio));
        let bytes = written(&tracks);
        let written = Arc::new(StreamHeader { bytes, video_only, has_audio: audio.is_some() });
        self.header = Some(Header { video, audio, written: written.clone() });
        written
    }

    fn block(&mut self, track: u8, time_ms: u64, key_frame: bool, payload: Bytes) {
        let Some(open) = &mut self.open else { return };
        let written_ms = self.written_audio_ms.filter(|_| track != 1);
        let after_ms = self.border_ms.max(written_ms).map_or(0, |before| before + 1);
        let latest_ms = open.timecode_ms.saturating_add(MAX_OFFSET_MS);
        let earliest_ms = after_ms.max(open.timecode_ms.saturating_sub(MAX_OFFSET_MS)).min(latest_ms);
        let placed_ms = time_ms.clamp(earliest_ms, latest_ms);
        self.stats.moved_frames += u64::from(placed_ms != time_ms);
        if track != 1 {
            self.written_audio_ms = Some(placed_ms);
        }
        let offset_ms = i16::try_from(i128::from(placed_ms) - i128::from(open.timecode_ms))
            .expect("placed within MAX_OFFSET_MS of the timecode");
        let head = write::block_head(track, offset_ms, key_frame, payload.len());
        open.cluster.head(&head);
        open.cluster.payload(&payload);
        open.blocks += 1;
        open.audio_blocks += u32::from(track != 1);
        open.last_ms = open.last_ms.max(placed_ms);
        self.parts.push_back(Part::Block { head, payload });
    }

    fn end(&mut self, closing: bool) {
        let Some(open) = self.open.take() else { return };
        self.border_ms = Some(open.last_ms);
        let (sums, cluster_bytes) = open.cluster.finish();
        let identity = FragmentIdentity {
            device: self.config.device.clone(),
            camera: self.config.camera.clone(),
            id: open.id,
            timecode_ms: open.timecode_ms,
            blocks: open.blocks,
            payload_sha256: sums.payload,
        };
        let tag = write::tags(&[(identity::NAME, &identity.to_string())]);
        let summary = FragmentSummary {
            id: open.id,
            timecode: ProducerTimestamp::from_millis(open.timecode_ms),
            clock: open.clock,
            duration_ms: open.last_ms - open.timecode_ms,
            blocks: open.blocks,
            audio_blocks: open.audio_blocks,
            cluster_bytes,
            around_bytes: (open.header_bytes + tag.len()) as u64,
            sums,
            forced: open.forced,
        };
        self.parts.push_back(Part::End(FragmentEnd { summary, tag, closing }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{START_MS, Whole, audio, block_times, config, format, parts, unit, wholes};

    fn shape(parts: &[Part]) -> String {
        let letter = |part: &Part| match part {
            Part::Start(start) if start.forced => 'F',
            Part::Start(_) => 'S',
            Part::Block { .. } => 'b',
            Part::End(end) if end.closing => 'C',
            Part::End(_) => 'E',
        };
        parts.iter().map(letter).collect()
    }

    /// Pictures every 200 ms; `keys` says which are random access points.
    fn check(keys: &str, expected: &str) -> FragmenterStats {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        for (n, key) in keys.chars().enumerate() {
            fragmenter.video(&unit(&format, n as u64 * 200, key == 'K'));
        }
        fragmenter.finish();
        assert_eq!(shape(&parts(&mut fragmenter)), expected, "{keys}");
        fragmenter.stats()
    }

    #[test]
    fn fragments_start_at_random_access_points_and_last_long_enough() {
        check("KppppKpppp", "SbbbbbESbbbbbC");
        check("KpKpKpKpKp", "SbbbbbbESbbbbC");
        assert_eq!(check("ppKpp", "SbbbC").skipped_units, 2);
        check("pppp", "");
        check("K", "SbC");
    }

    #[test]
    fn a_long_gop_is_cut_and_counted_but_not_thrown_away() {
        let stats = check("Kppppppppppppppppppppppp", "SbbbbbbbbbbbbbbbbbbbbEFbbbbC");
        assert_eq!(stats.forced_cuts, 1);
    }

    #[test]
    fn sound_behind_a_stall_makes_no_fragment_too_long() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        fragmenter.announce_audio(audio(0).format);
        for (at_ms, key) in [(0, true), (200, false), (12_000, true), (12_200, false)] {
            fragmenter.video(&unit(&format, at_ms, key));
            // A little earlier than its picture.
            fragmenter.audio(audio(at_ms.saturating_sub(1)));
        }
        fragmenter.finish();
        let durations: Vec<_> = parts(&mut fragmenter)
            .iter()
            .filter_map(|part| match part {
                Part::End(end) => Some((end.summary.duration_ms, end.summary.audio_blocks)),
                _ => None,
            })
            .collect();
        assert_eq!(durations, [(200, 2), (200, 2)]);
    }

    #[test]
    fn other_parameter_sets_start_a_fragment_under_another_header() {
        let mut fragmenter = Fragmenter::new(config());
        let (wide, small) = (format(640), format(320));
        fragmenter.video(&unit(&wide, 0, true));
        fragmenter.video(&unit(&small, 200, true));
        fragmenter.finish();
        let parts = parts(&mut fragmenter);
        assert_eq!(shape(&parts), "SbESbC");
        let wholes = wholes(parts);
        assert_ne!(wholes[0].header.bytes, wholes[1].header.bytes);
    }

    #[test]
    fn every_time_lies_after_the_fragment_before() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        // The last picture of the first fragment claims to be later than the next random access point.
        for (at_ms, key) in
            [(0, true), (500, false), (1500, false), (1200, true), (1300, false), (1600, false)]
        {
            fragmenter.video(&unit(&format, at_ms, key));
        }
        fragmenter.finish();
        assert_eq!(fragmenter.stats().moved_frames, 2);
        let wholes = wholes(parts(&mut fragmenter));
        assert_eq!(wholes[1].summary.timecode.as_millis(), START_MS + 1501);
        assert_eq!(wholes[1].summary.duration_ms, 99);
    }

    #[test]
    fn a_jump_in_time_splits_and_never_overflows_a_block_offset() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        for at_ms in [50_000, 200_000, 0, 500_000_000, 10] {
            fragmenter.video(&unit(&format, at_ms, at_ms == 50_000));
        }
        fragmenter.finish();
        let wholes = wholes(parts(&mut fragmenter));
        assert_eq!(wholes.iter().map(|whole| whole.summary.blocks).sum::<u32>(), 5, "no picture is lost");
        assert!(wholes.windows(2).all(|two| two[0].summary.timecode < two[1].summary.timecode));
    }

    #[test]
    fn a_new_timeline_may_lie_before_the_old_one_under_another_header() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        fragmenter.video(&unit(&format, 100_000, true));
        fragmenter.new_timeline([8; 16]);
        fragmenter.video(&unit(&format, 0, true));
        fragmenter.finish();
        assert_eq!(fragmenter.stats(), FragmenterStats::default());
        let wholes = wholes(parts(&mut fragmenter));
        assert_eq!(wholes[1].summary.timecode.as_millis(), START_MS);
        assert_ne!(wholes[0].header.bytes, wholes[1].header.bytes);
    }

    #[test]
    fn audio_goes_into_the_fragment_of_its_pictures() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        fragmenter.announce_audio(Arc::new(AudioFormat::pcmu(8000, 1)));
        for n in 0..10 {
            fragmenter.audio(audio(n * 200 + 150)); // ahead of its picture: waits for it
            fragmenter.video(&unit(&format, n * 200, n % 5 == 0));
        }
        fragmenter.finish();
        let wholes = wholes(parts(&mut fragmenter));
        let counts: Vec<_> = wholes.iter().map(|w| (w.summary.blocks, w.summary.audio_blocks)).collect();
        assert_eq!(counts, [(10, 5), (10, 5)]);
        assert!(Arc::ptr_eq(&wholes[0].header, &wholes[1].header));
        assert!(wholes[0].header.has_audio);
        assert_eq!(fragmenter.stats().moved_frames, 0);
    }

    /// Block times of the audio by fragment, in ms from the start.
    fn audio_times(wholes: &[Whole]) -> Vec<Vec<u64>> {
        let of_audio = |(track, time_ms): (u64, u64)| (track == 2).then_some(time_ms - START_MS);
        wholes.iter().map(|whole| block_times(whole).into_iter().filter_map(of_audio).collect()).collect()
    }

    #[test]
    fn a_border_waits_for_the_audio_before_it() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        fragmenter.announce_audio(audio(0).format);
        for n in 0..15 {
            fragmenter.video(&unit(&format, n * 200, n % 5 == 0));
            if let Some(late) = (n * 200).checked_sub(300) {
                fragmenter.audio(audio(late));
            }
        }
        fragmenter.finish();
        assert_eq!(fragmenter.stats(), FragmenterStats::default());
        let wholes = wholes(parts(&mut fragmenter));
        assert_eq!(
            wholes.iter().map(|w| w.summary.blocks - w.summary.audio_blocks).collect::<Vec<_>>(),
            [5; 3]
        );
        let expected =
            [vec![100, 300, 500, 700, 900], vec![1100, 1300, 1500, 1700, 1900], vec![2100, 2300, 2500]];
        assert_eq!(audio_times(&wholes), expected);
    }

    /// Pictures every `step_ms`, a random access point each second, with one frame of audio before them or none; what
    /// is written after each, and at the end.
    fn with_silent_audio(has_audio: bool, step_ms: u64, pictures: u64) -> String {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        if has_audio {
            fragmenter.audio(audio(0));
        }
        let mut written = String::new();
        for n in 0..pictures {
            fragmenter.video(&unit(&format, n * step_ms, n % (1000 / step_ms) == 0));
            written += &(shape(&parts(&mut fragmenter)) + " ");
        }
        fragmenter.finish();
        written + &shape(&parts(&mut fragmenter))
    }

    #[test]
    fn a_border_waits_half_a_second_for_audio_that_does_not_come() {
        assert_eq!(with_silent_audio(true, 200, 9), "Sbb b b b b    ESbbbb C");
        assert_eq!(with_silent_audio(true, 200, 6), "Sbb b b b b  ESbC", "a stop writes what is held");
        assert_eq!(with_silent_audio(false, 200, 6), "Sb b b b b ESb C");
        // At 200 pictures a second so many come within that time that the number decides.
        let most = with_silent_audio(true, 5, 300).split(' ').map(str::len).max();
        assert_eq!(most, Some("ES".len() + HELD_PICTURES + 1));
    }

    #[test]
    fn audio_that_comes_after_all_its_pictures_is_moved_and_not_left_out() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        fragmenter.audio(audio(0));
        // As after a stall: three seconds of pictures, then their audio.
        (0..16).for_each(|n| fragmenter.video(&unit(&format, n * 200, n % 5 == 0)));
        (1..20).for_each(|n| fragmenter.audio(audio(n * 150)));
        fragmenter.video(&unit(&format, 3200, false));
        fragmenter.video(&unit(&format, 4000, true));
        fragmenter.finish();
        let times = audio_times(&wholes(parts(&mut fragmenter)));
        assert_eq!(times.iter().map(Vec::len).sum::<usize>(), 20, "{times:?}");
        assert_eq!(fragmenter.stats().dropped_audio, 0);
        assert!(fragmenter.stats().moved_frames > 0);
        let times = times.concat();
        assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    }

    #[test]
    fn audio_far_ahead_does_not_move_the_pictures_after_a_break() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        for ahead_ms in [0, 400, 9_000] {
            fragmenter.audio(audio(ahead_ms));
        }
        fragmenter.video(&unit(&format, 0, true));
        fragmenter.finish();
        fragmenter.video(&unit(&format, 1000, true));
        fragmenter.finish();
        let wholes = wholes(parts(&mut fragmenter));
        assert_eq!(wholes[1].summary.timecode.as_millis(), START_MS + 1000);
        assert_eq!(audio_times(&wholes), [vec![0, 400], vec![]]);
    }

    #[derive(Clone, Debug)]
    enum Input {
        Video(bool),
        Audio,
        Break,
    }

    fn inputs() -> impl Strategy<Value = Vec<(Input, i64)>> {
        let input = prop_oneof![
            8 => any::<bool>().prop_map(Input::Video),
            12 => Just(Input::Audio),
            1 => Just(Input::Break),
        ];
        let step = prop_oneof![20 => 0_i64..200, 1 => -3000_i64..40_000];
        prop::collection::vec((input, step), 1..200)
    }

    proptest! {
        /// Tracks in any disorder: no picture is lost, audio only where that is counted, and every time lies where
        /// KVS takes it.
        #[test]
        fn whatever_the_times_nothing_is_lost_uncounted(inputs in inputs()) {
            let mut fragmenter = Fragmenter::new(config());
            let format = format(640);
            let (mut video_ms, mut audio_ms, mut counts) = (60_000_u64, 60_000_u64, [0_u64; 2]);
            for (input, step) in inputs {
                match input {
                    Input::Video(key) => {
                        video_ms = video_ms.saturating_add_signed(step);
                        fragmenter.video(&unit(&format, video_ms, key));
                        counts[0] += 1;
                    }
                    Input::Audio => {
                        audio_ms = audio_ms.saturating_add_signed(step);
                        fragmenter.audio(audio(audio_ms));
                        counts[1] += 1;
                    }
                    Input::Break => fragmenter.finish(),
                }
            }
            fragmenter.finish();
            let left = fragmenter.audio.len() as u64;
            let stats = fragmenter.stats();
            let wholes = wholes(parts(&mut fragmenter));
            let audio_blocks: u32 = wholes.iter().map(|whole| whole.summary.audio_blocks).sum();
            let blocks: u32 = wholes.iter().map(|whole| whole.summary.blocks).sum();
            prop_assert_eq!(u64::from(audio_blocks) + stats.dropped_audio + left, counts[1]);
            prop_assert_eq!(u64::from(blocks - audio_blocks) + stats.skipped_units, counts[0]);
            let mut border_ms = 0;
            for whole in &wholes {
                let times: Vec<_> = block_times(whole).into_iter().map(|(_, time_ms)| time_ms).collect();
                prop_assert!(times.iter().all(|&time_ms| time_ms > border_ms), "{times:?} after {border_ms}");
                border_ms = times.into_iter().max().unwrap_or(0);
            }
        }
    }

    #[test]
    fn audio_that_falls_silent_is_declared_no_more_and_comes_back() {
        let mut fragmenter = Fragmenter::new(config());
        let format = format(640);
        for n in 0..25 {
            if !(5..15).contains(&n) {
                fragmenter.audio(audio(n * 200));
            }
            fragmenter.video(&unit(&format, n * 200, n % 5 == 0));
        }
        fragmenter.finish();
        let has_audio: Vec<_> = wholes(parts(&mut fragmenter)).iter().map(|w| w.header.has_audio).collect();
        // Declared one fragment too long: that one is sent again as video only when KVS refuses it (4011).
        assert_eq!(has_audio, [true, true, false, true, true]);
    }

    #[test]
    fn the_payload_is_the_cameras_own_buffer() {
        let mut fragmenter = Fragmenter::new(config());
        let unit = unit(&format(640), 0, true);
        fragmenter.video(&unit);
        let payload = parts(&mut fragmenter).into_iter().find_map(|part| match part {
            Part::Block { payload, .. } => Some(payload),
            _ => None,
        });
        assert_eq!(payload.expect("one block").as_ptr(), unit.data.as_ptr());
    }
}
