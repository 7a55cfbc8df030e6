//! A stream by HLS: playlists, the life of the session's URL, and media segments as access units. No IO.
//!
//! ```text
//! session --Action--> whoever fetches --text--> playlist --segments--> session
//!                                     --media-> units    --Feed, pictures and sound of a fragment together
//! ```

mod config;
pub mod playlist;
pub mod session;
mod sound;
mod units;

pub use session::{Action, Asked, Failure, Hls, HlsConfig, HlsConfigError, Play, Skip};
pub use units::{HlsUnits, UnitsError};
