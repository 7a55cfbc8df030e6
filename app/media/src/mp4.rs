//! Fragmented MP4 (ISO/IEC 14496-12), as HLS and DASH carry it: initialisation segments and media segments, both ways.
//!
//! ```text
//! initialisation: ftyp  moov { mvhd  trak...  mvex { trex... } }
//! media:          styp  moof { mfhd  traf { tfhd  tfdt  trun }... }  mdat
//! ```
//! An initialisation segment followed by media segments is a whole MP4 file.

mod boxes;
pub mod read;
pub mod write;

pub use boxes::{BoxError, FourCc};
