//! One thing that is not as it should be.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The kind of a problem; its name on the wire is stable, for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// First connection since start, nothing wrong yet.
    Starting,
    /// The name of the host does not resolve.
    DnsFailed,
    /// No route, or the host is down.
    Unreachable,
    /// The host is there, nothing listens on the port.
    ConnectionRefused,
    /// A handshake step was not answered in time; `detail` names it.
    Timeout,
    /// Wrong or missing user name or password (RTSP 401, 403).
    Unauthorized,
    /// The path of the URL does not exist on the camera (RTSP 404).
    NotFound,
    /// The camera offers no video.
    NoVideo,
    /// The camera offers no codec that can be uploaded.
    UnsupportedCodec,
    /// Connected, but no picture within `stall_s`.
    Stalled,
    /// The camera closed the connection.
    Disconnected,
    /// The camera broke RTSP or RTP rules; `detail` has the words.
    ProtocolError,
    /// Packets are lost; whole GOPs are dropped.
    PacketLoss,
    /// The camera's clock is absent or far from ours; receive time is used.
    CameraClock,
    /// The camera's sender reports give other times to its pictures than their arrival; receive time is used.
    SenderReport,
    /// GOPs longer than a fragment may be; fragments are cut between key frames.
    LongGop,
    /// KVS or the network behind it refuses or does not answer, for a reason that has no name of its own.
    UploadFailed,
    /// TLS with KVS fails: its certificate, our authorities, or somebody in between.
    TlsFailed,
    /// The connection to KVS is there, and nothing comes over it any more: it took no byte, or no ack came.
    StaleConnection,
    /// The uplink carries less than the camera delivers.
    SlowLink,
    /// KVS serves the stream elsewhere by now; the next attempt asks where.
    EndpointChanged,
    /// AWS credentials are missing or wrong.
    Credentials,
    /// The session token of the AWS credentials has expired.
    TokenExpired,
    /// The KVS stream does not exist.
    StreamMissing,
    /// The KVS stream's settings do not fit (no retention, wrong media type).
    StreamSettings,
    /// The key that encrypts the stream (KMS) cannot be used.
    EncryptionKey,
    /// KVS limits the rate of calls or bytes.
    Throttled,
    /// Somebody else sends to the stream, which takes one at a time.
    StreamBusy,
    /// The AWS account has as many streams as it may.
    AccountLimit,
    /// KVS will never take some fragments, such as one that is too long.
    FragmentRefused,
    /// The system clock is too wrong for signing.
    ClockSkew,
    /// The upload window is full: fragments are being lost.
    BacklogFull,
    /// The disk under the spool does not take footage, or does not return it.
    DiskFailed,
    /// Fragments were not read back in time.
    VerifyLate,
    /// A fragment read back differs from what was sent.
    VerifyMismatch,
    /// Fragments could not be read back at all.
    VerifyFailed,
    /// No decoder works for this camera, or it keeps failing.
    DecoderFailed,
    /// The model cannot be loaded, or its backend fails.
    DetectorFailed,
    /// The backend does not come back from a picture.
    DetectorStuck,
    /// The detector has no time for this camera: not admitted, or slower than the latency budget.
    DetectorOverloaded,
    /// The box has no time for this camera's pictures: its queue was full.
    BoxOverloaded,
    /// No connection to the MQTT broker.
    BrokerUnreachable,
    /// The MQTT broker does not want us.
    BrokerRefused,
    /// The clock of the box is wrong, or nobody vouches for it yet.
    BoxClock,
    /// The camera ended the session while it was looked at.
    SessionEnded,
    /// The camera plays, and no picture comes.
    NoPictures,
    /// No picture that decoding can begin at.
    NoKeyPicture,
    /// Parameter sets are missing or cannot be read.
    ParameterSets,
    /// Parameter sets come only among the pictures.
    ParameterSetsInline,
    /// No RTCP sender reports, so there is no camera clock.
    NoSenderReports,
    /// Pictures come in another order than shown.
    BFrames,
    /// Another frame rate than declared.
    FrameRate,
    /// The camera's sound has a codec that is not uploaded.
    AudioNotTaken,
    /// The camera does not send over UDP.
    UdpRefused,
    /// No decoder of this box works for the camera's codec.
    NoDecoder,
    /// A part of the daemon crashed and began anew.
    Crashed,
    /// The daemon stops.
    Stopping,
}

/// The name on the wire, such as `connection_refused`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A failing check of a camera or of the box. Prints as what was found and what to change, never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: Reason,
    /// What was found, against what was expected where that is not plain.
    pub found: String,
    /// Wall time at which it began; a problem that is found again keeps its time, see [`Problem::again`].
    pub since: SystemTime,
    /// What to change; absent where nobody can do more than wait.
    pub fix: Option<String>,
}

impl Problem {
    pub fn new(reason: Reason, found: impl Into<String>, since: SystemTime) -> Self {
        Self { reason, found: found.into(), since, fix: None }
    }

    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same problem as `before`, if it is of that kind, has begun when that one began.
    #[must_use]
    pub fn again(mut self, before: Option<&Problem>) -> Self {
        if let Some(before) = before.filter(|before| before.reason == self.reason) {
            self.since = before.since;
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// An error with all its causes on one line; those that it says itself are not said again.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_problem_that_is_found_again_keeps_its_time() {
        let first = Problem::new(Reason::Stalled, "no picture for 5 s", UNIX_EPOCH);
        let later = UNIX_EPOCH + Duration::from_secs(60);
        let again = Problem::new(Reason::Stalled, "no picture for 65 s", later).again(Some(&first));
        assert_eq!((again.since, again.found.as_str()), (UNIX_EPOCH, "no picture for 65 s"));
        assert_eq!(Problem::new(Reason::NotFound, "no such path", later).again(Some(&first)).since, later);
        assert_eq!(Problem::new(Reason::NotFound, "no such path", later).again(None).since, later);
    }

    #[test]
    fn a_problem_says_what_to_change() {
        let problem = Problem::new(Reason::NotFound, "the camera has no such path (RTSP 404)", UNIX_EPOCH);
        assert_eq!(problem.to_string(), "the camera has no such path (RTSP 404)");
        let problem = problem.fix("check the path in the url");
        assert_eq!(problem.to_string(), "the camera has no such path (RTSP 404); check the path in the url");
    }

    #[test]
    fn reasons_of_detection_have_stable_names() {
        let reasons = [
            (Reason::DecoderFailed, "decoder_failed"),
            (Reason::DetectorFailed, "detector_failed"),
            (Reason::DetectorStuck, "detector_stuck"),
            (Reason::DetectorOverloaded, "detector_overloaded"),
        ];
        for (reason, name) in reasons {
            assert_eq!(serde_json::to_value(reason).expect("serialises"), name);
            assert_eq!(reason.to_string(), name);
        }
        assert_eq!(Reason::ConnectionRefused.to_string(), "connection_refused");
    }

    #[test]
    fn a_cause_that_is_told_already_is_not_told_again() {
        #[derive(Debug)]
        struct Error(&'static str, std::io::Error);
        impl std::fmt::Display for Error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0.replace("CAUSE", &self.1.to_string()))
            }
        }
        impl std::error::Error for Error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.1)
            }
        }
        let told = |text| chain(&Error(text, std::io::Error::other("not a file")));
        assert_eq!(
            told("gate.mp4: CAUSE; expected a video file"),
            "gate.mp4: not a file; expected a video file"
        );
        assert_eq!(told("gate.mp4 cannot be opened"), "gate.mp4 cannot be opened: not a file");
    }
}
