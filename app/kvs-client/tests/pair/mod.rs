//! Client and server in memory, on one paused clock.

use std::time::{Duration, UNIX_EPOCH};

use kvs_client::{Client, Clock, Config, SharedDialler, static_credentials};
use kvs_local::{KvsLocal, Options};

/// 2026-11-20T15:08:34Z.
pub(crate) const BEGIN_MS: u64 = 1_795_187_314_000;

pub(crate) struct Pair {
    pub(crate) server: KvsLocal,
    pub(crate) config: Config,
    #[allow(dead_code, reason = "not each test that uses the pair moves it")]
    pub(crate) clock: Clock,
    data: tempfile::TempDir,
}

impl Pair {
    pub(crate) async fn new(buffer_bytes: usize, change: impl FnOnce(&mut Options)) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_millis(BEGIN_MS));
        let mut options = Options::new(data.path()).stream("cam1", 24);
        options.clock = clock.clone();
        change(&mut options);
        let server = KvsLocal::start_in_memory(options).await.expect("starts");
        let keys = static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None);
        let mut config = Config::new("us-west-2", keys);
        config.endpoints.control = Some(server.endpoint().parse().expect("an endpoint"));
        config.clock = clock.clone();
        let connector = server.connector();
        config.dialler =
            SharedDialler::from_fn(move |_, _| std::future::ready(connector.connect(buffer_bytes)));
        Self { server, config, clock, data }
    }

    /// Under which the server keeps everything.
    #[allow(dead_code, reason = "not each test that uses the pair looks into it")]
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.data.path()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.config.clone()).expect("built")
    }
}
