//! Access units in, pictures in memory out; or those of a video file ([`file`]). The only crate that knows GStreamer.
//!
//! ```text
//!  push(AccessUnit) -> gate -> byte stream -> appsrc ! parser ! decoder ! [converter !] appsink -> Frame -> callback
//!                      |                       bounded        | pace                        newest
//!                      random access point,                   times are looked up in the ledger,
//!                      wanted, key frames only, size          pictures that nobody wants end here
//! ```
//!
//! Decisions, and why:
//! * **Annex B goes in, with the parameter sets in front of each random access point.** All decoders take it, and a
//!   change of parameter sets or size is then nothing but data: the decoder stays. A pipeline is built anew only where
//!   its description changes (other codec, other sample format, other size in front of a hardware scaler).
//! * **Times are not trusted to survive.** Each unit travels with an invented, ever rising time; the picture that comes
//!   out with it gets the unit's producer timestamp from a table. What is not in the table is counted and left out.
//! * **The rate is made behind the decoder by a pad probe**, not by `videorate`: P pictures must be decoded anyhow, a
//!   probe changes no times and no rate caps, and stands in front of any scaling or conversion.
//! * **One thread per camera, that of `appsrc`**: it runs parser, decoder and callback. Building and stopping happen
//!   on threads of their own that end at once, because drivers can hang there; [`Decoder::push`] never waits.
//! * **Software decoders run single-threaded** (measured: their default costs 7 to 20 % more and frames of delay).
//! * GStreamer 1.14 is enough at build and run time: no version feature of the bindings is on, and properties that an
//!   older release lacks are left out.
//!
//! The first use calls `gst::init` ([`init`]): it reads the plugin registry, and on the first start of a user it forks a
//! scanner that loads each plugin (0.1 to several seconds). A service without a writable home should set `GST_REGISTRY`
//! to a file that it may write, or each start pays for the scan.

mod bitstream;
mod choose;
mod decoder;
mod figures;
pub mod file;
mod frame;
mod ledger;
mod pace;
mod pipeline;
mod plan;

use std::sync::OnceLock;

pub use choose::{Choice, Preference, Skipped, choose};
pub use decoder::{Decoder, DecoderOptions};
pub use figures::{DecodeReport, Stage};
pub use frame::Frame;

/// Why there is no decoder, or no picture. One type for both, because the daemon shows both.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("GStreamer does not start: {message}")]
    Init { message: String },
    #[error("no decoder `{name}` for H.264 or H.265 is installed; there is {}", list(.available))]
    UnknownDecoder { name: String, available: Vec<String> },
    #[error("no decoder for {codec} works: {}", reasons(.skipped))]
    NoDecoder { codec: &'static str, skipped: Vec<Skipped> },
    #[error(
        "a picture of {width}x{height} has {pixels} pixels, the limit is {max_pixels}; \
         use a smaller feed of the camera, or raise the limit"
    )]
    TooLarge { width: u32, height: u32, pixels: u64, max_pixels: u64 },
    #[error("`{decoder}`: pipeline `{description}` does not start: {message}")]
    Build { decoder: String, description: String, message: String },
    #[error("`{decoder}`: {message}")]
    Pipeline { decoder: String, message: String },
    #[error("`{decoder}` gave nothing for {units} access units in {seconds} s")]
    Silent { decoder: String, units: u32, seconds: u64 },
    #[error("`{decoder}` was not ready within {seconds} s; its driver hangs")]
    BuildHangs { decoder: String, seconds: u64 },
    #[error(
        "{stuck} pipelines do not stop; no new one is built before one does: a driver hangs, restart the box"
    )]
    Stuck { stuck: usize },
    #[error("`{decoder}` gave a picture as {found}, expected I420 or NV12")]
    Format { decoder: String, found: String },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn reasons(skipped: &[Skipped]) -> String {
    let all: Vec<String> =
        skipped.iter().map(|Skipped { name, reason }| format!("`{name}` {reason}")).collect();
    list(&all)
}

/// Starts GStreamer, once per process; later calls cost nothing.
pub fn init() -> Result<(), DecodeError> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let done = DONE.get_or_init(|| gstreamer::init().map_err(|error| error.to_string()));
    done.clone().map_err(|message| DecodeError::Init { message })
}
