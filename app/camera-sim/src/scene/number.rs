//! Repeatable numbers: the same on every machine, whatever its maths library or a crate's next version does.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and its sequence will never change under us.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, purpose: u64) -> Random {
        Random(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in 0.0..1.0.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1 << 24) as f32
    }

    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next_u64() % from.len() as u64) as usize]
    }

    /// Near enough to a normal distribution with mean 0 and deviation 1: twelve uniform numbers.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

/// A well mixed function of 64 bits.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Cheap per-pixel hash for grain.
pub(crate) fn grain(x: i32, y: i32, salt: u32) -> u32 {
    let mut h = (x as u32).wrapping_mul(0x85eb_ca6b) ^ (y as u32).wrapping_mul(0xc2b2_ae35) ^ salt;
    h ^= h >> 15;
    h = h.wrapping_mul(0x2c1b_3c6d);
    h ^ (h >> 13)
}

/// Sine of an angle in turns; a refined parabola, within 0.0011 of the true value.
pub(crate) fn sin_turns(turns: f32) -> f32 {
    let x = turns - turns.floor();
    let (x, sign) = if x < 0.5 { (x, 1.0) } else { (x - 0.5, -1.0) };
    let parabola = 16.0 * x * (0.5 - x);
    sign * (0.225 * (parabola * parabola - parabola) + parabola)
}

pub(crate) fn cos_turns(turns: f32) -> f32 {
    sin_turns(turns + 0.25)
}

/// Value noise in 0.0..1.0 with smooth interpolation between lattice points.
fn value_noise(x: f32, y: f32, salt: u32) -> f32 {
    let (xf, yf) = (x.floor(), y.floor());
    let (xi, yi) = (xf as i32, yf as i32);
    let at = |dx: i32, dy: i32| (grain(xi + dx, yi + dy, salt) & 0xffff) as f32 / 65535.0;
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (ease(x - xf), ease(y - yf));
    let top = at(0, 0) + (at(1, 0) - at(0, 0)) * tx;
    let bottom = at(0, 1) + (at(1, 1) - at(0, 1)) * tx;
    top + (bottom - top) * ty
}

/// Fractal noise of four octaves in 0.0..1.0.
pub(crate) fn fractal_noise(x: f32, y: f32, salt: u32) -> f32 {
    let mut sum = 0.0;
    let mut weight = 0.5333;
    let mut frequency = 1.0;
    for octave in 0..4 {
        sum += weight * value_noise(x * frequency, y * frequency, salt.wrapping_add(octave * 7919));
        weight *= 0.5;
        frequency *= 2.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_is_close_to_the_library_one() {
        for step in -200..200_i16 {
            let turns = f32::from(step) / 64.0;
            let exact = (f64::from(turns) * std::f64::consts::TAU).sin();
            assert!((f64::from(sin_turns(turns)) - exact).abs() < 0.0015, "at {turns} turns");
        }
    }

    #[test]
    fn noise_stays_within_its_range() {
        for step in 0..5000_i16 {
            let value = fractal_noise(f32::from(step) * 0.37, f32::from(step) * -0.11, 5);
            assert!((0.0..=1.0).contains(&value));
        }
    }
}
