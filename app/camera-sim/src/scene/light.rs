//! Light that changes and a sensor that is not perfect: gain per column, colour cast, luma and chroma noise.

use super::canvas::Picture420;
use super::number::{Random, mix, sin_turns};

/// Entries of a noise table beyond the widest row.
const NOISE_SPREAD: usize = 1 << 15;

pub(crate) struct Light {
    gain: f32,
    swing: f32,
    phase: f32,
    /// How much of the light a passing cloud takes away.
    cloud: f32,
    cast: (i16, i16),
    luma_noise: Vec<i8>,
    chroma_noise: Vec<i8>,
    seed: u64,
}

impl Light {
    pub(crate) fn new(width: usize, seed: u64) -> Light {
        let mut random = Random::new(seed, 3);
        let mut table = |deviation: f32| -> Vec<i8> {
            (0..width + NOISE_SPREAD)
                .map(|_| (random.normal() * deviation).clamp(-60.0, 60.0) as i8)
                .collect()
        };
        let deviation = 1.4 + (mix(seed) % 100) as f32 * 0.022;
        let (luma_noise, chroma_noise) = (table(deviation), table(deviation * 0.6));
        Light {
            gain: random.between(0.72, 1.08),
            swing: random.between(0.03, 0.12),
            phase: random.unit(),
            cloud: random.between(0.0, 0.3),
            cast: (random.between(-5.0, 5.0) as i16, random.between(-4.0, 4.0) as i16),
            luma_noise,
            chroma_noise,
            seed,
        }
    }

    /// Applies the light of the moment `turn` (0.0..1.0 within the loop) and the noise of frame `index`.
    pub(crate) fn apply(&self, picture: &mut Picture420, index: u32, turn: f32) {
        let width = picture.width();
        let gains = self.gains(width, turn);
        let mut random = Random::new(self.seed, 1000 + u64::from(index));
        let (luma, u, v) = picture.planes_mut();
        for row in luma.chunks_exact_mut(width) {
            let at = random.next_u64() as usize % NOISE_SPREAD;
            for ((value, gain), noise) in row.iter_mut().zip(&gains).zip(&self.luma_noise[at..at + width]) {
                // 8 bits times a gain with 7 fractional bits fits 16 bits, which the compiler can do 16 at a time.
                let lit = (u16::from(*value) * gain) >> 7;
                *value = (lit as i16 + i16::from(*noise)).clamp(16, 235) as u8;
            }
        }
        for (plane, cast) in [(u, self.cast.0), (v, self.cast.1)] {
            for row in plane.chunks_exact_mut(width / 2) {
                let at = random.next_u64() as usize % NOISE_SPREAD;
                for (value, noise) in row.iter_mut().zip(&self.chroma_noise[at..]) {
                    *value = (i16::from(*value) + cast + i16::from(*noise)).clamp(16, 240) as u8;
                }
            }
        }
    }

    /// Gain of each column with 7 fractional bits: the light of the whole picture, and a cloud's shadow that
    /// crosses it once per loop.
    fn gains(&self, width: usize, turn: f32) -> Vec<u16> {
        let all = self.gain * (1.0 + self.swing * sin_turns(turn + self.phase));
        let shadow_at = turn * 2.4 - 0.7;
        (0..width)
            .map(|x| {
                let distance = (x as f32 / width as f32 - shadow_at).abs() / 0.35;
                let covered = (1.0 - distance * distance).max(0.0) * self.cloud;
                ((all * (1.0 - covered)) * 128.0).clamp(0.0, 255.0) as u16
            })
            .collect()
    }
}
