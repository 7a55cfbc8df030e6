//! Keys for the next signature. Providers of AWS ask their source on each call, so what they gave is kept: with an end
//! until shortly before it, without one (keys from a file or the environment) for a minute, so that a changed file is
//! seen.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

use crate::error::Error;

/// Fresh keys are asked for when the old ones last no longer than this.
const RENEW_BEFORE_END: Duration = Duration::from_secs(5 * 60);
/// Keys without an end, and those that last no longer than that, are kept for so long.
const KEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct CredentialsCache {
    provider: SharedCredentialsProvider,
    timeout: Duration,
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    credentials: Credentials,
    /// When the provider was last asked.
    asked: Instant,
}

impl CredentialsCache {
    pub(crate) fn new(provider: SharedCredentialsProvider, timeout: Duration) -> Self {
        Self { provider, timeout, kept: Mutex::new(None) }
    }

    /// `now` is the service's time, `at` monotonic.
    pub(crate) async fn load(&self, now: SystemTime, at: Instant) -> Result<Credentials, Error> {
        let kept = self.kept.lock().expect("no panic while it is held").clone();
        if let Some(kept) = &kept {
            let young = at.saturating_duration_since(kept.asked) < KEEP;
            let lasts = |until| lasts_beyond(&kept.credentials, until);
            let has_end = kept.credentials.expiry().is_some();
            if (has_end && lasts(now + RENEW_BEFORE_END)) || (young && lasts(now)) {
                return Ok(kept.credentials.clone());
            }
        }
        let asked = tokio::time::timeout(self.timeout, self.provider.provide_credentials()).await;
        match asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(self.timeout))) {
            Ok(credentials) => {
                let fresh = Kept { credentials: credentials.clone(), asked: at };
                *self.kept.lock().expect("no panic while it is held") = Some(fresh);
                Ok(credentials)
            }
            // A file that is being replaced, a service that is away: the old ones are good still.
            Err(error) => kept
                .map(|kept| kept.credentials)
                .filter(|kept| lasts_beyond(kept, now))
                .ok_or(Error::Credentials(error)),
        }
    }

    /// The service refused them: ask the provider next time.
    pub(crate) fn forget(&self) {
        *self.kept.lock().expect("no panic while it is held") = None;
    }
}

fn lasts_beyond(credentials: &Credentials, time: SystemTime) -> bool {
    credentials.expiry().is_none_or(|end| end > time)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_credential_types::provider::future;

    use super::*;

    const T0: SystemTime = SystemTime::UNIX_EPOCH;
    const HOUR: Duration = Duration::from_secs(3600);

    /// Hands out key 1, key 2, ...; fails from `fails_from` on.
    #[derive(Debug)]
    struct Counting {
        calls: Arc<AtomicU32>,
        life: Option<Duration>,
        fails_from: u32,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
            let keys =
                Credentials::new(format!("key {call}"), "s", None, self.life.map(|life| T0 + life), "test");
            let failed = call >= self.fails_from;
            future::ProvideCredentials::ready(if failed {
                Err(CredentialsError::not_loaded("gone"))
            } else {
                Ok(keys)
            })
        }
    }

    /// Keys at these times, and at the last one again after the service refused them.
    async fn loads(life: Option<Duration>, fails_from: u32, times: &[Duration]) -> Vec<Option<String>> {
        let provider = Counting { calls: Arc::default(), life, fails_from };
        let cache = CredentialsCache::new(SharedCredentialsProvider::new(provider), HOUR);
        let (mut keys, begin) = (Vec::new(), clock::Clock::system().now());
        let key = async |time| {
            cache.load(T0 + time, begin + time).await.ok().map(|keys| keys.access_key_id().to_owned())
        };
        for time in times {
            keys.push(key(*time).await);
        }
        cache.forget();
        keys.push(key(*times.last().expect("a time")).await);
        keys
    }

    fn key(n: u32) -> Option<String> {
        Some(format!("key {n}"))
    }

    #[tokio::test]
    async fn temporary_keys_are_kept_until_shortly_before_their_end() {
        let (early, late, over) = (Duration::ZERO, HOUR - RENEW_BEFORE_END, HOUR);
        assert_eq!(loads(Some(HOUR), 99, &[early, early, late]).await, [key(1), key(1), key(2), key(3)]);
        assert_eq!(loads(Some(HOUR), 2, &[early, late, over]).await, [key(1), key(1), None, None]);
    }

    #[tokio::test]
    async fn keys_without_an_end_and_those_that_soon_end_are_asked_for_once_a_minute() {
        let s = Duration::from_secs;
        let times = [s(0), s(0), s(59), s(60), s(119), s(120)];
        let expected = [key(1), key(1), key(1), key(2), key(2), key(3), key(4)];
        assert_eq!(loads(None, 99, &times).await, expected);
        assert_eq!(loads(Some(s(300)), 99, &times).await, expected);
        assert_eq!(loads(None, 2, &[s(0), s(60), s(9000)]).await, [key(1), key(1), key(1), None]);
        assert_eq!(loads(Some(s(100)), 2, &[s(0), s(99), s(100)]).await, [key(1), key(1), None, None]);
    }
}
