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
//! (error 4004): audio waits for the picture that it belongs to, and a frame that still comes late is moved up to
//! the border and counted.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::mkv::write;
use media::{AccessUnit, AudioFormat, AudioFrame, ProducerTimestamp, VideoFormat};

use crate::cluster_sums::{ClusterHasher, ClusterSums};
use crate::identity::{self, FragmentIdentity};

/// Audio further behind the newest picture than this is no longer waited for or kept.
const AUDIO_QUEUE_FRAMES: usize = 512;
/// Block times are signed 16-bit offsets to the cluster's timecode.
const MAX_OFFSET_MS: u64 = 30_000;

#[derive(Clone, Debug)]
pub struct FragmenterConfig {
    /// A fragment is at least this long before a random access point ends it.
    pub fragment_ms: u64,
    /// It never grows longer than this, random access point or not. Under the 10 s of the service.
    pub fragment_max_ms: u64,
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
    pub sequence: u64,
    pub timecode: ProducerTimestamp,
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
    pub sequence: u64,
    pub timecode: ProducerTimestamp,
    /// First to last block time.
    pub duration_ms: u64,
    pub blocks: u32,
    pub audio_blocks: u32,
    /// The Cluster element, header included.
    pub cluster_bytes: u64,
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
    next_sequence: u64,
    open: Option<Open>,
    header: Option<Header>,
    /// The latest time in any finished fragment.
    border_ms: Option<u64>,
    audio: VecDeque<AudioFrame>,
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
    sequence: u64,
    timecode_ms: u64,
    last_ms: u64,
    blocks: u32,
    audio_blocks: u32,
    cluster: ClusterHasher,
    forced: bool,
}

impl Fragmenter {
    pub fn new(config: FragmenterConfig) -> Self {
        Self {
            config,
            next_sequence: 1,
            open: None,
            header: None,
            border_ms: None,
            audio: VecDeque::new(),
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
        let time_ms = unit.timestamp.as_millis();
        let new_format = self.header.as_ref().is_some_and(|header| header.video != unit.format);
        let long_enough = |open: &Open, limit_ms| time_ms.saturating_sub(open.timecode_ms) >= limit_ms;
        let cut = match &self.open {
            None => unit.random_access,
            Some(_) if new_format => true,
            Some(open) if unit.random_access => long_enough(open, self.config.fragment_ms),
            // A time before the cluster is a jump back: block offsets could not express it.
            Some(open) => {
                long_enough(open, self.config.fragment_max_ms) || time_ms + MAX_OFFSET_MS < open.timecode_ms
            }
        };
        if cut {
            self.release_audio(time_ms);
            self.end(false);
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
        self.audio.push_back(frame);
    }

    /// Time went far back: what follows is another timeline. KVS takes earlier times only in another session, so
    /// the header changes with the `segment_uid`.
    pub fn new_timeline(&mut self, segment_uid: [u8; 16]) {
        self.finish();
        self.config.segment_uid = segment_uid;
        self.header = None;
        self.border_ms = None;
    }

    /// Ends the open fragment: the camera stalled, was lost, or the program stops. The next fragment starts at
    /// the next random access point.
    pub fn finish(&mut self) {
        self.release_audio(u64::MAX);
        self.end(true);
    }

    /// Writes out the waiting audio with times before `until_ms`.
    fn release_audio(&mut self, until_ms: u64) {
        let declared = self.header.as_ref().and_then(|header| header.audio.clone());
        let Some(declared) = declared.filter(|_| self.open.is_some()) else { return };
        while self.audio.front().is_some_and(|frame| frame.timestamp.as_millis() < until_ms) {
            let Some(frame) = self.audio.pop_front() else { return };
            if frame.format == declared {
                self.block(2, frame.timestamp.as_millis(), true, frame.data);
            } else {
                self.stats.dropped_audio += 1;
            }
        }
    }

    fn start(&mut self, unit: &AccessUnit) {
        // Audio is declared only while it flows: a declared track without a frame makes KVS refuse the fragment.
        // Its frames of the time before this fragment have no place any more.
        let start_ms = unit.timestamp.as_millis();
        if self.open.is_none() {
            while self.audio.front().is_some_and(|frame| frame.timestamp.as_millis() + 500 < start_ms) {
                self.audio.pop_front();
                self.stats.dropped_audio += 1;
            }
        }
        let audio = self.audio_format.clone().filter(|_| std::mem::take(&mut self.audio_flows));
        let header = self.header_for(unit.format.clone(), audio);
        let timecode_ms = start_ms.max(self.border_ms.map_or(0, |border| border + 1));
        let head = write::cluster_start(timecode_ms);
        let forced = !unit.random_access;
        self.stats.forced_cuts += u64::from(forced);
        let mut open = Open {
            sequence: self.next_sequence,
            timecode_ms,
            last_ms: timecode_ms,
            blocks: 0,
            audio_blocks: 0,
            cluster: ClusterHasher::default(),
            forced,
        };
        open.cluster.head(&head);
        self.next_sequence += 1;
        self.parts.push_back(Part::Start(FragmentStart {
            sequence: open.sequence,
            timecode: ProducerTimestamp::from_millis(timecode_ms),
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
        let earliest_ms = self.border_ms.map_or(0, |border| border + 1);
        let allowed = earliest_ms.max(open.timecode_ms.saturating_sub(MAX_OFFSET_MS))
            ..=open.timecode_ms.saturating_add(MAX_OFFSET_MS);
        let placed_ms = time_ms.clamp(*allowed.start(), *allowed.end());
        self.stats.moved_frames += u64::from(placed_ms != time_ms);
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
        let summary = FragmentSummary {
            sequence: open.sequence,
            timecode: ProducerTimestamp::from_millis(open.timecode_ms),
            duration_ms: open.last_ms - open.timecode_ms,
            blocks: open.blocks,
            audio_blocks: open.audio_blocks,
            cluster_bytes,
            sums,
            forced: open.forced,
        };
        let identity = FragmentIdentity {
            device: self.config.device.clone(),
            camera: self.config.camera.clone(),
            sequence: summary.sequence,
            timecode_ms: open.timecode_ms,
            blocks: summary.blocks,
            payload_sha256: summary.sums.payload,
        };
        let tag = write::tags(&[(identity::NAME, &identity.to_string())]);
        self.parts.push_back(Part::End(FragmentEnd { summary, tag, closing }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{START_MS, audio, config, format, parts, unit, wholes};

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
