//! Pictures to events of one camera, and the detector's schedule over all cameras. Knows no output: whoever publishes
//! turns each [`Output`] into messages and files.
//!
//! ```text
//!  FeedItem, 32 --> decoder --newest--> detector --Detections, 8--> tracks, events --Output, 64--> publisher
//!                   (its threads)       (one thread for all)          ^
//!                                          upload --Persisted, 64-----+ number of the fragment that shows an event
//! ```
//!
//! One task per camera drives its branch ([`Branch`]); pictures are decoded on GStreamer's threads and go through the
//! model on the detector's ([`detector`]). While the detector does not run, nothing is decoded. The branch may skip
//! pictures, and nobody before it ever waits for it.
//!
//! Of recorded pictures none is skipped: [`offline`] looks at one after another, by the same gate, tracks and events.

mod analysis;
mod branch;
pub mod detector;
mod events;
mod gate;
mod model;
pub mod offline;
mod output;
mod scene;
mod shots;
mod snapshot;

pub use branch::{Branch, Channels};
pub use detector::{CameraSlot, DetectorHandle};
pub use events::Persisted;
pub use model::detector_options;
pub use output::{
    AnalyticsReport, AnnotatedFrame, Clip, EventChange, LabelledBox, Output, Shot, annotated_frames,
};
pub use snapshot::{cut, encode};

use media::AccessUnit;

/// Places in front of the decoder: about a second. A decoder that is further behind cannot keep up; the fan-out then
/// leaves pictures out up to the next random access point.
pub const FEED_PLACES: usize = 32;
/// Places for [`Persisted`] in front of the branch, which only copies numbers into events.
pub const PERSISTED_PLACES: usize = 64;
/// Places in front of the publisher; when they are taken the branch waits, and so skips pictures.
pub const OUTPUT_PLACES: usize = 64;

/// What a branch is fed with.
#[derive(Clone, Debug)]
pub enum FeedItem {
    Picture(AccessUnit),
    /// The next picture does not follow the last one.
    Discontinuity,
}
