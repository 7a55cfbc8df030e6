//! Why there is no session with a camera, or no longer.

use std::io;
use std::time::{Duration, SystemTime};

use health::{Problem, Reason};

/// Says what was found; [`SessionError::fix`] says what to change.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the URL starts with {scheme}://, expected rtsp://")]
    Scheme { scheme: String },
    #[error("the URL names no host, expected rtsp://HOST[:PORT]/PATH")]
    NoHost,
    #[error("the URL holds a user name or password, and URLs end up in logs")]
    CredentialsInUrl,
    #[error("the camera's address {host} does not resolve: {source}")]
    Dns { host: String, source: io::Error },
    #[error("no TCP connection to {host}:{port}: {source}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("{step} was not answered within {} s", .after.as_secs_f32())]
    Timeout { step: &'static str, after: Duration },
    #[error("{step} needs a login (RTSP {status})")]
    LoginNeeded { step: &'static str, status: u16 },
    #[error("{step}: the camera refused the login (RTSP {status})")]
    LoginRefused { step: &'static str, status: u16 },
    #[error("{step}: the camera has no path {path:?} (RTSP 404)")]
    NotFound { step: &'static str, path: String },
    #[error("{step}: the camera refuses UDP (RTSP 461)")]
    TransportRefused { step: &'static str },
    #[error("the camera describes no track at all")]
    NoTracks,
    #[error("the camera offers no video, only {offers}")]
    NoVideo { offers: String },
    #[error("the camera offers {offers}, expected H.264 or H.265")]
    UnsupportedCodec { offers: String },
    #[error("the camera's parameter sets: {0}")]
    Parameters(media::FormatError),
    #[error("no picture for {} s", .after.as_secs_f32())]
    Stalled { after: Duration },
    #[error("the camera closed the connection")]
    Disconnected,
    #[error("the camera ended the session (RTCP BYE)")]
    Goodbye,
    /// In retina's words.
    #[error("{step}: {text}")]
    Protocol { step: &'static str, text: String },
}

impl SessionError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dns { .. } => Reason::DnsFailed,
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Reason::ConnectionRefused
            }
            Self::Connect { .. } => Reason::Unreachable,
            Self::Timeout { .. } => Reason::Timeout,
            Self::LoginNeeded { .. } | Self::LoginRefused { .. } => Reason::Unauthorized,
            Self::NotFound { .. } => Reason::NotFound,
            Self::NoTracks | Self::NoVideo { .. } => Reason::NoVideo,
            Self::UnsupportedCodec { .. } | Self::Parameters(_) => Reason::UnsupportedCodec,
            Self::Stalled { .. } => Reason::Stalled,
            Self::Disconnected | Self::Goodbye => Reason::Disconnected,
            Self::Scheme { .. } | Self::NoHost | Self::CredentialsInUrl => Reason::ProtocolError,
            Self::TransportRefused { .. } | Self::Protocol { .. } => Reason::ProtocolError,
        }
    }

    /// What to change; keys are those of the configuration, options of `probe` have the same names.
    pub fn fix(&self) -> Option<&'static str> {
        Some(match self {
            Self::Scheme { .. } | Self::NoHost => "correct the url",
            Self::CredentialsInUrl => "remove them, and give username and password_file",
            Self::Dns { .. } => "check the name in the url, or use the address",
            Self::Connect { .. } => "check address and port in the url, the camera's power and the cable",
            Self::Timeout { .. } => "check that an RTSP server is there and not overloaded",
            Self::LoginNeeded { .. } => "give username and password_file",
            Self::LoginRefused { .. } => {
                "check username and password_file, and that the account may watch live video"
            }
            Self::NotFound { .. } | Self::NoTracks | Self::NoVideo { .. } => {
                "check the path in the url; the camera's manual has one for each stream"
            }
            Self::TransportRefused { .. } => "set transport = \"tcp\"",
            Self::UnsupportedCodec { .. } => "change the codec in the camera's settings",
            Self::Parameters(_) => "update the camera's firmware, or change its profile",
            Self::Stalled { .. } | Self::Disconnected | Self::Goodbye | Self::Protocol { .. } => return None,
        })
    }

    /// As a problem that began at wall time `now`.
    pub fn problem(&self, now: SystemTime) -> Problem {
        let problem = Problem::new(self.reason(), self.to_string(), now);
        match self.fix() {
            Some(fix) => problem.fix(fix),
            None => problem,
        }
    }

    /// Somebody has to change a setting; asking often only fills the camera's log (or locks the account).
    pub fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::LoginNeeded { .. }
                | Self::LoginRefused { .. }
                | Self::NotFound { .. }
                | Self::NoTracks
                | Self::NoVideo { .. }
                | Self::UnsupportedCodec { .. }
        )
    }
}
