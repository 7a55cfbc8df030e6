//! Which decoder this box would use for the camera.

use media::VideoCodec;
use serde::Serialize;

use super::{Problem, Report, Severity};

/// The decoder of this box for the camera's codec, and those that come before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DecoderReport {
    /// Name of the GStreamer element; absent when none works.
    pub chosen: Option<String>,
    pub skipped: Vec<SkippedDecoder>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedDecoder {
    pub name: String,
    pub why: String,
}

impl Report {
    /// Tries the decoders for the track that would be uploaded. Footage needs none: without one there is no detection.
    pub(super) async fn with_decoder(mut self) -> Report {
        let taken = self.tracks.iter().filter(|track| track.taken);
        let codec = taken.filter_map(|track| codec(&track.encoding)).next();
        let Some(codec) = codec else { return self };
        // Opens devices, which blocks.
        let choice =
            tokio::task::spawn_blocking(move || decode::choose(codec, &decode::Preference::Automatic));
        let (chosen, skipped) = match choice.await {
            Ok(Ok(choice)) => (Some(choice.chosen), choice.skipped),
            Ok(Err(error)) => {
                self.problems.push(Problem {
                    severity: Severity::Warning,
                    code: "no_decoder",
                    text: format!("this box cannot look into its pictures: {error}"),
                    fix: "install one of these decoders; recording works without".to_owned(),
                });
                match error {
                    decode::DecodeError::NoDecoder { skipped, .. } => (None, skipped),
                    _ => (None, Vec::new()),
                }
            }
            Err(_) => return self, // the runtime is shutting down
        };
        let skipped =
            skipped.into_iter().map(|skipped| SkippedDecoder { name: skipped.name, why: skipped.reason });
        self.decoder = Some(DecoderReport { chosen, skipped: skipped.collect() });
        self
    }
}

fn codec(encoding: &str) -> Option<VideoCodec> {
    match encoding {
        "h264" => Some(VideoCodec::H264),
        "h265" => Some(VideoCodec::H265),
        _ => None,
    }
}

impl DecoderReport {
    /// For the table: one line for the choice, one for each skipped.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let chosen = self.chosen.clone().unwrap_or_else(|| "none works".to_owned());
        let skipped =
            self.skipped.iter().map(|skipped| ("", format!("not {}: it {}", skipped.name, skipped.why)));
        std::iter::once(("decoder", chosen)).chain(skipped).collect()
    }
}
