//! How a stream is read by HLS.

use std::time::Duration;

use crate::api::{DEFAULT_SESSION_SECONDS, SESSION_SECONDS};

/// How a stream is read. Names and defaults are those that users of KVS frame sources know.
#[derive(Clone, Debug, PartialEq)]
pub struct HlsConfig {
    /// How long a URL is used, 60 to 43200 s. The service is asked for at least 300, which is its least.
    pub hls_session_seconds: u32,
    /// So long before that a new one is asked for.
    pub url_refresh_margin: Duration,
    /// After the first error; then `backoff_multiplier` times as long each time, up to `max_reconnect_delay`; each 80 to
    /// 120 % of it.
    pub reconnect_delay: Duration,
    pub max_reconnect_delay: Duration,
    pub backoff_multiplier: f64,
    /// So many errors without a fragment in between are fatal; `None`: it never gives up.
    pub max_consecutive_errors: Option<u32>,
    /// Fragments in one playlist: 1 to 5000; `None`: as many as the service thinks right.
    pub playlist_fragments: Option<u32>,
    /// Sound is read beside the pictures, where the stream has some that HLS plays (AAC). It is a playlist of its own, so
    /// that this doubles the number of requests.
    pub sound: bool,
}

impl Default for HlsConfig {
    fn default() -> Self {
        Self {
            hls_session_seconds: DEFAULT_SESSION_SECONDS,
            url_refresh_margin: Duration::from_secs(30),
            reconnect_delay: Duration::from_secs(5),
            max_reconnect_delay: Duration::from_secs(60),
            backoff_multiplier: 2.0,
            max_consecutive_errors: Some(10),
            playlist_fragments: None,
            sound: true,
        }
    }
}

/// Which value is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HlsConfigError {
    #[error("hls_session_seconds is {0}, expected 60 to 43200")]
    Session(u32),
    #[error("url_refresh_margin is {0:?}, expected less than hls_session_seconds")]
    Margin(Duration),
    #[error("reconnect_delay is {0:?}, expected more than 0 and at most max_reconnect_delay")]
    Delay(Duration),
    #[error("backoff_multiplier is {0}, expected 1.0 to 10.0")]
    Multiplier(f64),
    #[error("max_consecutive_errors is 0, expected at least 1")]
    Errors,
    #[error("playlist_fragments is {0}, expected 1 to 5000")]
    Fragments(u32),
}

impl HlsConfig {
    /// For streams that are watched for days: long sessions, patient with errors.
    pub fn conservative() -> Self {
        Self {
            hls_session_seconds: 1_800,
            url_refresh_margin: Duration::from_secs(120),
            reconnect_delay: Duration::from_secs(10),
            max_reconnect_delay: Duration::from_secs(300),
            max_consecutive_errors: Some(20),
            ..Self::default()
        }
    }

    /// For trying things out: short sessions, quick to fail.
    pub fn aggressive() -> Self {
        Self {
            hls_session_seconds: 60,
            url_refresh_margin: Duration::from_secs(10),
            reconnect_delay: Duration::from_secs(1),
            max_reconnect_delay: Duration::from_secs(10),
            backoff_multiplier: 1.5,
            max_consecutive_errors: Some(5),
            ..Self::default()
        }
    }

    pub fn check(&self) -> Result<(), HlsConfigError> {
        let seconds = self.hls_session_seconds;
        if !(60..=*SESSION_SECONDS.end()).contains(&seconds) {
            return Err(HlsConfigError::Session(seconds));
        }
        if self.url_refresh_margin >= self.lasts() {
            return Err(HlsConfigError::Margin(self.url_refresh_margin));
        }
        if self.reconnect_delay.is_zero() || self.reconnect_delay > self.max_reconnect_delay {
            return Err(HlsConfigError::Delay(self.reconnect_delay));
        }
        if !(1.0..=10.0).contains(&self.backoff_multiplier) {
            return Err(HlsConfigError::Multiplier(self.backoff_multiplier));
        }
        if self.max_consecutive_errors == Some(0) {
            return Err(HlsConfigError::Errors);
        }
        match self.playlist_fragments {
            Some(found) if !crate::api::PLAYLIST_RESULTS.contains(&found) => {
                Err(HlsConfigError::Fragments(found))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn lasts(&self) -> Duration {
        Duration::from_secs(self.hls_session_seconds.into())
    }

    /// What the service is asked for.
    pub(super) fn asked_seconds(&self) -> u32 {
        self.hls_session_seconds.max(*SESSION_SECONDS.start())
    }
}
