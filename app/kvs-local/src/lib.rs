//! A server that speaks the Kinesis Video Streams protocol, for tests, demos, HIL rigs and dry runs.
//!
//! ```text
//! server ---- sigv4, then by path:
//!   control      streams, tags, retention, endpoints
//!   put_media -> ingest -> live -> store       acks back
//!   get_media <------------ live or store      archive: ListFragments
//!   session      URLs of HLS and DASH sessions; their playlists and media by hls and dash, by the token alone
//!   clip         a range as one MP4
//!   images       pictures of given times as JPEG or PNG (feature `images`, on by default: it needs GStreamer)
//!   admin        faults and inspection, unsigned, off by default
//! ```
//! READ FIRST: `put_media`. Everything the real service is known to refuse is refused with its own words.
//!
//! What is not known about the service, and what this server does instead:
//! * A fragment that a dropped connection cuts off is discarded, even if the cut is at an element's border; a
//!   body that ends properly completes its last fragment. A body that ends inside an element gets ERROR 4006.
//! * Fragments with the same producer timestamp, as after a reconnect, are all kept.
//! * GetMedia passes on a fragment's bytes while they arrive (an option turns it off); if that fragment is then
//!   lost, the answer ends without a mark.
//! * Tags in front of the first cluster come back in the first chunk only, other header elements in each.
//! * What follows END_OF_FRAGMENT comes back in front of the next cluster.
//! * IDLE acks have neither timecode nor number and come every 5 s (an option).
//! * Rates (bytes, fragments, calls and points per second) are enforced only if an option asks for it; a
//!   producer that is too fast is then read more slowly. No shortest fragment is enforced, see [`Limits`].
//!   CodecIDs are not checked, as in the service.
//! * Fragment numbers that the stream once gave get a notice in GetMediaForFragmentList's answer, whether their fragment
//!   was lost, expired or deleted; only numbers it never gave are refused.
//! * Players' times (`tfdt`, PTS) are the producer's; MPEG-TS has their lower 33 bits. See `session` for the rest about
//!   playlists.
//! * GetImages: see `images`. A server that was built without it answers as to an operation that it does not know.
//! * KMS keys are names: 4500 to 4506, like 4000, 4005 and 5000, come from faults only.

mod admin;
mod archive;
mod clip;
mod control;
mod dash;
mod dates;
mod errors;
mod faults;
mod folder_lock;
mod footage;
mod fragment_reader;
mod get_media;
mod hls;
#[cfg(feature = "images")]
mod images;
mod ingest;
mod inspect;
mod live;
mod local;
mod options;
mod playback;
mod player;
mod put_media;
mod rate;
mod server;
mod service;
mod session;
mod sigv4;
mod store;
mod stream;

pub use clock::Clock;
pub use faults::{AckKind, At, Fault, FaultKind, Faults};
pub use inspect::{Connections, SentAck, StoredFragment};
pub use local::{Connector, FragmentError, KvsLocal, StartError};
pub use options::{Credentials, Limits, Options, Tls};
