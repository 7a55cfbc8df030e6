//! Figures of a worker: how long something takes, and how often it happens.
//!
//! Latencies go into a histogram with buckets of constant relative width (32 for each doubling), as in HdrHistogram:
//! a sample costs a few integer operations and no allocation, a percentile is within 1/64 of the true one, and
//! histograms of several cameras add up. The same arithmetic on any machine: no logarithm is taken.

use std::time::{Duration, Instant};

/// Buckets for each doubling.
const FINE: usize = 32;
const FINE_BITS: u32 = FINE.trailing_zeros();
/// Longest latency that is told apart: 2^31 microseconds, some 36 minutes. Longer ones count as this.
const LONGEST_BITS: u32 = 31;
/// Values below `FINE` microseconds have a bucket each; then come `FINE` for each doubling.
const BUCKETS: usize = FINE * (LONGEST_BITS - FINE_BITS + 1) as usize;

/// How often each latency occurred, to 1/64 of it or half a microsecond.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// 6.9 kB.
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    sum_us: u64,
    min_us: u64,
    max_us: u64,
}

/// A histogram in a few numbers. `mean`, `min` and `max` are exact to a microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub count: u64,
    pub mean: Duration,
    pub min: Duration,
    pub max: Duration,
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: Box::new([0; BUCKETS]), count: 0, sum_us: 0, min_us: u64::MAX, max_us: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min((1 << LONGEST_BITS) - 1);
        self.counts[bucket(us)] += 1;
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.min_us = self.min_us.min(us);
        self.max_us = self.max_us.max(us);
    }

    /// Adds the samples of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.sum_us, self.min_us, self.max_us) = (0, 0, u64::MAX, 0);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latency that `part` (0.0..=1.0) of the samples do not exceed; `None` without samples.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        // The rank of the sample, counted from 1, as in "nearest rank".
        let rank = (part.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0);
        let mut seen = 0;
        for (n, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= rank {
                return Some(Duration::from_micros(middle(n).clamp(self.min_us, self.max_us)));
            }
        }
        Some(Duration::from_micros(self.max_us))
    }

    /// `None` without samples.
    pub fn summary(&self) -> Option<Summary> {
        Some(Summary {
            count: self.count,
            mean: Duration::from_micros(self.sum_us.checked_div(self.count)?),
            min: Duration::from_micros(self.min_us),
            max: Duration::from_micros(self.max_us),
            p50: self.quantile(0.5)?,
            p95: self.quantile(0.95)?,
            p99: self.quantile(0.99)?,
        })
    }
}

fn bucket(us: u64) -> usize {
    if us < FINE as u64 {
        return index(us);
    }
    let doublings = us.ilog2() - FINE_BITS;
    // The highest FINE_BITS + 1 bits; the topmost is always set.
    index(us >> doublings) - FINE + FINE * (doublings as usize + 1)
}

#[expect(clippy::cast_possible_truncation, reason = "below 2 * FINE")]
fn index(small: u64) -> usize {
    small as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    if bucket < FINE {
        return bucket as u64;
    }
    let (doublings, place) = (bucket / FINE - 1, bucket % FINE);
    let first = ((FINE + place) as u64) << doublings;
    first + (1_u64 << doublings) / 2
}

/// Parts of the window; one more is being filled.
const SLICES: usize = 6;

/// Latencies since the start and over a sliding window, which moves on in sixths.
#[derive(Clone, Debug)]
pub struct Latencies {
    total: Histogram,
    slices: [Histogram; SLICES + 1],
    current: usize,
    /// When the current slice began, and the first sample of all came.
    began: Option<Instant>,
    first: Option<Instant>,
    slice: Duration,
}

impl Latencies {
    /// All memory is taken here: 55 kB. `window` is at least 6 milliseconds.
    pub fn new(window: Duration) -> Latencies {
        Latencies {
            total: Histogram::default(),
            slices: std::array::from_fn(|_| Histogram::default()),
            current: 0,
            began: None,
            first: None,
            slice: (window / 6).max(Duration::from_millis(1)),
        }
    }

    /// `now` should not run back; if it does, the sample counts as of the newest time.
    pub fn record(&mut self, now: Instant, latency: Duration) {
        self.first.get_or_insert(now);
        self.move_on(now);
        self.total.record(latency);
        self.slices[self.current].record(latency);
    }

    /// Since the start.
    pub fn total(&self) -> &Histogram {
        &self.total
    }

    /// Of the last window: between 6/6 and 7/6 of its length.
    pub fn window(&mut self, now: Instant) -> Histogram {
        self.move_on(now);
        let mut sum = Histogram::default();
        for slice in &self.slices {
            sum.merge(slice);
        }
        sum
    }

    /// Samples a second over the window, or since the first sample if that is shorter; 0 before it.
    pub fn per_second(&mut self, now: Instant) -> f64 {
        self.move_on(now);
        let (Some(first), Some(began)) = (self.first, self.began) else { return 0.0 };
        let count: u64 = self.slices.iter().map(Histogram::count).sum();
        let window = now.saturating_duration_since(began) + self.slice * 6;
        let since = window.min(now.saturating_duration_since(first));
        // A single sample says nothing about a rate, nor does an instant.
        if since < Duration::from_millis(1) { 0.0 } else { count as f64 / since.as_secs_f64() }
    }

    fn move_on(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_nanos() / self.slice.as_nanos();
        let Some(steps) = u32::try_from(passed).ok().filter(|steps| *steps as usize <= SLICES) else {
            self.slices.iter_mut().for_each(Histogram::clear);
            self.began = Some(now);
            return;
        };
        for _ in 0..steps {
            self.current = (self.current + 1) % self.slices.len();
            self.slices[self.current].clear();
        }
        self.began = Some(began + self.slice * steps);
    }
}

/// What a detection worker did.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Pictures that went through the detector, boxes found in them, pictures that failed.
    pub frames: u64,
    pub detections: u64,
    pub errors: u64,
    /// Pictures that were left out because newer ones were there.
    pub skipped: u64,
    /// Of the detector, for one picture.
    pub inference: Latencies,
    /// From the picture's producer timestamp until its result was handed to MQTT.
    pub to_mqtt: Latencies,
}

impl Figures {
    /// `window` is what the figures over a window are about.
    pub fn new(window: Duration) -> Figures {
        Figures {
            frames: 0,
            detections: 0,
            errors: 0,
            skipped: 0,
            inference: Latencies::new(window),
            to_mqtt: Latencies::new(window),
        }
    }

    /// A picture went through the detector, which took `inference` and found `detections` boxes.
    pub fn detected(&mut self, now: Instant, inference: Duration, detections: usize) {
        self.frames += 1;
        self.detections += detections as u64;
        self.inference.record(now, inference);
    }

    /// Pictures a second through the detector.
    pub fn fps(&mut self, now: Instant) -> f64 {
        self.inference.per_second(now)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "tests count from here")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn summary_of_known_samples() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.summary(), None);
        for n in 1..=20 {
            histogram.record(us(n));
        }
        let summary = histogram.summary().unwrap();
        let expected = Summary {
            count: 20,
            mean: us(10),
            min: us(1),
            max: us(20),
            p50: us(10),
            p95: us(19),
            p99: us(20),
        };
        assert_eq!(summary, expected);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.summary().unwrap().max, us((1 << 31) - 1));
        histogram.clear();
        assert_eq!(histogram.summary(), None);
    }

    #[test]
    fn buckets_join_without_holes() {
        let mut last = 0;
        for us in 0..100_000 {
            let now = bucket(us);
            assert!(now == last || now == last + 1, "{us}");
            last = now;
        }
        assert_eq!(bucket((1 << LONGEST_BITS) - 1), BUCKETS - 1);
    }

    #[test]
    fn window_forgets_and_total_does_not() {
        let t0 = epoch();
        let mut latencies = Latencies::new(Duration::from_secs(60));
        assert_eq!(latencies.window(t0).summary(), None);
        assert_eq!(latencies.per_second(t0), 0.0);
        for n in 0..1_200 {
            // 10 a second for two minutes; slow in the first one.
            let latency = if n < 600 { us(80_000) } else { us(5_000) };
            latencies.record(t0 + Duration::from_millis(n * 100), latency);
        }
        let end = t0 + Duration::from_secs(120);
        assert!((latencies.per_second(end) - 10.0).abs() < 0.1, "{}", latencies.per_second(end));
        let later = end + Duration::from_secs(11);
        assert_eq!(latencies.window(later).summary().unwrap().max, us(5_000));
        assert_eq!(latencies.total().summary().unwrap().max, us(80_000));
        assert_eq!(latencies.total().count(), 1_200);
        assert!(latencies.per_second(later) < 9.0, "none came for 11 s");
        let much_later = later + Duration::from_secs(100_000);
        assert_eq!((latencies.window(much_later).count(), latencies.per_second(much_later)), (0, 0.0));
        latencies.record(t0, us(1)); // time ran back
        assert_eq!(latencies.window(much_later).count(), 1);
    }

    #[test]
    fn rate_is_known_before_the_window_is_full() {
        let t0 = epoch();
        let mut figures = Figures::new(Duration::from_secs(60));
        for n in 0..50 {
            figures.detected(t0 + Duration::from_millis(n * 200), us(4_000), 2);
        }
        assert!((figures.fps(t0 + Duration::from_secs(10)) - 5.0).abs() < 0.01);
        assert_eq!((figures.frames, figures.detections), (50, 100));
    }

    proptest! {
        #[test]
        fn percentiles_are_within_two_percent_and_merging_is_recording(
            samples in proptest::collection::vec(0..2_000_000_000_u64, 1..300),
            split in 0..300_usize,
            part in 0.0..=1.0_f64,
        ) {
            let record = |samples: &[u64]| {
                let mut histogram = Histogram::default();
                samples.iter().for_each(|sample| histogram.record(us(*sample)));
                histogram
            };
            let whole = record(&samples);
            let (left, right) = samples.split_at(split.min(samples.len()));
            let mut merged = record(left);
            merged.merge(&record(right));
            prop_assert_eq!(whole.summary(), merged.summary());

            let mut sorted = samples.clone();
            sorted.sort_unstable();
            let rank = ((part * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1] as f64;
            let found = whole.quantile(part).unwrap().as_micros() as f64;
            prop_assert!((found - exact).abs() <= 0.5 + exact / 64.0, "{} {}", found, exact);
            let summary = whole.summary().unwrap();
            prop_assert_eq!(summary.min, us(sorted[0]));
            prop_assert_eq!(summary.max, us(*sorted.last().unwrap()));
            prop_assert_eq!(summary.mean, us(sorted.iter().sum::<u64>() / sorted.len() as u64));
        }
    }
}
