//! Cameras over RTSP: all that knows retina.
//!
//! [`source`] keeps one camera's feed of access units alive, [`RtspSource`] is that feed as a [`media::UnitSource`], and
//! [`probe`] looks at a camera once; all through one kind of session. None knows what becomes of the pictures.

mod error;
mod held;
pub mod probe;
mod session;
pub mod source;
mod timeline;
mod unit_source;

pub use error::SessionError;
pub use timeline::{Distrust, Timeline};
pub use unit_source::RtspSource;

const USER_AGENT: &str = concat!("kvs-edge/", env!("CARGO_PKG_VERSION"));
