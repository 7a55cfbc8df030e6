//! Figures of an HLS source, under the names that dashboards have.

use super::metrics::Exposition;

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
    /// Fragments handed on without their sound, which was listed, or late, and could not be had.
    pub fragments_without_sound: u64,
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

impl HlsMetrics {
    /// In the text form of Prometheus, each labelled `camera_id`.
    pub fn prometheus(&self, camera_id: &str) -> String {
        let mut text = Exposition::new("kvs_hls", camera_id);
        text.counter("reconnects_total", self.reconnects_total);
        text.counter("frames_total", self.frames_total);
        text.counter("url_refreshes_total", self.url_refreshes_total);
        text.counter("read_errors_total", self.read_errors_total);
        text.gauge("last_frame_timestamp", self.last_frame_timestamp);
        text.gauge("connection_state", Some(self.connection_state.into()));
        text.finish()
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
