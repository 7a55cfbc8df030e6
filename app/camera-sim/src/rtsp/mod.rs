//! RTSP/1.0 (RFC 2326): messages, authentication and session description. No IO.

pub(crate) mod auth;
pub(crate) mod message;
pub(crate) mod sdp;
pub(crate) mod transport;
