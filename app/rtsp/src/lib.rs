//! Cameras over RTSP: all that knows retina.
//!
//! [`source`] keeps one camera's feed of access units alive, [`probe`] looks at a camera once; both through one kind of
//! session. Neither knows what becomes of the pictures.

mod error;
mod held;
pub mod probe;
mod session;
pub mod source;
mod timeline;

pub use error::SessionError;
pub use timeline::Distrust;

const USER_AGENT: &str = concat!("kvs-edge/", env!("CARGO_PKG_VERSION"));
