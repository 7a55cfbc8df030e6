//! A user's own video file as a clip: its H.264 or H.265 as it is, anything else encoded once.
//!
//! GStreamer takes the file apart and says when each picture is shown. Untouched means that the NAL units of every
//! access unit are the file's, with two exceptions that are no part of the pictures: parameter sets stand before each
//! random access point, as cameras send them (a container keeps them once, beside the pictures), and access unit
//! delimiters are left out, since the marker bit of RTP says the same. Pictures before the first random access point are left
//! out. What cannot be served so is decoded and encoded: another codec; a stream without a random access point (H.264: IDR
//! picture); a raw stream that has no times, unless it is H.264 without B pictures, which come one after another.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cache::{self, failed};
use super::gdp::{self, Buffer};
use super::{ClipError, ClipSpec, Codec, Timing, annexb, encode};

/// Written last: what is not in the options of the clip.
const FACTS: &str = "footage.json";
/// Most bytes of coded pictures; they are held in memory.
const LARGEST_BYTES: u64 = 1 << 30;
/// Of a raw stream that does not say its rate.
const USUAL_INTERVAL_NS: u64 = 40_000_000;

/// The file that is played, as it was when it was opened: a changed file is another clip.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Footage {
    path: PathBuf,
    size_bytes: u64,
    modified_ns: i128,
    /// Also where the file's own coding could be served: for another size or GOP.
    pub(super) encode: bool,
}

/// What a file turned out to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    codec: Codec,
    width: u32,
    height: u32,
    encoded: bool,
    pub(super) timing: Timing,
}

/// One picture on its way from the file into the clip.
struct Unit {
    /// When it is shown.
    time_ns: u64,
    random_access: bool,
    nal_units: Vec<Bytes>,
}

/// In coding order, and their width and height.
type Pictures = (Vec<Unit>, [u32; 2]);

impl Footage {
    pub(super) fn open(path: &Path) -> Result<Footage, ClipError> {
        let failed = |source| ClipError::File { path: path.display().to_string(), source };
        let real = path.canonicalize().map_err(failed)?;
        // Opened, since whether it can be read is not to be found out by GStreamer.
        let metadata = fs::File::open(&real).and_then(|file| file.metadata()).map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("this is not a file")));
        }
        if metadata.len() == 0 {
            return Err(failed(std::io::Error::other("the file is empty")));
        }
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Ok(Footage { path: real, size_bytes: metadata.len(), modified_ns, encode: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl Facts {
    /// The options of the clip with what the file is in place of what was asked for.
    pub(super) fn spec(&self, asked: &ClipSpec) -> ClipSpec {
        let fps = self.timing.pictures_per_second();
        ClipSpec { codec: self.codec, width: self.width, height: self.height, fps, ..asked.clone() }
    }

    pub(super) fn encoded(&self) -> bool {
        self.encoded
    }

    pub(super) fn read(folder: &Path) -> Result<Facts, ClipError> {
        let path = folder.join(FACTS);
        let text = fs::read(&path).map_err(failed(&path))?;
        serde_json::from_slice(&text).map_err(|error| failed(&path)(error.into()))
    }
}

/// Leaves video, index and facts in `folder`.
pub(super) fn make(spec: &ClipSpec, footage: &Footage, folder: &Path) -> Result<(), ClipError> {
    if !footage.encode {
        for codec in [Codec::H264, Codec::H265] {
            let name = codec.name();
            let pipeline = format!(
                "parsebin ! video/x-{name} ! {name}parse config-interval=-1 \
                 ! video/x-{name},stream-format=byte-stream,alignment=au ! gdppay crc-header=false"
            );
            match extract(footage, codec, &pipeline, folder) {
                Ok(Some((units, size))) => return write(codec, &units, size, false, folder),
                // Not of this codec, or not fit: another try, and the last one's error is told.
                Ok(None) | Err(ClipError::Encode { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    tracing::info!(file = %footage.path.display(), "encoding once; kept in the cache");
    let size = match (spec.width, spec.height) {
        (0, _) | (_, 0) => "width=[2,8192,2],height=[2,8192,2]".to_owned(),
        (width, height) => format!("width={width},height={height}"),
    };
    let pipeline = format!(
        "decodebin ! videoflip video-direction=auto ! videoconvert ! videoscale ! video/x-raw,format=I420,{size} \
         ! {} ! gdppay crc-header=false",
        encode::encoder(spec)
    );
    let extracted = extract(footage, spec.codec, &pipeline, folder).map_err(|error| match error {
        ClipError::Encode { message, .. } => refused(footage, &message),
        other => other,
    })?;
    let (units, size) = extracted.ok_or_else(|| ClipError::NoVideo { path: footage.name() })?;
    write(spec.codec, &units, size, true, folder)
}

/// What GStreamer says about a file that it can make nothing of.
fn refused(footage: &Footage, stderr: &str) -> ClipError {
    // A demultiplexer says so when nobody takes any of its streams: there is no video among them.
    if stderr.contains("not-linked") {
        return ClipError::NoVideo { path: footage.name() };
    }
    let first = stderr.lines().find_map(|line| line.strip_prefix("ERROR: from element ")?.split_once(": "));
    let message = first.map_or(stderr, |(_, message)| message);
    ClipError::Footage { path: footage.name(), message: message.trim().to_owned() }
}

/// The pictures that `pipeline` makes of the file, and their size in pixels; `None` where they cannot be played so.
fn extract(
    footage: &Footage,
    codec: Codec,
    pipeline: &str,
    folder: &Path,
) -> Result<Option<Pictures>, ClipError> {
    let path = folder.join("footage.gdp");
    encode::launch(Some(&footage.path), pipeline, &path, |_| Ok(()))?;
    let size_bytes = fs::metadata(&path).map_err(failed(&path))?.len();
    if size_bytes > LARGEST_BYTES {
        return Err(ClipError::TooLarge { path: footage.name(), size_bytes, largest_bytes: LARGEST_BYTES });
    }
    let stream = Bytes::from(fs::read(&path).map_err(failed(&path))?);
    fs::remove_file(&path).map_err(failed(&path))?;
    let buffers = gdp::buffers(&stream).map_err(ClipError::Output)?;
    let size = gdp::size(&stream).map_err(ClipError::Output)?;
    Ok(units(codec, &stream, &buffers).zip(size))
}

/// From the first random access point on; `None` without one, or where the order of the pictures is not known.
fn units(codec: Codec, stream: &Bytes, buffers: &[Buffer]) -> Option<Vec<Unit>> {
    let timed = buffers.iter().all(|buffer| buffer.time_ns.is_some());
    let mut units = Vec::with_capacity(buffers.len());
    let mut counted_ns = 0;
    for buffer in buffers {
        let nal_units = picture(codec, &stream.slice(buffer.payload.clone()));
        if !nal_units.iter().any(|nal| annexb::is_vcl(codec, nal)) {
            continue;
        }
        if !timed && !annexb::in_order(codec, &nal_units) {
            return None;
        }
        let time_ns = buffer.time_ns.filter(|_| timed).unwrap_or(counted_ns);
        counted_ns += buffer.duration_ns.filter(|ns| *ns > 0).unwrap_or(USUAL_INTERVAL_NS);
        let random_access = nal_units.iter().any(|nal| annexb::is_random_access(codec, nal));
        units.push(Unit { time_ns, random_access, nal_units });
    }
    let first = units.iter().position(|unit| unit.random_access)?;
    units.drain(..first);
    // Pictures that are shown before it refer to what is not there.
    let begin_ns = units[0].time_ns;
    units.retain(|unit| unit.time_ns >= begin_ns);
    let has = |wanted: &u8| units[0].nal_units.iter().any(|nal| annexb::kind(codec, nal) == *wanted);
    annexb::PARAMETER_SETS[codec as usize].iter().all(has).then_some(units)
}

/// NAL units of one access unit, without delimiters, and each parameter set once.
fn picture(codec: Codec, payload: &Bytes) -> Vec<Bytes> {
    let mut kept: Vec<Bytes> = Vec::new();
    for nal in annexb::nal_units(payload) {
        let again = annexb::is_parameter_set(codec, &nal) && kept.contains(&nal);
        if !again && !annexb::is_delimiter(codec, &nal) {
            kept.push(nal);
        }
    }
    kept
}

fn write(
    codec: Codec,
    units: &[Unit],
    [width, height]: [u32; 2],
    encoded: bool,
    folder: &Path,
) -> Result<(), ClipError> {
    let times_ns: Vec<u64> = units.iter().map(|unit| unit.time_ns).collect();
    let (order, timing) = Timing::of_file(&times_ns);
    let mut video = Vec::new();
    let mut index: cache::Index = Vec::with_capacity(units.len());
    for (unit, place) in units.iter().zip(order) {
        let before = video.len();
        for nal in &unit.nal_units {
            video.extend([0, 0, 0, 1]);
            video.extend_from_slice(nal);
        }
        index.push((place, video.len() - before));
    }
    let facts = Facts { codec, width, height, encoded, timing };
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(failed(&path))
    };
    write(&cache::video_name(codec), &video)?;
    write(FACTS, &serde_json::to_vec(&facts).expect("numbers and names serialise"))?;
    write(cache::INDEX, &serde_json::to_vec(&index).expect("numbers serialise"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 1];
    const PPS: &[u8] = &[0x68, 1];
    const IDR: &[u8] = &[0x65, 0x88];
    /// first_mb_in_slice 0, slice_type 5 (P) and 6 (B).
    const P: &[u8] = &[0x41, 0b1001_1000];
    const B: &[u8] = &[0x01, 0b1001_1100];

    /// Pictures as a parser hands them on, at these times.
    fn of(pictures: &[(Option<u64>, &[&[u8]])]) -> Option<Vec<(u64, usize)>> {
        let mut stream = Vec::new();
        let mut buffers = Vec::new();
        for (time_ns, nals) in pictures {
            let start = stream.len();
            for nal in *nals {
                stream.extend([0, 0, 1]);
                stream.extend_from_slice(nal);
            }
            buffers.push(Buffer { time_ns: *time_ns, duration_ns: Some(10), payload: start..stream.len() });
        }
        let units = units(Codec::H264, &Bytes::from(stream), &buffers)?;
        Some(units.iter().map(|unit| (unit.time_ns, unit.nal_units.len())).collect())
    }

    #[test]
    fn a_clip_begins_at_the_first_random_access_point() {
        let aud: &[u8] = &[0x09, 0x10];
        let key: &[&[u8]] = &[SPS, PPS, aud, SPS, PPS, IDR];
        let found = of(&[(Some(0), &[P]), (Some(30), key), (Some(20), &[B]), (Some(40), &[aud, P])]);
        assert_eq!(found, Some(vec![(30, 3), (40, 1)]), "without delimiters, each parameter set once");
        assert_eq!(of(&[(Some(0), &[SPS, PPS, P])]), None, "no IDR picture");
        assert_eq!(of(&[(Some(0), &[IDR])]), None, "no parameter sets");
    }

    #[test]
    fn a_raw_stream_is_played_in_its_order_unless_that_is_not_known() {
        let key: &[&[u8]] = &[SPS, PPS, IDR];
        assert_eq!(of(&[(None, key), (None, &[P]), (None, &[P])]), Some(vec![(0, 3), (10, 1), (20, 1)]));
        assert_eq!(of(&[(None, key), (None, &[P]), (None, &[B])]), None);
    }
}
