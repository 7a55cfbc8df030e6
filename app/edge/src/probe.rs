//! `kvs-edge probe`: what a camera offers, as `rtsp` finds it, and which decoder this box would use for it.

use std::fmt;

use clock::Clock;
use health::{Problem, Reason};
use media::VideoCodec;
use rtsp::SessionError;
use rtsp::probe::{Finding, ProbeOptions, Severity};
use serde::Serialize;

/// The camera, and how this box would look into its pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub camera: rtsp::probe::Report,
    /// Absent when there is no video to decode.
    pub decoder: Option<DecoderReport>,
}

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

/// Looks at one camera, see [`rtsp::probe::run`], and tries the decoders for it. Footage needs none: without one there is
/// no detection.
pub async fn run(options: ProbeOptions, clock: Clock) -> Result<Report, SessionError> {
    let camera = rtsp::probe::run(options, clock.clone()).await?;
    Ok(Report { camera, decoder: None }.with_decoder(&clock).await)
}

impl Report {
    async fn with_decoder(mut self, clock: &Clock) -> Report {
        let taken = self.camera.tracks.iter().filter(|track| track.taken);
        let codec = taken.filter_map(|track| codec(&track.encoding)).next();
        let Some(codec) = codec else { return self };
        // Opens devices, which blocks.
        let choice =
            tokio::task::spawn_blocking(move || decode::choose(codec, &decode::Preference::Automatic));
        let (chosen, skipped) = match choice.await {
            Ok(Ok(choice)) => (Some(choice.chosen), choice.skipped),
            Ok(Err(error)) => {
                let found = format!("this box cannot look into its pictures: {error}");
                let problem = Problem::new(Reason::NoDecoder, found, clock.wall())
                    .fix("install one of these decoders; recording works without");
                self.camera.findings.push(Finding { severity: Severity::Warning, problem });
                self.camera.findings.sort_by_key(|finding| finding.severity);
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

/// The table; several lines, the last without a line end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.camera.write_table(f, self.decoder.as_ref().map(DecoderReport::rows).unwrap_or_default())
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
    /// One line for the choice, one for each skipped.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let chosen = self.chosen.clone().unwrap_or_else(|| "none works".to_owned());
        let skipped =
            self.skipped.iter().map(|skipped| ("", format!("not {}: it {}", skipped.name, skipped.why)));
        std::iter::once(("decoder", chosen)).chain(skipped).collect()
    }
}
