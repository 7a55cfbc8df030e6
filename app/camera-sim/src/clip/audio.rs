//! A voice-like signal, as AAC or as G.711.

use std::f64::consts::TAU;
use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::cache::failed;
use super::{Audio, ClipError, ClipSpec, encode};

/// Sound of one loop. Frames follow each other without a gap; the last one may end a little before the pictures do.
#[derive(Clone, Debug)]
pub struct AudioClip {
    pub codec: Audio,
    pub sample_rate: u32,
    pub samples_per_frame: u32,
    /// AAC: raw access units without ADTS header. PCMU: 20 ms of samples.
    pub frames: Vec<Bytes>,
    /// AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1); empty for PCMU.
    pub config: Bytes,
}

const AAC_RATE: u32 = 16_000;
const AAC_SAMPLES: u32 = 1024;
const PCMU_RATE: u32 = 8_000;
const PCMU_SAMPLES: u32 = 160;

fn file_name(audio: Audio) -> &'static str {
    if audio == Audio::Aac { "audio.aac" } else { "audio.ulaw" }
}

pub(super) fn make(spec: &ClipSpec, folder: &Path) -> Result<(), ClipError> {
    let path = folder.join(file_name(spec.audio));
    if spec.audio == Audio::Pcmu {
        let samples = signal(spec.seed, PCMU_RATE, PCMU_RATE * spec.loop_seconds);
        let bytes: Vec<u8> = samples.into_iter().map(mu_law).collect();
        return fs::write(&path, bytes).map_err(failed(&path));
    }
    let samples = signal(spec.seed, AAC_RATE, AAC_RATE * spec.loop_seconds);
    let bytes: Vec<u8> = samples.into_iter().flat_map(i16::to_le_bytes).collect();
    let pipeline = format!(
        "fdsrc fd=0 ! rawaudioparse use-sink-caps=false format=pcm pcm-format=s16le sample-rate={AAC_RATE} \
         num-channels=1 ! audioconvert ! avenc_aac bitrate=48000 ! aacparse \
         ! audio/mpeg,mpegversion=4,stream-format=adts"
    );
    encode::run(&pipeline, &path, |pipe| pipe.write_all(&bytes))
}

pub(super) fn read(spec: &ClipSpec, folder: &Path) -> Result<Option<AudioClip>, ClipError> {
    if spec.audio == Audio::None {
        return Ok(None);
    }
    let path = folder.join(file_name(spec.audio));
    let bytes = Bytes::from(fs::read(&path).map_err(failed(&path))?);
    let clip = if spec.audio == Audio::Aac {
        let (frames, config) = adts_frames(&bytes).map_err(ClipError::Output)?;
        AudioClip { codec: Audio::Aac, sample_rate: AAC_RATE, samples_per_frame: AAC_SAMPLES, frames, config }
    } else {
        let step = PCMU_SAMPLES as usize;
        let frames =
            (0..bytes.len() / step).map(|frame| bytes.slice(frame * step..(frame + 1) * step)).collect();
        let (sample_rate, samples_per_frame) = (PCMU_RATE, PCMU_SAMPLES);
        AudioClip { codec: Audio::Pcmu, sample_rate, samples_per_frame, frames, config: Bytes::new() }
    };
    if clip.frames.is_empty() {
        return Err(ClipError::Output(format!("{} holds no sound", path.display())));
    }
    Ok(Some(clip))
}

/// Access units and AudioSpecificConfig of an ADTS stream (ISO/IEC 14496-3 1.A.2.2).
fn adts_frames(stream: &Bytes) -> Result<(Vec<Bytes>, Bytes), String> {
    let mut frames = Vec::new();
    let mut config = Bytes::new();
    let mut at = 0;
    while at < stream.len() {
        let wrong = || format!("no ADTS header at byte {at}");
        let head: &[u8; 7] = stream[at..].first_chunk().ok_or_else(wrong)?;
        if head[0] != 0xff || head[1] & 0xf6 != 0xf0 {
            return Err(wrong());
        }
        let header = if head[1] & 1 == 1 { 7 } else { 9 };
        let length = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
        if length < header || at + length > stream.len() {
            return Err(format!(
                "ADTS frame at byte {at} claims {length} bytes, {} are left",
                stream.len() - at
            ));
        }
        // Object type is the profile plus one, then 4 bits of frequency index, 4 bits of channels.
        let (object, frequency) = ((head[2] >> 6) + 1, head[2] >> 2 & 0xf);
        let channels = (head[2] & 1) << 2 | head[3] >> 6;
        config = Bytes::from(vec![object << 3 | frequency >> 1, frequency << 7 | channels << 3]);
        frames.push(stream.slice(at + header..at + length));
        at += length;
    }
    Ok((frames, config))
}

/// Harmonics of a wandering pitch, shaped into syllables; a beep of 100 ms marks the start of the loop.
fn signal(seed: u64, rate: u32, samples: u32) -> Vec<i16> {
    let voice = 110.0 + (seed % 7) as f64 * 18.0;
    let mut phase = 0.0_f64;
    (0..samples)
        .map(|sample| {
            let t = f64::from(sample) / f64::from(rate);
            if t < 0.1 {
                return to_sample((TAU * 1000.0 * t).sin() * 0.4);
            }
            let pitch = voice * (1.0 + 0.12 * (TAU * 0.31 * t).sin() + 0.05 * (TAU * 1.7 * t).sin());
            phase += pitch / f64::from(rate);
            let syllable = (TAU * 2.1 * t).sin().max(0.0).sqrt() * (0.6 + 0.4 * (TAU * 0.23 * t).sin());
            let harmonics: f64 = (1..=12)
                .map(|n| {
                    let frequency = f64::from(n) * pitch;
                    let formant = |centre: f64, width: f64| (-((frequency - centre) / width).powi(2)).exp();
                    let weight = formant(520.0, 200.0) + 0.6 * formant(1400.0, 300.0) + 0.08;
                    weight * (TAU * f64::from(n) * phase).sin()
                })
                .sum();
            to_sample(harmonics * syllable * 0.18)
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of the target")]
fn to_sample(value: f64) -> i16 {
    (value * 32767.0).clamp(-32767.0, 32767.0) as i16
}

/// Linear 16 bits to mu-law (ITU-T G.711).
#[expect(clippy::cast_possible_truncation, reason = "four and three bits")]
fn mu_law(sample: i16) -> u8 {
    const BIAS: u16 = 0x84;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = sample.unsigned_abs().min(32635) + BIAS;
    // The bias puts the highest bit between 7 and 14.
    let exponent = 8 - magnitude.leading_zeros();
    let mantissa = (magnitude >> (exponent + 3) & 0xf) as u8;
    let exponent = exponent as u8;
    !(sign | exponent << 4 | mantissa)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mu_law_agrees_with_known_values_of_the_table() {
        for (linear, coded) in [
            (0, 0xff),
            (-1, 0x7f),
            (8, 0xfe),
            (132, 0xef),
            (1000, 0xce),
            (-1000, 0x4e),
            (32767, 0x80),
            (-32768, 0x00),
        ] {
            assert_eq!(mu_law(linear), coded, "{linear}");
        }
    }

    #[test]
    fn adts_headers_are_taken_off_and_described() {
        // AAC-LC, 16 kHz (index 8), mono, 7 + 2 bytes.
        let frame = [0xff, 0xf1, 0x60, 0x40, 0x01, 0x3f, 0xfc, 0xaa, 0xbb];
        let stream = Bytes::from([frame, frame].concat());
        let (frames, config) = adts_frames(&stream).unwrap();
        assert_eq!(frames, [&[0xaa, 0xbb][..], &[0xaa, 0xbb]]);
        assert_eq!(&config[..], [0x14, 0x08]);
        assert!(adts_frames(&stream.slice(..12)).unwrap_err().contains("byte 9"));
    }
}
