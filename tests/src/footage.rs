//! The proof: what is stored against what the simulated camera really sent.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use camera_sim::{Clip, Codec, SentPicture};
use kvs_edge::messages::{Stats, Status, Upload, Verdict, Verify};
use media::nal;

use crate::cloud::Stored;
use crate::rig::Rig;

/// One camera's stored footage, compared with what the camera sent.
#[derive(Debug)]
pub struct Footage {
    pub stored: Vec<Stored>,
    /// In stored order, which is coding order.
    pub pictures: Vec<PictureBack>,
    /// Sent between the first and the last stored picture, and not stored: the test has to explain them.
    pub missing: Vec<SentPicture>,
    /// Stored frames of sound.
    pub audio_frames: usize,
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

        let (pictures, missing) = match self.sim(camera) {
            Some(sim) => {
                let other = self.other_clip(camera).await;
                let clips = [Some(sim.clip(0).clone()), other];
                compare(camera, &stored, &clips, &sim.stats(0).sent.into())
            }
            None => (Vec::new(), Vec::new()),
        };
        let audio_frames = match self.sim(camera).and_then(|sim| sim.clip(0).audio()) {
            Some(audio) => compare_audio(camera, &stored, &audio.frames),
            None => 0,
        };
        let (status, stats) =
            (self.mqtt.last(&topics.status(camera)), self.mqtt.bodies(&topics.stats(camera)));
        Footage { stored, pictures, missing, audio_frames, status, upload, verify, stats }
    }
}

impl Footage {
    /// Sessions of the camera that pictures were stored from.
    pub fn sessions(&self) -> BTreeSet<u64> {
        self.pictures.iter().map(|picture| picture.sent.session).collect()
    }

    /// Missing pictures with stored ones before and behind them in the same session: what a reconnection does not
    /// explain.
    pub fn missing_within_sessions(&self) -> Vec<SentPicture> {
        let stored = |session| {
            self.pictures.iter().filter(move |picture| picture.sent.session == session).map(|p| p.sent.number)
        };
        let inside = |sent: &&SentPicture| {
            stored(sent.session).min().is_some_and(|first| first < sent.number)
                && stored(sent.session).max().is_some_and(|last| last > sent.number)
        };
        self.missing.iter().filter(inside).copied().collect()
    }

    /// # Panics
    /// When a picture between the first and the last one of a session is missing.
    pub fn expect_no_picture_missing(&self) {
        let missing = self.missing_within_sessions();
        assert!(missing.is_empty(), "pictures that no fault explains are missing: {missing:#?}");
    }

    /// Largest distance in ms between a stored time and the camera's true capture time.
    pub fn worst_time_error_ms(&self) -> u64 {
        self.pictures.iter().map(|p| p.time_ms.abs_diff(p.sent.capture_utc_ms)).max().unwrap_or(0)
    }
}

type Pictures = (Vec<PictureBack>, Vec<SentPicture>);

fn compare(
    camera: &str,
    stored: &[Stored],
    clips: &[Option<std::sync::Arc<Clip>>; 2],
    sent: &Vec<SentPicture>,
) -> Pictures {
    let mut origins: HashMap<Bytes, Vec<(bool, u32)>> = HashMap::new();
    for (clip, switched) in clips.iter().zip([false, true]) {
        for picture in clip.iter().flat_map(|clip| clip.pictures()) {
            let codec = clip.as_ref().map_or(Codec::H264, |clip| clip.spec().codec);
            origins.entry(as_stored(codec, &picture.nal_units)).or_default().push((switched, picture.index));
        }
    }
    let mut pictures = Vec::new();
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
            let same = |sent: &&SentPicture| origins.contains(&(sent.switched, sent.index));
            let origin =
                sent.iter().filter(same).min_by_key(|sent| sent.capture_utc_ms.abs_diff(block.time_ms));
            let origin =
                origin.unwrap_or_else(|| panic!("{camera}: {origins:?} is stored but was never sent"));
            let (time_ms, key_frame) = (block.time_ms, block.key_frame);
            pictures.push(PictureBack { sent: *origin, time_ms, key_frame, fragment: place });
        }
    }
    let place =
        |picture: &SentPicture| sent.iter().position(|sent| sent == picture).expect("it was found there");
    let places: Vec<_> = pictures.iter().map(|picture| place(&picture.sent)).collect();
    let wrong = places.windows(2).position(|two| two[0] >= two[1]);
    assert_eq!(
        wrong.map(|at| &pictures[at..at + 2]),
        None,
        "{camera}: stored twice, or in another order than sent"
    );
    let stored: BTreeSet<_> = places.iter().copied().collect();
    let between = places.first().copied().unwrap_or(0)..places.last().copied().unwrap_or(0);
    let missing = between.filter(|at| !stored.contains(at)).map(|at| sent[at]).collect();
    (pictures, missing)
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

/// Stored sound is the camera's loop without a gap, or with one where a fragment begins.
fn compare_audio(camera: &str, stored: &[Stored], frames: &[Bytes]) -> usize {
    let mut expected: BTreeSet<usize> = BTreeSet::new();
    let mut count = 0;
    for fragment in stored {
        for (position, block) in fragment.blocks.iter().filter(|block| block.track == 2).enumerate() {
            let same: BTreeSet<_> = (0..frames.len()).filter(|at| frames[*at] == block.payload).collect();
            assert!(!same.is_empty(), "{camera}: sound at {} ms is not the camera's", block.time_ms);
            let follows: BTreeSet<_> = same.intersection(&expected).copied().collect();
            let next = if position == 0 && follows.is_empty() { same } else { follows };
            assert!(!next.is_empty(), "{camera}: sound is missing before {} ms", block.time_ms);
            expected = next.iter().map(|at| (at + 1) % frames.len()).collect();
            count += 1;
        }
    }
    count
}
