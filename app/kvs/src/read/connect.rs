//! The sound of Amazon Connect: both sides of a call as two tracks of a stream.
//!
//! ```text
//!  Document --contents--> Contents --Recordings::take--> Piece { recording, side, samples } ...
//!                                    whose call, since when
//! ```
//!
//! What its streams are like (captures, and reports of others), and what follows for a reader:
//! * **Tracks are told apart by their names alone.** Their order changes from stream to stream, and the tags that carry the same
//!   names have constant values, which are no track numbers.
//! * CodecID says AAC; the payload is PCM, 16 bit, little endian. Rate and channels stand in the `MimeType` tag only
//!   (`audio/L16;rate=8000;channels=1;`).
//! * Blocks are mostly of 1024 bytes, and sometimes of others: each begins a sample, and what is left of a block behind its last
//!   whole sample is no sound.
//! * One stream serves many calls, one after the other; `ContactId` says whose a fragment is. Fragments without it go on with
//!   the call before. It may stand behind the cluster: there it is meant for the fragment that follows.

use std::collections::BTreeMap;

use super::chunk::Block;
use super::contents::Contents;

/// What the customer says.
pub const FROM_CUSTOMER: &str = "AUDIO_FROM_CUSTOMER";
/// What the customer hears.
pub const TO_CUSTOMER: &str = "AUDIO_TO_CUSTOMER";
const CONTACT_ID: &str = "ContactId";
const MIME_TYPE: &str = "MimeType";
/// Bytes of a sample of one channel.
const SAMPLE_BYTES: u16 = 2;
/// Id, size and format of a WAV file with PCM, up to the first sample.
pub const WAV_HEADER_BYTES: usize = 44;
/// A call that went silent for so long is over, even where no other one is named.
const SILENCE_MS: i64 = 600_000;

/// Samples of 16 bits, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcmFormat {
    /// Hz.
    pub sample_rate: u32,
    pub channels: u16,
}

/// As Amazon Connect records.
impl Default for PcmFormat {
    fn default() -> Self {
        Self { sample_rate: 8_000, channels: 1 }
    }
}

impl PcmFormat {
    /// Reads `audio/L16;rate=8000;channels=1;`. `None` for anything but 16-bit PCM; what it does not say is as by default.
    pub fn parse_mime(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("audio/L16") {
            return None;
        }
        let mut format = Self::default();
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim() {
                "rate" => format.sample_rate = value.trim().parse().ok().filter(|rate| *rate > 0)?,
                "channels" => format.channels = value.trim().parse().ok().filter(|count| *count > 0)?,
                _ => {}
            }
        }
        Some(format)
    }

    /// Of one sample of all channels.
    fn frame_bytes(self) -> u16 {
        self.channels.saturating_mul(SAMPLE_BYTES)
    }

    /// How many bytes last so long, in whole samples.
    fn bytes_in(self, ms: i64) -> u64 {
        let ms = u64::try_from(ms).unwrap_or(0);
        (ms * u64::from(self.sample_rate) / 1_000).saturating_mul(self.frame_bytes().into())
    }

    /// What stands in front of so many bytes of samples in a WAV file; `None` for a pipe, whose length nobody knows.
    pub fn wav_header(self, data_bytes: Option<u32>) -> [u8; WAV_HEADER_BYTES] {
        let data = data_bytes.unwrap_or(u32::MAX);
        let byte_rate = self.sample_rate.saturating_mul(self.frame_bytes().into());
        let mut header = [0; WAV_HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            header[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(b"RIFF");
        put(&data.saturating_add(36).to_le_bytes());
        put(b"WAVEfmt ");
        put(&16_u32.to_le_bytes());
        put(&1_u16.to_le_bytes()); // PCM
        put(&self.channels.to_le_bytes());
        put(&self.sample_rate.to_le_bytes());
        put(&byte_rate.to_le_bytes());
        put(&self.frame_bytes().to_le_bytes());
        put(&(SAMPLE_BYTES * 8).to_le_bytes());
        put(b"data");
        put(&data.to_le_bytes());
        header
    }

    /// A whole WAV file. Samples beyond 4 GiB, which such a file cannot have, are left out.
    pub fn wav(self, samples: &[u8]) -> Vec<u8> {
        let most = u32::MAX - 36 - u32::from(self.frame_bytes());
        let count = u32::try_from(samples.len()).unwrap_or(u32::MAX).min(most);
        let mut file = self.wav_header(Some(count)).to_vec();
        file.extend(&samples[..count as usize]);
        file
    }

    /// The whole samples of a block.
    fn samples(self, block: &Block) -> &[u8] {
        let whole = block.payload.len() - block.payload.len() % usize::from(self.frame_bytes().max(1));
        &block.payload[..whole]
    }
}

impl Contents {
    /// Rate and channels as the fragment's own tags say, or as Amazon Connect records.
    pub fn pcm_format(&self) -> PcmFormat {
        self.said_format().unwrap_or_default()
    }

    fn said_format(&self) -> Option<PcmFormat> {
        let tags = self.tags_before.iter().chain(&self.tags_behind);
        let mut said = tags.filter(|(name, _)| name == MIME_TYPE);
        said.find_map(|(_, value)| PcmFormat::parse_mime(value))
    }

    /// All samples of the track with this name, joined; `None` if there is no such track. A track without a block is empty.
    pub fn pcm(&self, track: &str) -> Option<Vec<u8>> {
        let number = self.track_number(track)?;
        let format = self.pcm_format();
        Some(self.blocks_of(number).flat_map(|block| format.samples(block)).copied().collect())
    }

    /// The track with this name as a WAV file.
    pub fn wav(&self, track: &str) -> Option<Vec<u8>> {
        Some(self.pcm_format().wav(&self.pcm(track)?))
    }

    fn contact(tags: &[(String, String)]) -> Option<String> {
        let found = tags.iter().rfind(|(name, value)| name == CONTACT_ID && !value.is_empty());
        found.map(|(_, value)| value.clone())
    }
}

/// One call as it was recorded: a stretch of fragments of one contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// `None`: no fragment has said it.
    pub contact: Option<String>,
    /// Of its first block, in producer time.
    pub begins_ms: i64,
    pub format: PcmFormat,
}

/// Samples of one side of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub recording: Recording,
    /// Name of the track.
    pub track: String,
    /// Silence in front of the samples, in bytes: whole samples of zeros.
    pub silence_bytes: u64,
    pub samples: Vec<u8>,
}

/// How sounds with time between them follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gaps {
    /// Silence stands where nothing was recorded: both sides of a call stay in step.
    #[default]
    Silence,
    /// Joined, as AWS's consumer library does.
    Joined,
}

/// Sorts the sound of fragments, which come in order, by calls.
#[derive(Debug)]
pub struct Recordings {
    gaps: Gaps,
    /// Named behind the cluster that came last.
    announced: Option<String>,
    current: Option<Recording>,
    /// Time behind the newest block.
    ends_ms: i64,
    /// Bytes of each track of the current recording so far.
    written: BTreeMap<String, u64>,
}

impl Recordings {
    pub fn new(gaps: Gaps) -> Self {
        Self { gaps, announced: None, current: None, ends_ms: 0, written: BTreeMap::new() }
    }

    /// The sound of the tracks with these names, in pieces of at least one sample. A fragment that has none of them changes
    /// nothing. Times go back only where another call begins.
    pub fn take(&mut self, contents: &Contents, tracks: &[&str]) -> Vec<Piece> {
        let announced = std::mem::replace(&mut self.announced, Contents::contact(&contents.tags_behind));
        let numbers: Vec<(&str, u64)> =
            tracks.iter().filter_map(|name| Some((*name, contents.track_number(name)?))).collect();
        let times = |block: &&Block| numbers.iter().any(|(_, number)| *number == block.track);
        let Some(begins_ms) = contents.blocks.iter().filter(times).map(|block| block.time_ms).min() else {
            return Vec::new();
        };
        let before = self.current.as_ref();
        let named = Contents::contact(&contents.tags_before).or(announced);
        let goes_on = before.is_some_and(|before| {
            let same = named.is_none() || before.contact.is_none() || named == before.contact;
            let format = contents.said_format().is_none_or(|said| said == before.format);
            // Of both sides, one may be a little behind.
            same && format && (self.ends_ms - SILENCE_MS..self.ends_ms + SILENCE_MS).contains(&begins_ms)
        });
        if !goes_on {
            let contact = named.or_else(|| before.and_then(|before| before.contact.clone()));
            // The first fragment that is read may have its name behind it only.
            let contact = contact.or_else(|| self.announced.clone());
            let format = contents.said_format().or(before.map(|before| before.format)).unwrap_or_default();
            self.current = Some(Recording { contact, begins_ms, format });
            self.written.clear();
            self.ends_ms = begins_ms;
        }
        let Some(recording) = self.current.clone() else { return Vec::new() };
        let format = recording.format;
        let mut pieces = Vec::new();
        for (name, number) in numbers {
            let written = self.written.entry(name.to_owned()).or_default();
            for block in contents.blocks_of(number) {
                let samples = format.samples(block);
                if samples.is_empty() {
                    continue;
                }
                let place = match self.gaps {
                    Gaps::Silence => {
                        format.bytes_in(block.time_ms.saturating_sub(recording.begins_ms)).max(*written)
                    }
                    Gaps::Joined => *written,
                };
                let silence_bytes = place - *written;
                *written = place + samples.len() as u64;
                self.ends_ms = self.ends_ms.max(block.time_ms);
                match pieces.last_mut() {
                    Some(Piece { track, samples: before, .. }) if track == name && silence_bytes == 0 => {
                        before.extend_from_slice(samples);
                    }
                    _ => pieces.push(Piece {
                        recording: recording.clone(),
                        track: name.to_owned(),
                        silence_bytes,
                        samples: samples.to_vec(),
                    }),
                }
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use media::mkv::elements::TrackInfo;

    use super::*;

    const T0: i64 = 1_795_186_073_000;
    const BOTH: [&str; 2] = [FROM_CUSTOMER, TO_CUSTOMER];

    fn track(number: u64, name: &str) -> TrackInfo {
        TrackInfo {
            number,
            uid: number,
            kind: 2,
            name: name.to_owned(),
            codec_id: "A_AAC".to_owned(),
            codec_private: Bytes::from_static(&[0x11, 0x90]),
            width: 0,
            height: 0,
            sample_rate: 0.0,
            channels: 0,
        }
    }

    fn tags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// FROM is track 1. Blocks: track, ms behind `T0`, bytes of this letter.
    fn fragment(
        before: &[(&str, &str)],
        behind: &[(&str, &str)],
        blocks: &[(u64, i64, usize, u8)],
    ) -> Contents {
        let blocks = blocks.iter().map(|&(track, ms, length, letter)| Block {
            track,
            cluster_ms: 0,
            time_ms: T0 + ms,
            key_frame: true,
            payload: vec![letter; length].into(),
        });
        Contents {
            tracks: Arc::new(vec![track(1, FROM_CUSTOMER), track(2, TO_CUSTOMER)]),
            tags_before: tags(before),
            tags_behind: tags(behind),
            blocks: blocks.collect(),
        }
    }

    fn swapped(contents: Contents) -> Contents {
        let tracks = Arc::new(vec![track(1, TO_CUSTOMER), track(2, FROM_CUSTOMER)]);
        Contents { tracks, ..contents }
    }

    /// Each piece as contact, side, silence, and the letters that it has.
    fn told(pieces: Vec<Piece>) -> Vec<String> {
        pieces
            .into_iter()
            .map(|piece| {
                let side = if piece.track == FROM_CUSTOMER { "from" } else { "to" };
                let contact = piece.recording.contact.unwrap_or("?".to_owned());
                let mut letters = String::new();
                for chunk in piece.samples.chunk_by(|one, other| one == other) {
                    letters += &format!("{}{}", chunk.len(), char::from(chunk[0]));
                }
                format!("{contact} {side} {}+{letters}", piece.silence_bytes)
            })
            .collect()
    }

    #[test]
    fn sides_are_told_by_name_whatever_their_order_and_their_tags_say() {
        let blocks = [(1, 0, 1024, b'a'), (2, 0, 1024, b'b'), (1, 64, 1024, b'c')];
        let lies = [("ContactId", "x"), (FROM_CUSTOMER, "2"), (TO_CUSTOMER, "1")];
        let mut recordings = Recordings::new(Gaps::Silence);
        assert_eq!(
            told(recordings.take(&fragment(&lies, &[], &blocks), &BOTH)),
            ["x from 0+1024a1024c", "x to 0+1024b"]
        );
        let mut recordings = Recordings::new(Gaps::Silence);
        let other = swapped(fragment(&lies, &[], &blocks));
        assert_eq!(told(recordings.take(&other, &BOTH)), ["x from 0+1024b", "x to 0+1024a1024c"]);
        assert_eq!(other.pcm(FROM_CUSTOMER), Some(vec![b'b'; 1024]));
        assert_eq!(other.pcm("AUDIO_OF_NOBODY"), None);
        assert_eq!(told(recordings.take(&other, &["AUDIO_OF_NOBODY"])), [""; 0]);
    }

    #[test]
    fn odd_blocks_shift_no_sample() {
        // 12 ms in a place for 64 ms, then a block that ends inside a sample.
        let blocks = [(1, 0, 1024, b'a'), (1, 64, 192, b'b'), (1, 128, 1023, b'c'), (1, 192, 1024, b'd')];
        let contents = fragment(&[], &[], &blocks);
        let pieces = Recordings::new(Gaps::Silence).take(&contents, &BOTH);
        assert_eq!(told(pieces), ["? from 0+1024a192b", "? from 832+1022c", "? from 2+1024d"]);
        let pieces = Recordings::new(Gaps::Joined).take(&contents, &BOTH);
        assert_eq!(told(pieces), ["? from 0+1024a192b1022c1024d"]);
        assert_eq!(contents.pcm(FROM_CUSTOMER).map(|samples| samples.len()), Some(1024 + 192 + 1022 + 1024));
        let nothing = fragment(&[], &[], &[(1, 0, 1, b'a'), (2, 0, 0, b'b')]);
        assert_eq!(told(Recordings::new(Gaps::Silence).take(&nothing, &BOTH)), [""; 0]);
    }

    #[test]
    fn a_stream_that_is_used_again_is_sorted_by_contact() {
        let mut recordings = Recordings::new(Gaps::Silence);
        let mut take = |before: &[(&str, &str)], behind: &[(&str, &str)], ms| {
            told(recordings.take(&fragment(before, behind, &[(1, ms, 1024, b'a')]), &BOTH))
        };
        // A name behind the cluster is that of the next fragment, but for the first one, which has no other.
        assert_eq!(take(&[], &[("ContactId", "one")], 0), ["one from 0+1024a"]);
        assert_eq!(take(&[], &[("ContactId", "one")], 1_024), [format!("one from {}+1024a", 960 * 16)]);
        assert_eq!(take(&[("ContactId", "one")], &[("ContactId", "two")], 2_048).len(), 1);
        assert_eq!(take(&[], &[], 3_072), ["two from 0+1024a"]);
        // Without tags, and with only some of them, the call goes on.
        assert_eq!(take(&[("MimeType", "audio/L16;rate=8000;channels=1;")], &[], 4_096).len(), 1);
        assert_eq!(take(&[("ContactId", "three")], &[], 5_120), ["three from 0+1024a"]);
        // The same contact, much later, is another recording: nothing is filled up.
        assert_eq!(take(&[("ContactId", "three")], &[], 5_120 + SILENCE_MS), ["three from 0+1024a"]);
    }

    #[test]
    fn the_mime_type_says_rate_and_channels() {
        for (text, expected) in [
            ("audio/L16;rate=8000;channels=1;", Some((8_000, 1))),
            ("audio/l16; rate=16000; channels=2", Some((16_000, 2))),
            ("audio/L16", Some((8_000, 1))),
            ("audio/L16;rate=0", None),
            ("audio/aac;rate=8000", None),
            ("", None),
        ] {
            let expected = expected.map(|(sample_rate, channels)| PcmFormat { sample_rate, channels });
            assert_eq!(PcmFormat::parse_mime(text), expected, "{text}");
        }
        let contents = fragment(&[("MimeType", "audio/L16;rate=16000;channels=2")], &[], &[(1, 0, 9, b'a')]);
        let wav = contents.wav(FROM_CUSTOMER).expect("there");
        // Two whole samples of four bytes.
        assert_eq!((wav.len(), &wav[..4], &wav[8..16]), (44 + 8, &b"RIFF"[..], &b"WAVEfmt "[..]));
        assert_eq!(&wav[4..8], &44_u32.to_le_bytes());
        assert_eq!((&wav[20..24], &wav[24..28]), (&[1, 0, 2, 0][..], &16_000_u32.to_le_bytes()[..]));
        assert_eq!((&wav[28..32], &wav[32..36]), (&64_000_u32.to_le_bytes()[..], &[4, 0, 16, 0][..]));
        assert_eq!((&wav[36..40], &wav[40..44]), (&b"data"[..], &8_u32.to_le_bytes()[..]));
    }
}
