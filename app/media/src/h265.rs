//! H.265 parameter sets (ITU-T H.265) and their Matroska form, hvcC (ISO/IEC 14496-15).

pub mod hvcc;
pub mod sps;

pub use hvcc::HvcC;
pub use sps::Sps;
