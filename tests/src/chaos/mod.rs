//! A box under a seeded storm of faults, and four accounts of what it recorded that must agree in the end.
//!
//! ```text
//!  camera-sim (faults) --> kvs-edge run --> link (weather) --> kvs-local, a process
//!    |                       | kill -9, clock, disk                |
//!    | frame counter         | MQTT                                | ListFragments, GetMediaForFragmentList
//!    v                       v                                     v
//!  what was sent          what was claimed                       what is stored
//! ```
//!
//! The clock of the box is set by libfaketime, its disk refuses to be written to by a file size limit of 0 (`prlimit`), so that
//! the daemon is the one that is shipped; only that single stages panic on demand (`kvs_edge::fault`) is not in a release. How long a fault lasts is part of the schedule; judged is only what must hold however
//! long anything takes:
//!
//! * each fragment is stored once; from the first stored picture of a session of the camera to its last, none is missing, but for
//!   what the cloud refused for good, and the fragment that grew when the upload panicked;
//! * what was on disk when the box was killed is stored;
//! * each claim of the box (persisted, identical, a gap) is true of what is stored;
//! * what `kvs-edge proof` says of each minute is, too, and its chain holds every record that was told.

mod account;
mod schedule;
mod storm;

pub use account::Figures;
pub use schedule::{Action, CAMERAS, Moment, Random, Schedule};
pub use storm::Storm;
