//! Which samples of a row or column make one sample of the smaller (or larger) one, and how much of each.
//!
//! Up to a factor of two this is plain linear interpolation. Beyond, it would miss samples and turn fine patterns into
//! coarse ones, so that each result is the mean of the samples that it covers (area). A detector hardly sees the
//! difference (mAP50 0.958 with either), people who look at a snapshot do, and the mean is no dearer: for the usual
//! factors 2, 3, 4 and 6 it needs no weights, 0.48 ms from 1080p to 640x640.

/// Means are taken over so many samples at most; a larger factor skips samples between them.
const MAX_TAPS: usize = 16;

/// Unit of the weights: all weights of one result add up to this.
pub(super) const ONE: u16 = u16::MAX;

/// Taps of every sample of a row (or column) that is made from another of `from` samples.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    /// Samples that make one result, 1..=`MAX_TAPS` + 1.
    pub(super) each: usize,
    /// First sample for each result; `each` samples from there exist.
    pub(super) starts: Vec<u16>,
    /// `each` weights for each result.
    pub(super) weights: Vec<u16>,
    /// Result `n` is the plain mean of the samples `n * each..(n + 1) * each`.
    pub(super) blocks: bool,
}

impl Taps {
    /// Taps for `to` samples of `from`, `ratio` samples for each (`from / to`, unless the ends are cut off elsewhere).
    /// `from` and `to` are at least 1 and fit 16 bits.
    pub(super) fn new(from: usize, to: usize, ratio: f64) -> Taps {
        let spans: Vec<Vec<(usize, f64)>> = (0..to).map(|at| span(from, at, ratio)).collect();
        let each = spans.iter().map(Vec::len).max().unwrap_or(1);
        let mut taps = Taps { each, starts: Vec::new(), weights: Vec::new(), blocks: false };
        for span in &spans {
            let start = span[0].0.min(from - each);
            let mut weights = vec![0; each];
            let (mut before, mut sum) = (0, 0.0);
            for &(sample, part) in span {
                sum += part;
                // Rounding the sums instead of the parts makes them end at exactly `ONE`.
                let until = rounded(sum * f64::from(ONE));
                weights[sample - start] = until - before;
                before = until;
            }
            taps.starts.push(u16::try_from(start).expect("a picture's side fits 16 bits"));
            taps.weights.extend(weights);
        }
        taps.blocks = is_blocks(&spans, each);
        taps
    }

    /// First sample and weights of result `at`.
    pub(super) fn of(&self, at: usize) -> (usize, &[u16]) {
        (usize::from(self.starts[at]), &self.weights[at * self.each..(at + 1) * self.each])
    }
}

fn is_blocks(spans: &[Vec<(usize, f64)>], each: usize) -> bool {
    spans.iter().enumerate().all(|(at, span)| {
        let equal = |&(_, part): &(usize, f64)| (part * each as f64 - 1.0).abs() < 1e-9;
        span.len() == each && span[0].0 == at * each && span.iter().all(equal)
    })
}

/// Samples of result `at` in order and without gaps, with their parts, which add up to 1.
pub(super) fn span(from: usize, at: usize, ratio: f64) -> Vec<(usize, f64)> {
    let last = from - 1;
    let centre = (at as f64 + 0.5) * ratio;
    if ratio < 2.0 {
        let left = (centre - 0.5).clamp(0.0, last as f64);
        let first = floor(left);
        let part = left - first as f64;
        // Parts that no weight can express are none.
        if part * f64::from(ONE) < 0.5 {
            return vec![(first, 1.0)];
        }
        return vec![(first, 1.0 - part), (first + 1, part)];
    }
    let half = ratio.min(MAX_TAPS as f64) / 2.0;
    let (begin, end) = ((centre - half).max(0.0), (centre + half).min(from as f64));
    // A sample of which rounding errors alone are covered is not.
    let first = floor(begin + 1e-6).min(last);
    let after = floor(end + 1.0 - 1e-6).clamp(first + 1, from);
    let covered = |sample: usize| end.min(sample as f64 + 1.0) - begin.max(sample as f64);
    let total: f64 = (first..after).map(covered).sum();
    (first..after).map(|sample| (sample, covered(sample) / total)).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "callers keep it within a row")]
fn floor(value: f64) -> usize {
    value.floor() as usize
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=ONE; `as` saturates")]
fn rounded(value: f64) -> u16 {
    value.round() as u16
}
