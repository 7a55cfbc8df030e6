//! Keys for the next signature. Providers of AWS ask their source on each call; here what has an end is kept
//! until shortly before it, and what has none (keys from a file or the environment) is read again each time,
//! so that a changed file is seen.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

use crate::error::Error;

/// Fresh keys are asked for when the old ones last no longer than this.
const RENEW_BEFORE_END: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub(crate) struct CredentialsCache {
    provider: SharedCredentialsProvider,
    timeout: Duration,
    kept: Mutex<Option<Credentials>>,
}

impl CredentialsCache {
    pub(crate) fn new(provider: SharedCredentialsProvider, timeout: Duration) -> Self {
        Self { provider, timeout, kept: Mutex::new(None) }
    }

    pub(crate) async fn load(&self, now: SystemTime) -> Result<Credentials, Error> {
        let kept = self.kept.lock().expect("no panic while it is held").clone();
        if let Some(kept) = &kept
            && lasts_beyond(kept, now + RENEW_BEFORE_END)
        {
            return Ok(kept.clone());
        }
        let asked = tokio::time::timeout(self.timeout, self.provider.provide_credentials()).await;
        match asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(self.timeout))) {
            Ok(fresh) => {
                let keep = fresh.expiry().is_some().then(|| fresh.clone());
                *self.kept.lock().expect("no panic while it is held") = keep;
                Ok(fresh)
            }
            Err(error) => kept.filter(|kept| lasts_beyond(kept, now)).ok_or(Error::Credentials(error)),
        }
    }

    /// The service refused them: ask the provider next time.
    pub(crate) fn forget(&self) {
        *self.kept.lock().expect("no panic while it is held") = None;
    }
}

fn lasts_beyond(credentials: &Credentials, time: SystemTime) -> bool {
    credentials.expiry().is_some_and(|end| end > time)
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

    async fn loads(life: Option<Duration>, fails_from: u32, times: &[Duration]) -> Vec<Option<String>> {
        let provider = Counting { calls: Arc::default(), life, fails_from };
        let cache = CredentialsCache::new(SharedCredentialsProvider::new(provider), HOUR);
        let mut keys = Vec::new();
        for time in times {
            keys.push(cache.load(T0 + *time).await.ok().map(|keys| keys.access_key_id().to_owned()));
        }
        cache.forget();
        keys.push(cache.load(T0).await.ok().map(|keys| keys.access_key_id().to_owned()));
        keys
    }

    #[tokio::test]
    async fn temporary_keys_are_kept_until_shortly_before_their_end() {
        let key = |n: u32| Some(format!("key {n}"));
        let (early, late, over) = (Duration::ZERO, HOUR - RENEW_BEFORE_END, HOUR);
        assert_eq!(loads(Some(HOUR), 99, &[early, early, late]).await, [key(1), key(1), key(2), key(3)]);
        assert_eq!(
            loads(None, 99, &[early, early]).await,
            [key(1), key(2), key(3)],
            "no end: asked each time"
        );
        assert_eq!(loads(Some(HOUR), 2, &[early, late, over]).await, [key(1), key(1), None, None]);
    }
}
