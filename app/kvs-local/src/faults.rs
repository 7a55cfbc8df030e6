//! Faults that a test asks for, and what is left of them.
//!
//! A fault waits in the list until the place it is about is reached; most are used up by it, see each kind. The
//! list is one for the server; a fault that names a stream waits for that stream only, one that names a track for a fetch of
//! that track by a session's URL. Older faults go first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// One fault, for one stream or for whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// As players count: pictures are 1, sound beside them is 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<u32>,
    #[serde(flatten)]
    pub kind: FaultKind,
}

impl Fault {
    /// For whichever stream comes first.
    pub fn any(kind: FaultKind) -> Self {
        Self { stream: None, track: None, kind }
    }

    pub fn on(stream: impl Into<String>, kind: FaultKind) -> Self {
        Self { stream: Some(stream.into()), track: None, kind }
    }

    /// Only for fetches of this track.
    #[must_use]
    pub fn of_track(self, track: u32) -> Self {
        Self { track: Some(track), ..self }
    }
}

/// The events of an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AckKind {
    Buffering,
    Received,
    Persisted,
    Error,
    Idle,
}

/// Where in a fragment an error ack is raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// Right after its BUFFERING ack.
    #[default]
    Start,
    /// When it is complete, in place of its RECEIVED ack.
    End,
    /// In place of its PERSISTED ack, after RECEIVED; the fragment is not kept.
    Persist,
}

/// In JSON: `{"fault": "ack_error", "id": 4004, "fragment": 2, "stream": "cam1"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum FaultKind {
    /// The `fragment`-th fragment from now on (1: the next that begins) gets this error, and the connection
    /// closes. Once.
    AckError {
        id: u32,
        #[serde(default = "one")]
        fragment: u64,
        #[serde(default)]
        at: At,
    },
    /// The PutMedia connection breaks, without an answer, after so many bytes of its body. Once; taken by the
    /// session that runs, or by the next.
    CutPutMedia { after_bytes: u64 },
    /// The next `count` acks of this kind (`None`: of any) are held back; those behind them wait too.
    DelayAck {
        #[serde(default)]
        ack: Option<AckKind>,
        delay_ms: u64,
        #[serde(default = "one")]
        count: u64,
    },
    /// The next `count` acks of this kind are not sent.
    DropAck {
        #[serde(default)]
        ack: Option<AckKind>,
        #[serde(default = "one")]
        count: u64,
    },
    /// The next `count` acks of this kind are sent twice.
    DuplicateAck {
        #[serde(default)]
        ack: Option<AckKind>,
        #[serde(default = "one")]
        count: u64,
    },
    /// These bytes go out in front of the next ack. Once.
    GarbageAck { bytes: Vec<u8> },
    /// The next `count` PutMedia requests are refused.
    RefusePutMedia {
        #[serde(default = "default_refusal")]
        error_type: String,
        #[serde(default = "default_refusal_status")]
        status: u16,
        #[serde(default = "one")]
        count: u64,
    },
    /// The next `count` requests of this operation (its path, `/getDataEndpoint`) are refused, whatever the
    /// operation.
    Refuse {
        path: String,
        error_type: String,
        status: u16,
        #[serde(default = "one")]
        count: u64,
    },
    /// PutMedia bodies are read slowly, with this pause after each piece that arrives, until cleared.
    SlowReader { pause_ms: u64 },
    /// The next GetMedia breaks without an end after so many bytes of its body. Once.
    CutGetMedia { after_bytes: u64 },
    /// GetMedia sends the next `count` fragments twice.
    DuplicateChunk {
        #[serde(default = "one")]
        count: u64,
    },
    /// GetMedia leaves the next `count` fragments out.
    SkipChunk {
        #[serde(default = "one")]
        count: u64,
    },
    /// The next `count` fetches of this path by a session's URL (see `kvs::api::session`) get this answer.
    AnswerFetch {
        path: String,
        status: u16,
        content_type: String,
        /// Where a redirection leads.
        #[serde(default)]
        location: Option<String>,
        #[serde(default)]
        body: String,
        #[serde(default = "one")]
        count: u64,
    },
    /// The next `count` answers to fetches of this path break without an end after so many bytes.
    CutFetch {
        path: String,
        after_bytes: u64,
        #[serde(default = "one")]
        count: u64,
    },
    /// The next `count` answers to fetches of this path come with their bytes from the fifth on overwritten for 32 bytes: neither a
    /// playlist nor a segment is left.
    GarbleFetch {
        path: String,
        #[serde(default = "one")]
        count: u64,
    },
    /// The next `count` media playlists of a session are the first one that it gave.
    OldPlaylist {
        #[serde(default = "one")]
        count: u64,
    },
    /// GetMedia says this error in its answer in place of the next fragment, and ends: 3002 (error writing to the stream), 4000
    /// (no such fragment), 4500 to 4506 (KMS), 5000 (internal). Once.
    FailGetMedia { id: u32 },
    /// GetMedia sends 64 zeros, which are no Matroska, in place of the next fragment, and ends. Once.
    GarbageChunk,
    /// GetMedia flips one payload byte of the next `count` fragments; what is stored stays whole.
    CorruptChunk {
        #[serde(default = "one")]
        count: u64,
    },
}

fn one() -> u64 {
    1
}

fn default_refusal() -> String {
    "ConnectionLimitExceededException".to_owned()
}

fn default_refusal_status() -> u16 {
    400
}

/// The list of faults of one server; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    pub fn inject(&self, fault: Fault) {
        tracing::info!(?fault, "fault injected");
        self.list().push(fault);
    }

    /// Those that still wait.
    pub fn waiting(&self) -> Vec<Fault> {
        self.list().clone()
    }

    /// Ends the faults of one stream.
    pub fn end(&self, stream: &str) {
        self.list().retain(|fault| fault.stream.as_deref() != Some(stream));
    }

    pub fn clear(&self) {
        self.list().clear();
    }

    fn list(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take<T>(&self, stream: &str, pick: impl Fn(&FaultKind) -> Option<T>) -> Option<T> {
        self.take_of(stream, None, pick)
    }

    /// Returns what `pick` makes of the oldest fault of `stream` that it wants, and uses up one of its count.
    fn take_of<T>(
        &self,
        stream: &str,
        track: Option<u32>,
        pick: impl Fn(&FaultKind) -> Option<T>,
    ) -> Option<T> {
        let mut list = self.list();
        let concerns = |fault: &Fault| {
            fault.stream.as_deref().is_none_or(|name| name == stream)
                && (fault.track.is_none() || fault.track == track)
        };
        let (index, picked) = list
            .iter()
            .enumerate()
            .filter(|(_, fault)| concerns(fault))
            .find_map(|(index, fault)| Some((index, pick(&fault.kind)?)))?;
        let left = list[index].kind.count_mut().map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            list.remove(index);
        }
        Some(picked)
    }

    /// Counts one fragment that begins; the id if an `AckError` is due for it.
    pub(crate) fn fragment_error(&self, stream: &str) -> Option<(u32, At)> {
        let mut list = self.list();
        let mut due = None;
        for (index, fault) in list.iter_mut().enumerate() {
            let concerns = fault.stream.as_deref().is_none_or(|name| name == stream);
            if let FaultKind::AckError { id, fragment, at } = &mut fault.kind
                && concerns
            {
                *fragment = fragment.saturating_sub(1);
                if *fragment == 0 && due.is_none() {
                    due = Some((index, (*id, *at)));
                }
            }
        }
        due.map(|(index, error)| {
            list.remove(index);
            error
        })
    }

    /// `received`: bytes of the body so far. Gives the count after which the connection breaks, if it is reached.
    pub(crate) fn put_media_cut(&self, stream: &str, received: u64) -> Option<u64> {
        self.take(stream, |kind| match kind {
            FaultKind::CutPutMedia { after_bytes } if *after_bytes <= received => Some(*after_bytes),
            _ => None,
        })
    }

    pub(crate) fn read_pause_ms(&self, stream: &str) -> Option<u64> {
        let list = self.list();
        let concerns = |fault: &&Fault| fault.stream.as_deref().is_none_or(|name| name == stream);
        list.iter().filter(concerns).find_map(|fault| match fault.kind {
            FaultKind::SlowReader { pause_ms } => Some(pause_ms),
            _ => None,
        })
    }

    pub(crate) fn ack_delay_ms(&self, stream: &str, sent: AckKind) -> Option<u64> {
        self.take(stream, |kind| match kind {
            FaultKind::DelayAck { ack, delay_ms, .. } if ack.is_none_or(|ack| ack == sent) => Some(*delay_ms),
            _ => None,
        })
    }

    pub(crate) fn drops_ack(&self, stream: &str, sent: AckKind) -> bool {
        let drops = |kind: &FaultKind| match kind {
            FaultKind::DropAck { ack, .. } if ack.is_none_or(|ack| ack == sent) => Some(()),
            _ => None,
        };
        self.take(stream, drops).is_some()
    }

    pub(crate) fn duplicates_ack(&self, stream: &str, sent: AckKind) -> bool {
        let doubles = |kind: &FaultKind| match kind {
            FaultKind::DuplicateAck { ack, .. } if ack.is_none_or(|ack| ack == sent) => Some(()),
            _ => None,
        };
        self.take(stream, doubles).is_some()
    }

    pub(crate) fn garbage(&self, stream: &str) -> Option<Vec<u8>> {
        self.take(stream, |kind| match kind {
            FaultKind::GarbageAck { bytes } => Some(bytes.clone()),
            _ => None,
        })
    }

    /// (error type, HTTP status) with which a request to `path` is refused; `track`: the one that it names.
    pub(crate) fn refusal(&self, stream: &str, track: Option<u32>, path: &str) -> Option<(String, u16)> {
        self.take_of(stream, track, |kind| match kind {
            FaultKind::RefusePutMedia { error_type, status, .. } if path == kvs::api::path::PUT_MEDIA => {
                Some((error_type.clone(), *status))
            }
            FaultKind::Refuse { path: refused, error_type, status, .. } if refused == path => {
                Some((error_type.clone(), *status))
            }
            _ => None,
        })
    }

    pub(crate) fn get_media_cut(&self, stream: &str) -> Option<u64> {
        self.take(stream, |kind| match kind {
            FaultKind::CutGetMedia { after_bytes } => Some(*after_bytes),
            _ => None,
        })
    }

    /// What happens to the next fetch of this path.
    pub(crate) fn fetch(&self, stream: &str, track: Option<u32>, path: &str) -> Option<FetchFault> {
        self.take_of(stream, track, |kind| match kind {
            FaultKind::AnswerFetch { path: wanted, status, content_type, location, body, .. }
                if wanted == path =>
            {
                Some(FetchFault::Answer {
                    status: *status,
                    content_type: content_type.clone(),
                    location: location.clone(),
                    body: body.clone(),
                })
            }
            FaultKind::CutFetch { path: wanted, after_bytes, .. } if wanted == path => {
                Some(FetchFault::Cut { after_bytes: *after_bytes })
            }
            FaultKind::GarbleFetch { path: wanted, .. } if wanted == path => Some(FetchFault::Garble),
            _ => None,
        })
    }

    pub(crate) fn gives_old_playlist(&self, stream: &str, track: u32) -> bool {
        let is_old = |kind: &FaultKind| matches!(kind, FaultKind::OldPlaylist { .. }).then_some(());
        self.take_of(stream, Some(track), is_old).is_some()
    }

    /// What happens to the next fragment that a GetMedia sends.
    pub(crate) fn chunk(&self, stream: &str) -> Option<ChunkFault> {
        self.take(stream, |kind| match kind {
            FaultKind::DuplicateChunk { .. } => Some(ChunkFault::Duplicate),
            FaultKind::SkipChunk { .. } => Some(ChunkFault::Skip),
            FaultKind::CorruptChunk { .. } => Some(ChunkFault::Corrupt),
            FaultKind::FailGetMedia { id } => Some(ChunkFault::Fail(*id)),
            FaultKind::GarbageChunk => Some(ChunkFault::Garbage),
            _ => None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FetchFault {
    Answer { status: u16, content_type: String, location: Option<String>, body: String },
    Cut { after_bytes: u64 },
    Garble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkFault {
    Duplicate,
    Skip,
    Corrupt,
    /// With this error, in place of it.
    Fail(u32),
    Garbage,
}

impl FaultKind {
    fn count_mut(&mut self) -> Option<&mut u64> {
        match self {
            Self::DelayAck { count, .. }
            | Self::DropAck { count, .. }
            | Self::DuplicateAck { count, .. }
            | Self::RefusePutMedia { count, .. }
            | Self::Refuse { count, .. }
            | Self::AnswerFetch { count, .. }
            | Self::CutFetch { count, .. }
            | Self::GarbleFetch { count, .. }
            | Self::OldPlaylist { count }
            | Self::DuplicateChunk { count }
            | Self::SkipChunk { count }
            | Self::CorruptChunk { count } => Some(count),
            Self::AckError { .. }
            | Self::CutPutMedia { .. }
            | Self::GarbageAck { .. }
            | Self::SlowReader { .. }
            | Self::FailGetMedia { .. }
            | Self::GarbageChunk
            | Self::CutGetMedia { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_is_used_up_and_a_stream_is_respected() {
        let faults = Faults::default();
        faults.inject(Fault::on("a", FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 2 }));
        assert!(!faults.drops_ack("b", AckKind::Persisted));
        assert!(!faults.drops_ack("a", AckKind::Received));
        assert!(faults.drops_ack("a", AckKind::Persisted));
        assert!(faults.drops_ack("a", AckKind::Persisted));
        assert!(!faults.drops_ack("a", AckKind::Persisted));
        assert_eq!(faults.waiting(), []);
    }

    #[test]
    fn a_fault_of_a_track_waits_for_that_track() {
        let faults = Faults::default();
        faults.inject(Fault::any(FaultKind::OldPlaylist { count: 1 }).of_track(2));
        assert!(!faults.gives_old_playlist("a", 1));
        assert!(faults.gives_old_playlist("a", 2));
        assert!(!faults.gives_old_playlist("a", 2));
    }

    #[test]
    fn an_error_waits_for_its_fragment() {
        let faults = Faults::default();
        faults.inject(Fault::any(FaultKind::AckError { id: 4004, fragment: 2, at: At::End }));
        assert_eq!(faults.fragment_error("a"), None);
        assert_eq!(faults.fragment_error("a"), Some((4004, At::End)));
        assert_eq!(faults.fragment_error("a"), None);
    }

    #[test]
    fn faults_have_a_plain_json_form() {
        let fault: Fault =
            serde_json::from_str(r#"{"fault":"ack_error","id":5001,"stream":"cam1"}"#).expect("valid");
        let kind = FaultKind::AckError { id: 5001, fragment: 1, at: At::Start };
        assert_eq!(fault, Fault::on("cam1", kind));
        let fault: Fault = serde_json::from_str(r#"{"fault":"drop_ack","ack":"PERSISTED"}"#).expect("valid");
        assert_eq!(fault, Fault::any(FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 1 }));
    }
}
