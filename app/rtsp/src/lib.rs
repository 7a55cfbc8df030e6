//! Cameras over RTSP: all that knows retina.
//!
//! [`source`] keeps one camera's feed of access units alive, [`probe`] looks at a camera once. Neither knows what becomes
//! of the pictures.

mod options;
pub mod probe;
mod rtp_clock;
pub mod source;
mod watched;
