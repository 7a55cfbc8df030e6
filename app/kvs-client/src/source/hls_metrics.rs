//! Figures of an HLS source, under the names that dashboards have.

use std::fmt::Write;

use media::SourceState;

/// Since the source was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HlsMetrics {
    /// Pictures handed on.
    pub frames_total: u64,
    /// Fragments handed on.
    pub fragments_processed: u64,
    /// Of playlists and media.
    pub bytes_received: u64,
    /// Calls and fetches that failed.
    pub read_errors_total: u64,
    /// Playlists and segments that came and could not be read; they count as read errors, too.
    pub parse_errors: u64,
    /// Fragments left out, as far as their number is known.
    pub fragments_skipped: u64,
    /// URLs asked for after an error.
    pub reconnects_total: u64,
    /// URLs asked for because the one before was about to expire.
    pub url_refreshes_total: u64,
    /// When the last picture was handed on, Unix seconds.
    pub last_frame_timestamp: Option<f64>,
    /// From its producer timestamp to then, in ms; 0 where the producer's clock is ahead.
    pub latency_ms: Option<u64>,
    /// 0 disconnected, 1 connecting, 2 connected, 3 reconnecting, 4 error.
    pub connection_state: u8,
}

/// As dashboards number the states.
pub(crate) fn state_number(state: SourceState) -> u8 {
    match state {
        SourceState::Disconnected => 0,
        SourceState::Connecting => 1,
        SourceState::Connected => 2,
        SourceState::Reconnecting => 3,
        SourceState::Failed => 4,
    }
}

impl HlsMetrics {
    /// In the text form of Prometheus, each labelled `camera_id`.
    pub fn prometheus(&self, camera_id: &str) -> String {
        let camera_id = camera_id.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(
                text,
                "# TYPE kvs_hls_{name} {kind}\nkvs_hls_{name}{{camera_id=\"{camera_id}\"}} {value}"
            );
        };
        put("reconnects_total", "counter", &self.reconnects_total);
        put("frames_total", "counter", &self.frames_total);
        put("url_refreshes_total", "counter", &self.url_refreshes_total);
        put("read_errors_total", "counter", &self.read_errors_total);
        if let Some(time) = self.last_frame_timestamp {
            put("last_frame_timestamp", "gauge", &time);
        }
        put("connection_state", "gauge", &self.connection_state);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboards_find_the_names_that_they_know() {
        let metrics = HlsMetrics {
            frames_total: 75,
            reconnects_total: 1,
            last_frame_timestamp: Some(1_795_187_314.25),
            connection_state: 2,
            ..HlsMetrics::default()
        };
        let text = metrics.prometheus("front \"gate\"");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "kvs_hls_reconnects_total{camera_id=\"front \\\"gate\\\"\"} 1",
                "kvs_hls_frames_total{camera_id=\"front \\\"gate\\\"\"} 75",
                "kvs_hls_url_refreshes_total{camera_id=\"front \\\"gate\\\"\"} 0",
                "kvs_hls_read_errors_total{camera_id=\"front \\\"gate\\\"\"} 0",
                "kvs_hls_last_frame_timestamp{camera_id=\"front \\\"gate\\\"\"} 1795187314.25",
                "kvs_hls_connection_state{camera_id=\"front \\\"gate\\\"\"} 2",
            ]
        );
    }
}
