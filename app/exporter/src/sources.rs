//! Sources of KVS streams under the names that dashboards have: `kvs_hls_...`, `kvs_getmedia_...`, each labelled `camera_id`.

use std::fmt;

use kvs_client::source::{SourceFigures, SourceMode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Asks for the figures of all sources at each scrape.
pub struct Sources<F>(F);

impl<F> Sources<F>
where
    F: Fn() -> Vec<(String, SourceFigures)> + Send + Sync + 'static,
{
    /// `figures`: of each source, by the id of its camera. It shall not wait for anything.
    pub fn new(figures: F) -> Self {
        Self(figures)
    }
}

impl<F> fmt::Debug for Sources<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// What a family of figures is made of.
enum Value {
    /// Without the suffix `_total`, which the encoder adds.
    Counter(fn(&SourceFigures) -> u64),
    /// Left out where there is none yet.
    Gauge(fn(&SourceFigures) -> Option<f64>),
}

/// Name, help, value, and the one mode that has it, if not all have.
type Family = (&'static str, &'static str, Value, Option<SourceMode>);

const FAMILIES: [Family; 13] = [
    (
        "reconnects",
        "Connections or sessions that had to be replaced",
        Value::Counter(|f| f.connection_resets),
        None,
    ),
    ("frames", "Pictures handed on", Value::Counter(|f| f.frames_read), None),
    (
        "url_refreshes",
        "URLs replaced before they expired",
        Value::Counter(|f| f.url_refreshes),
        Some(SourceMode::Hls),
    ),
    ("read_errors", "Calls and fetches that failed", Value::Counter(|f| f.read_errors), None),
    (
        "last_frame_timestamp",
        "When the last picture was handed on, Unix seconds",
        Value::Gauge(|f| f.last_frame_timestamp),
        None,
    ),
    (
        "connection_state",
        "0 disconnected, 1 connecting, 2 connected, 3 reconnecting, 4 error",
        Value::Gauge(|f| Some(f.connection_state().into())),
        None,
    ),
    ("fragments", "Whole fragments handed on", Value::Counter(|f| f.fragments_processed), None),
    (
        "fragments_skipped",
        "Fragments left out, as far as their number is known",
        Value::Counter(|f| f.fragments_skipped),
        None,
    ),
    ("received_bytes", "Bytes of answers, playlists and media", Value::Counter(|f| f.bytes_received), None),
    ("parse_errors", "What came and could not be read", Value::Counter(|f| f.parse_errors), None),
    ("decode_errors", "Coded pictures that gave no decoded one", Value::Counter(|f| f.decode_errors), None),
    (
        "frames_dropped",
        "Decoded pictures that newer ones replaced",
        Value::Counter(|f| f.frames_dropped),
        None,
    ),
    (
        "latency_seconds",
        "Age of the last picture when it was handed on, by the producer's clock",
        Value::Gauge(|f| f.latency_ms.map(|ms| std::time::Duration::from_millis(ms).as_secs_f64())),
        None,
    ),
];

impl<F> Collector for Sources<F>
where
    F: Fn() -> Vec<(String, SourceFigures)> + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = (self.0)();
        for mode in SourceMode::ALL {
            let of_mode: Vec<_> = figures.iter().filter(|(_, figures)| figures.mode == mode).collect();
            if of_mode.is_empty() {
                continue;
            }
            for (name, help, value, only) in &FAMILIES {
                if only.is_some_and(|only| only != mode) {
                    continue;
                }
                let name = format!("{}_{name}", mode.metrics_prefix());
                let kind = match value {
                    Value::Counter(_) => ConstCounter::new(0_u64).metric_type(),
                    Value::Gauge(_) => ConstGauge::new(0.0_f64).metric_type(),
                };
                let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
                for (camera, figures) in &of_mode {
                    let labels = [("camera_id", camera.as_str())];
                    let encoder = family.encode_family(&labels)?;
                    match value {
                        Value::Counter(value) => ConstCounter::new(value(figures)).encode(encoder)?,
                        Value::Gauge(value) => {
                            if let Some(value) = value(figures) {
                                ConstGauge::new(value).encode(encoder)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
