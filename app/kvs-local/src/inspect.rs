//! What a test may look at from the inside.

use serde::{Deserialize, Serialize};

use crate::faults::AckKind;

/// One fragment as it lies in the store right now, corruption included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFragment {
    pub number: String,
    pub server_ms: u64,
    pub producer_ms: u64,
    /// As in the cluster.
    pub timecode: u64,
    pub length_ms: u64,
    pub blocks: u64,
    /// Header, tags in front, cluster and what follows it.
    pub size_bytes: u64,
    pub cluster_bytes: u64,
    /// Lower-case hexadecimal, of the bytes of the Cluster element.
    pub cluster_sha256: String,
}

/// One ack as it left the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentAck {
    /// Counts the stream's PutMedia sessions from 1.
    pub session: u64,
    /// Server clock.
    pub at_ms: u64,
    pub event: AckKind,
    pub timecode: Option<i64>,
    pub number: Option<String>,
    pub error_id: Option<u32>,
    /// Why, in the server's words; producers do not get to see it.
    pub reason: Option<String>,
}

/// Who is and was connected to a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub put_media: usize,
    pub get_media: usize,
    pub fragment_list: usize,
    /// Since the server started, refused ones not counted.
    pub put_media_ever: u64,
    pub get_media_ever: u64,
    pub fragment_list_ever: u64,
}
