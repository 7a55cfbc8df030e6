//! A server that speaks the Kinesis Video Streams protocol, for tests, demos, HIL rigs and dry runs.
//!
//! ```text
//! server ---- sigv4, then by path:
//!   control      streams, tags, retention, endpoints
//!   put_media -> ingest -> live -> store       acks back
//!   get_media <------------ live or store      archive: ListFragments
//!   admin        faults and inspection, unsigned, off by default
//! ```
//! READ FIRST: `put_media`. Everything the real service is known to refuse is refused with its own words; what
//! is only assumed about it says so where it is done.

mod admin;
mod archive;
mod control;
mod errors;
mod faults;
mod fragment_reader;
mod get_media;
mod ingest;
mod inspect;
mod live;
mod local;
mod options;
mod put_media;
mod server;
mod service;
mod sigv4;
mod store;
mod stream;

pub use faults::{AckKind, At, Fault, FaultKind, Faults};
pub use inspect::{Connections, SentAck, StoredFragment};
pub use local::{FragmentError, KvsLocal, StartError};
pub use options::{Clock, Credentials, Limits, Options, Tls};
