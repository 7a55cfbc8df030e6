//! The proof: what is stored against what the simulated camera really sent.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use camera_sim::{CameraStats, Clip, Codec, SentPicture};
use media::nal;
use messages::{Stats, Status, Upload, Verdict, Verify};

use crate::cloud::Stored;
use crate::rig::Rig;

/// One camera's stored footage, compared with what the camera sent.
#[derive(Debug)]
pub struct Footage {
    pub stored: Vec<Stored>,
    /// In stored order, which is coding order.
    pub pictures: Vec<PictureBack>,
    /// Everything that was sent from the first to the last stored picture. What of it is not stored, the test has
    /// to explain.
    pub sent: Vec<Sent>,
    /// Stored frames of sound.
    pub audio_frames: usize,
    /// Where sound of the camera is missing between stored frames.
    pub audio_gaps: usize,
    /// The last words of the daemon about this camera.
    pub status: Status,
    pub upload: Upload,
    pub verify: Verify,
    pub stats: Vec<Stats>,
}

/// A stored picture and its origin.
#[derive(Clone, Copy, Debug)]
pub struct PictureBack {
    pub sent: SentPicture,
    pub time_ms: u64,
    pub key_frame: bool,
    /// Position in [`Footage::stored`].
    pub fragment: usize,
}

/// A picture that left the camera.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub picture: SentPicture,
    pub random_access: bool,
    pub stored: bool,
}

impl Rig {
    /// After [`Rig::stop`]: all fragments of a simulated camera that the daemon made are stored, persisted and
    /// proven identical, once each; all pictures in them are access units of the camera, byte for byte, in the
    /// order in which it sent them.
    ///
    /// # Panics
    /// When that is not so.
    pub async fn expect_everything_proven(&self, camera: &str) -> Footage {
        let topics = &self.mqtt.topics;
        let stored = self.kvs.stored(&self.stream_of(camera)).await;
        let (upload, verify): (Upload, Verify) =
            (self.mqtt.last(&topics.upload(camera)), self.mqtt.last(&topics.verify(camera)));
        let count = stored.len() as u64;
        assert!(count > 0, "{camera}: nothing is stored");
        let counts = [upload.fragments_sent, upload.fragments_persisted, verify.identical];
        assert_eq!(
            counts, [count; 3],
            "{camera}: sent, persisted, identical against stored: {upload:#?} {verify:#?}"
        );
        let bad = [upload.fragments_lost, verify.corrupt, verify.missing, verify.duplicate, verify.late];
        assert_eq!(bad, [0; 5], "{camera}: lost, corrupt, missing, duplicate, late: {upload:#?} {verify:#?}");
        assert_eq!(verify.verdict, Verdict::Ok, "{camera}: {verify:#?}");
        assert_eq!((upload.backlog_bytes, upload.gaps.len()), (0, 0), "{camera}: {upload:#?}");

        let (pictures, sent) = match self.sim(camera) {
            Some(sim) => {
                let other = self.other_clip(camera).await;
                compare(camera, &stored, [Some(sim.clip(0)), other.as_ref()], sim.stats(0))
            }
            None => (Vec::new(), Vec::new()),
        };
        let (audio_frames, audio_gaps) = match self.sim(camera).and_then(|sim| sim.clip(0).audio()) {
            Some(audio) => compare_audio(camera, &stored, &audio.frames),
            None => (0, 0),
        };
        let (status, stats) =
            (self.mqtt.last(&topics.status(camera)), self.mqtt.bodies(&topics.stats(camera)));
        Footage { stored, pictures, sent, audio_frames, audio_gaps, status, upload, verify, stats }
    }
}

impl Footage {
    /// Sessions of the camera that pictures were stored from.
    pub fn sessions(&self) -> BTreeSet<u64> {
        self.pictures.iter().map(|picture| picture.sent.session).collect()
    }

    /// Pictures that are not stored, with stored ones before and behind them in the same session: what no
    /// reconnection explains.
    pub fn missing_within_sessions(&self) -> Vec<Sent> {
        let mut missing = Vec::new();
        for session in self.sessions() {
            missing.extend(self.session(session).into_iter().filter(|sent| !sent.stored));
        }
        missing
    }

    /// # Panics
    /// When a picture between the first and the last one of a session is missing, or sound.
    pub fn expect_no_picture_missing(&self) {
        assert_eq!(self.audio_gaps, 0, "sound is missing");
        let missing = self.missing_within_sessions();
        assert!(missing.is_empty(), "pictures that no fault explains are missing: {missing:#?}");
    }

    /// No packet was lost on the way: the only excuse over UDP, where a busy machine drops them.
    pub fn is_whole(&self) -> bool {
        let stats = self.stats.last().expect("there is one each second");
        stats.transport.as_deref() != Some("udp") || stats.lost_packets == 0
    }

    /// Nothing is missing, or packets were lost over UDP, and then nothing is stored that refers to what is missing.
    ///
    /// # Panics
    /// When that is not so.
    pub fn expect_only_lost_packets_to_matter(&self) {
        if self.is_whole() {
            self.expect_no_picture_missing();
        } else {
            self.expect_nothing_behind_a_loss();
        }
    }

    /// Behind a picture that is missing, nothing is stored up to the next random access point.
    ///
    /// # Panics
    /// When that is not so.
    pub fn expect_nothing_behind_a_loss(&self) {
        for session in self.sessions() {
            let mut broken = false;
            for sent in self.session(session) {
                broken = if sent.random_access { !sent.stored } else { broken || !sent.stored };
                assert!(!(broken && sent.stored), "stored, although it refers to what is missing: {sent:?}");
            }
        }
    }

    /// What one session sent between its first and its last stored picture, without the latter's GOP mates that
    /// came after it.
    fn session(&self, session: u64) -> Vec<Sent> {
        let sent: Vec<_> = self.sent.iter().filter(|sent| sent.picture.session == session).copied().collect();
        let last = sent.iter().rposition(|sent| sent.stored);
        let sent = &sent[..last.map_or(0, |last| last + 1)];
        let first = sent.iter().position(|sent| sent.stored).unwrap_or(0);
        sent[first..].to_vec()
    }

    /// Largest distance in ms between a stored time and the camera's true capture time.
    pub fn worst_time_error_ms(&self) -> u64 {
        self.pictures.iter().map(|p| p.time_ms.abs_diff(p.sent.capture_utc_ms)).max().unwrap_or(0)
    }
}

type Pictures = (Vec<PictureBack>, Vec<Sent>);

/// `clips`: the one that the camera plays, and the other one of a parameter switch.
///
/// # Panics
/// When something is stored that the camera did not send, twice, or in another order.
pub(crate) fn compare(
    camera: &str,
    stored: &[Stored],
    clips: [Option<&Arc<Clip>>; 2],
    mut stats: CameraStats,
) -> Pictures {
    let lossy = stats.packets_dropped + stats.packets_reordered > 0;
    let sent = &*stats.sent.make_contiguous();
    let mut origins: HashMap<Bytes, Vec<(bool, u32)>> = HashMap::new();
    for (clip, switched) in clips.into_iter().zip([false, true]) {
        let Some(clip) = clip else { continue };
        for picture in clip.pictures() {
            let codec = clip.spec().codec;
            let data = as_stored(codec, &picture.nal_units);
            origins.entry(data).or_default().push((switched, picture.index));
            // Supplemental information in front of a key picture may be lost on the way; the picture is whole.
            if lossy && picture.random_access {
                let slices: Vec<_> = picture.vcl(codec).cloned().collect();
                origins.entry(as_stored(codec, &slices)).or_default().push((switched, picture.index));
            }
        }
    }
    let mut places_of: HashMap<(bool, u32), Vec<usize>> = HashMap::new();
    for (place, sent) in sent.iter().enumerate() {
        places_of.entry((sent.switched, sent.index)).or_default().push(place);
    }
    let mut pictures = Vec::new();
    let mut places = Vec::new();
    for (fragment, place) in stored.iter().zip(0..) {
        for block in fragment.blocks.iter().filter(|block| block.track == 1) {
            let Some(origins) = origins.get(&block.payload) else {
                panic!(
                    "{camera}: a picture of {} bytes at {} ms in fragment {} is none that the camera has: {}",
                    block.payload.len(),
                    block.time_ms,
                    fragment.number(),
                    nals(&block.payload)
                );
            };
            // A session that the box has left may go on for a while beside the one that follows it.
            let nearest = |at: &usize| {
                (sent[*at].capture_utc_ms.abs_diff(block.time_ms), std::cmp::Reverse(sent[*at].session))
            };
            let same = origins.iter().filter_map(|origin| places_of.get(origin)).flatten();
            let origin = same.copied().min_by_key(nearest);
            let origin =
                origin.unwrap_or_else(|| panic!("{camera}: {origins:?} is stored but was never sent"));
            let (time_ms, key_frame) = (block.time_ms, block.key_frame);
            pictures.push(PictureBack { sent: sent[origin], time_ms, key_frame, fragment: place });
            places.push(origin);
        }
    }
    let wrong = places.windows(2).position(|two| two[0] >= two[1]);
    assert_eq!(
        wrong.map(|at| &pictures[at..at + 2]),
        None,
        "{camera}: stored twice, or in another order than sent"
    );
    let mut shown = pictures.clone();
    shown.sort_by_key(|picture| picture.sent.number);
    let wrong = shown.windows(2).position(|two| two[0].time_ms >= two[1].time_ms);
    assert_eq!(
        wrong.map(|at| &shown[at..at + 2]),
        None,
        "{camera}: times are not in the order of presentation"
    );
    let stored: BTreeSet<_> = places.iter().copied().collect();
    let all = places.first().copied().unwrap_or(0)..places.last().map_or(0, |last| last + 1);
    let random_access = |picture: &SentPicture| {
        let clip = clips[usize::from(picture.switched)].expect("pictures of it were sent");
        clip.access_unit(picture.index).random_access
    };
    let sent = all.map(|at| Sent {
        picture: sent[at],
        random_access: random_access(&sent[at]),
        stored: stored.contains(&at),
    });
    (pictures, sent.collect())
}

impl PartialEq for PictureBack {
    fn eq(&self, other: &PictureBack) -> bool {
        self.sent == other.sent && self.time_ms == other.time_ms
    }
}

/// The access unit as it has to be stored: all NAL units but the parameter sets, which are in the header.
fn as_stored(codec: Codec, units: &[Bytes]) -> Bytes {
    let is_parameter_set = |unit: &Bytes| match codec {
        Codec::H264 => matches!(unit[0] & 31, 7 | 8),
        Codec::H265 => matches!(unit[0] >> 1 & 63, 32..=34),
    };
    let mut data = Vec::new();
    for unit in units.iter().filter(|unit| !is_parameter_set(unit)) {
        data.extend_from_slice(&u32::try_from(unit.len()).expect("NAL units are small").to_be_bytes());
        data.extend_from_slice(unit);
    }
    data.into()
}

fn nals(payload: &[u8]) -> String {
    let units = nal::length_prefixed(payload, 4).map(|unit| match unit {
        Ok(unit) => format!("{:#04x} with {} bytes", unit[0], unit.len()),
        Err(error) => error.to_string(),
    });
    units.collect::<Vec<_>>().join(", ")
}

/// Stored sound is the camera's loop: the number of its frames, and of the places where some are missing.
fn compare_audio(camera: &str, stored: &[Stored], frames: &[Bytes]) -> (usize, usize) {
    let blocks = stored.iter().flat_map(|fragment| &fragment.blocks).filter(|block| block.track == 2);
    // Frames of the loop may be alike: all places in it that the block can be from.
    let mut expected: BTreeSet<usize> = (0..frames.len()).collect();
    let (mut count, mut gaps) = (0, 0);
    for block in blocks {
        let same: BTreeSet<_> = (0..frames.len()).filter(|at| frames[*at] == block.payload).collect();
        assert!(!same.is_empty(), "{camera}: sound at {} ms is not the camera's", block.time_ms);
        let mut follows: BTreeSet<_> = same.intersection(&expected).copied().collect();
        if follows.is_empty() {
            (follows, gaps) = (same, gaps + 1);
        }
        expected = follows.into_iter().map(|at| (at + 1) % frames.len()).collect();
        count += 1;
    }
    (count, gaps)
}
