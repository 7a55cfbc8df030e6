//! Figures of sources in the text form of Prometheus, and of the source that follows a stream by GetMedia.

use std::fmt::{Display, Write};

use media::SourceState;

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

/// Figures of one camera.
pub(crate) struct Exposition {
    prefix: &'static str,
    camera_id: String,
    text: String,
}

impl Exposition {
    pub(crate) fn new(prefix: &'static str, camera_id: &str) -> Self {
        let camera_id = camera_id.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        Self { prefix, camera_id, text: String::new() }
    }

    pub(crate) fn counter(&mut self, name: &str, value: u64) {
        self.put(name, "counter", value);
    }

    /// Nothing where there is no value yet.
    pub(crate) fn gauge(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.put(name, "gauge", value);
        }
    }

    fn put(&mut self, name: &str, kind: &str, value: impl Display) {
        let Self { prefix, camera_id, text } = self;
        let _ = writeln!(text, "# TYPE {prefix}_{name} {kind}");
        let _ = writeln!(text, "{prefix}_{name}{{camera_id=\"{camera_id}\"}} {value}");
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// Of a [`FollowSource`](super::FollowSource), since it was made. Decoding errors are the decoder's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GetMediaMetrics {
    /// Pictures handed on.
    pub frames_read: u64,
    /// Whole fragments handed on.
    pub fragments_processed: u64,
    /// Fragments left out because they were too old.
    pub fragments_skipped: u64,
    /// Of answers, with what pictures are packed in.
    pub bytes_received: u64,
    /// Answers that could not be read to their end.
    pub parse_errors: u64,
    /// Calls that were refused and answers that broke, those that could not be read included.
    pub read_errors: u64,
    /// Answers that ended or broke and had to be replaced; planned replacements are not counted.
    pub connection_resets: u64,
    /// When the last picture was handed on, Unix seconds.
    pub last_frame_timestamp: Option<f64>,
    /// From its producer timestamp to then, in ms; 0 where the producer's clock is ahead.
    pub latency_ms: Option<u64>,
    /// 0 disconnected, 1 connecting, 2 connected, 3 reconnecting, 4 error.
    pub connection_state: u8,
}

impl GetMediaMetrics {
    /// In the text form of Prometheus, each labelled `camera_id`.
    pub fn prometheus(&self, camera_id: &str) -> String {
        let mut text = Exposition::new("kvs_getmedia", camera_id);
        text.counter("reconnects_total", self.connection_resets);
        text.counter("frames_total", self.frames_read);
        text.counter("fragments_total", self.fragments_processed);
        text.counter("read_errors_total", self.read_errors);
        text.gauge("last_frame_timestamp", self.last_frame_timestamp);
        text.gauge("connection_state", Some(self.connection_state.into()));
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_names_of_their_kind() {
        let metrics = GetMediaMetrics { frames_read: 7, connection_state: 3, ..GetMediaMetrics::default() };
        let text = metrics.prometheus("a\"b\\c\nd");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "reconnects_total 0",
            "frames_total 7",
            "fragments_total 0",
            "read_errors_total 0",
            "connection_state 3",
        ];
        let expected = expected.map(|line| {
            let (name, value) = line.split_once(' ').expect("two");
            format!("kvs_getmedia_{name}{{camera_id=\"a\\\"b\\\\c\\nd\"}} {value}")
        });
        assert_eq!(lines, expected);
    }
}
