//! Samples as columns, bounded however long the run is.
//!
//! Past [`MOST`] rows neighbours become one, and from then on each row stands for twice as many samples as before. Ends
//! and mean are kept apart from the rows, so they stay exact.

use serde::ser::{Serialize, SerializeMap, Serializer};

use messages::rounded;

/// Rows that are kept; even. At one sample a second the first 5.5 hours are whole.
const MOST: usize = 20_000;

/// What several samples of a column become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    Mean,
    /// The largest: what must stay below a limit.
    Peak,
}

/// One column: its name with the unit, and what becomes of neighbours.
pub(crate) type Column = (&'static str, Merge);

/// Rows of a time and `N` values, each of which may be missing.
#[derive(Clone, Debug)]
pub(crate) struct Series<const N: usize> {
    columns: [Column; N],
    rows: Vec<Row<N>>,
    /// Samples not yet in a row, fewer than `stride`.
    pending: Vec<Row<N>>,
    /// Samples that one row stands for.
    stride: usize,
    most: usize,
    totals: [Totals; N],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row<const N: usize> {
    /// Seconds since the start of the bench, of the last sample in the row.
    pub(crate) at_s: f64,
    pub(crate) values: [Option<f64>; N],
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

/// What became of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Summary {
    pub(crate) samples: u64,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Nearest rank, over the rows.
    pub(crate) p95: f64,
}

impl<const N: usize> Series<N> {
    pub(crate) fn new(columns: [Column; N]) -> Series<N> {
        Series {
            columns,
            rows: Vec::new(),
            pending: Vec::new(),
            stride: 1,
            most: MOST,
            totals: [Totals::default(); N],
        }
    }

    /// Values that are not finite count as missing.
    pub(crate) fn push(&mut self, at_s: f64, values: [Option<f64>; N]) {
        let values = values.map(|value| value.filter(|value| value.is_finite()));
        for (totals, value) in self.totals.iter_mut().zip(values) {
            totals.add(value);
        }
        self.pending.push(Row { at_s, values });
        if self.pending.len() < self.stride {
            return;
        }
        self.rows.extend(merged(&self.columns, &self.pending));
        self.pending.clear();
        if self.rows.len() >= self.most {
            self.rows = self.rows.chunks(2).filter_map(|rows| merged(&self.columns, rows)).collect();
            self.stride *= 2;
        }
    }

    /// All rows; the last one may stand for fewer samples than the others.
    pub(crate) fn rows(&self) -> Vec<Row<N>> {
        self.rows.iter().copied().chain(merged(&self.columns, &self.pending)).collect()
    }

    pub(crate) fn newest(&self) -> Option<Row<N>> {
        self.pending.last().or(self.rows.last()).copied()
    }

    /// At most `most` rows, for a picture.
    pub(crate) fn thinned(&self, most: usize) -> Vec<Row<N>> {
        let rows = self.rows();
        let each = rows.len().div_ceil(most.max(1)).max(1);
        rows.chunks(each).filter_map(|rows| merged(&self.columns, rows)).collect()
    }

    /// `None` for a column without any value.
    pub(crate) fn summary(&self, column: usize) -> Option<Summary> {
        let totals = self.totals[column];
        let mut values: Vec<f64> = self.rows().iter().filter_map(|row| row.values[column]).collect();
        let p95 = percentile(&mut values, 95)?;
        #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
        let mean = totals.sum / totals.count as f64;
        let [mean, min, max, p95] = [mean, totals.min, totals.max, p95].map(rounded);
        Some(Summary { samples: totals.count, mean, min, max, p95 })
    }
}

impl Totals {
    fn add(&mut self, value: Option<f64>) {
        let Some(value) = value else { return };
        (self.min, self.max) =
            if self.count == 0 { (value, value) } else { (self.min.min(value), self.max.max(value)) };
        self.sum += value;
        self.count += 1;
    }
}

fn merged<const N: usize>(columns: &[Column; N], rows: &[Row<N>]) -> Option<Row<N>> {
    let at_s = rows.last()?.at_s;
    let values = std::array::from_fn(|column| {
        let values = rows.iter().filter_map(|row| row.values[column]);
        match columns[column].1 {
            Merge::Peak => values.reduce(f64::max),
            Merge::Mean => {
                let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
                (count > 0).then(|| sum / f64::from(count))
            }
        }
    });
    Some(Row { at_s, values })
}

/// Nearest rank; sorts `values`. `None` when there are none.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get((values.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

/// As columns of equal length; a missing value is null. Columns without any value are left out.
impl<const N: usize> Serialize for Series<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.rows();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("samples_per_row", &self.stride)?;
        map.serialize_entry("t_s", &rows.iter().map(|row| rounded(row.at_s)).collect::<Vec<_>>())?;
        for (column, (name, _)) in self.columns.iter().enumerate() {
            if self.totals[column].count > 0 {
                let values: Vec<_> = rows.iter().map(|row| row.values[column].map(rounded)).collect();
                map.serialize_entry(name, &values)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 2] = [("load", Merge::Mean), ("peak", Merge::Peak)];

    #[test]
    fn percentiles_are_nearest_rank() {
        let check = |values: &[f64], percent, expected| {
            assert_eq!(percentile(&mut values.to_vec(), percent), expected, "{values:?}");
        };
        check(&[], 95, None);
        check(&[7.0], 95, Some(7.0));
        check(&[4.0, 1.0, 3.0, 2.0], 50, Some(2.0));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        check(&hundred, 95, Some(95.0));
        check(&hundred, 100, Some(100.0));
    }

    #[test]
    fn summary_counts_what_is_there() {
        let mut series = Series::new(COLUMNS);
        assert_eq!(series.summary(0), None);
        for (at, value) in [(0.0, None), (1.0, Some(1.0)), (2.0, Some(f64::NAN)), (3.0, Some(4.0))] {
            series.push(at, [value, None]);
        }
        let expected = Summary { samples: 2, mean: 2.5, min: 1.0, max: 4.0, p95: 4.0 };
        assert_eq!(series.summary(0), Some(expected));
        assert_eq!(series.summary(1), None);
        let json = serde_json::to_string(&series).expect("serialises");
        assert_eq!(json, r#"{"samples_per_row":1,"t_s":[0.0,1.0,2.0,3.0],"load":[null,1.0,null,4.0]}"#);
    }

    #[test]
    fn a_long_run_stays_bounded_and_keeps_its_ends() {
        let mut series = Series::new(COLUMNS);
        series.most = 8;
        for second in 0..1000 {
            let value = Some(f64::from(second));
            series.push(f64::from(second), [value, value]);
            assert!(series.rows.len() < 8 && series.pending.len() <= series.stride);
        }
        let summary = series.summary(1).expect("values");
        assert_eq!((summary.samples, summary.mean, summary.min, summary.max), (1000, 499.5, 0.0, 999.0));
        let rows = series.rows();
        assert_eq!(series.stride, 128);
        assert_eq!(rows.last().map(|row| row.at_s), Some(999.0));
        // Mean and largest of 0..=127.
        assert_eq!(rows[0], Row { at_s: 127.0, values: [Some(63.5), Some(127.0)] });
        let thin = series.thinned(2);
        assert!(thin.len() <= 2, "{thin:?}");
        assert_eq!(thin.last().and_then(|row| row.values[1]), Some(999.0));
    }
}
