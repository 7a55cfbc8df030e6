//! H.264 parameter sets (ITU-T H.264) and their Matroska form, avcC (ISO/IEC 14496-15).

pub mod avcc;
pub mod sps;

pub use avcc::AvcC;
pub use sps::Sps;
