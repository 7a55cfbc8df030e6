//! A simulated RTSP camera with faults on demand and a rendered scene with ground truth.
//!
//! [`CameraSim`] serves any number of cameras over RTSP/1.0 (interleaved TCP and UDP) from one process. Each plays
//! a [`Clip`] for ever, aligned to UTC: the picture of the moment shows the second of the moment (or is one of a user's own
//! file, [`ClipSpec::of_file`]), and sender reports lead from RTP time to the true capture time. What can go wrong with a camera can be asked for, by URL or by
//! [`Faults`] handle; the table is in [`faults`].
//!
//! ```no_run
//! # async fn example() -> Result<(), camera_sim::SimError> {
//! use camera_sim::{AuthKind, CameraSim, ClipSpec, Fault};
//! let sim = CameraSim::builder()
//!     .clip(ClipSpec { seed: 7, ..ClipSpec::default() })
//!     .cameras(2)
//!     .auth("admin", "secret", AuthKind::Digest)
//!     .start()
//!     .await?;
//! println!("{}?drop=0.001", sim.url(0));
//! sim.faults(1).inject(Fault::HangUp);
//! sim.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod clip;
mod connection;
pub mod faults;
mod player;
mod rtp;
mod rtsp;
pub mod scene;
mod server;
mod sim;
pub mod stats;

pub use clip::{Audio, AudioClip, Clip, ClipError, ClipSpec, Codec, Footage, Picture, default_cache_dir};
pub use faults::{Fault, FaultError, FaultPlan, Faults, ForeignCodec, HandshakeStep, Start};
pub use rtsp::auth::AuthKind;
pub use scene::{FrameTruth, Label, TruthBox, read_frame_index};
pub use sim::{CameraSim, CameraSimBuilder, SimError};
pub use stats::{CameraStats, SentPicture};
