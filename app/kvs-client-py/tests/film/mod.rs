//! A recorded PutMedia body, as it is and as a camera that never ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use kvs_client::kvs::ack::AckEvent;
use kvs_client::kvs::api::StreamId;
use kvs_client::{Client, Clock, PutMedia, PutMediaInput, TimecodeType};
use tokio::sync::Notify;

/// When the recording began.
const BEGIN_MS: u64 = 1_795_186_073_633;
const FRAGMENT_MS: u64 = 2_000;
const CLUSTER: [u8; 4] = [0x1F, 0x43, 0xB6, 0x75];
const TIMECODE: u8 = 0xE7;
/// The camera films faster than time goes, so that nobody waits long for a fragment.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(crate) struct Film {
    head: Bytes,
    /// Each with the tags behind it.
    clusters: Vec<Bytes>,
}

pub(crate) fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/kvssink-putmedia/ok_put_001.mkv")
}

impl Film {
    pub(crate) fn recorded() -> Self {
        let body = Bytes::from(std::fs::read(path()).expect("a recording"));
        let is_cluster = |at: &usize| body[*at..].starts_with(&CLUSTER);
        let mut begins: Vec<usize> = (0..body.len()).filter(is_cluster).collect();
        let head = body.slice(..begins[0]);
        begins.push(body.len());
        let clusters = begins.windows(2).map(|pair| body.slice(pair[0]..pair[1])).collect();
        Self { head, clusters }
    }

    /// As it was recorded; how many fragments were kept.
    pub(crate) async fn upload(&self, client: &Client, stream: &str) -> usize {
        let PutMedia { mut sender, mut acks } =
            client.put_media(&input(stream, BEGIN_MS)).await.expect("a session");
        let sending = async {
            for part in [&self.head].into_iter().chain(&self.clusters) {
                sender.send(part.clone()).await.expect("taken");
            }
            sender.finish().await.expect("ended");
        };
        let hearing = async {
            let mut persisted = 0;
            while let Some(ack) = acks.next_ack().await.expect("an ack") {
                persisted += usize::from(matches!(ack.event, AckEvent::Persisted));
            }
            persisted
        };
        tokio::join!(sending, hearing).1
    }

    /// Again and again, from now on; `begun`: the first fragment is kept.
    pub(crate) async fn repeat(&self, client: &Client, stream: &str, begun: &Notify) {
        let begin_ms = Clock::system().wall_ms();
        let PutMedia { mut sender, mut acks } =
            client.put_media(&input(stream, begin_ms)).await.expect("a session");
        let sending = async {
            sender.send(self.head.clone()).await.expect("taken");
            for (n, cluster) in (0..).zip(self.clusters.iter().cycle()) {
                sender.send(at(cluster, begin_ms + n * FRAGMENT_MS)).await.expect("taken");
                tokio::time::sleep(PAUSE).await;
            }
        };
        let hearing = async {
            while let Ok(Some(ack)) = acks.next_ack().await {
                if ack.event == AckEvent::Persisted {
                    begun.notify_one();
                }
            }
        };
        tokio::join!(sending, hearing);
    }
}

fn input(stream: &str, start_ms: u64) -> PutMediaInput {
    let (stream, timecode_type) = (StreamId::name(stream), TimecodeType::Absolute);
    PutMediaInput { stream, timecode_type, start_ms, write_timeout: None }
}

/// The cluster with another timecode.
fn at(cluster: &Bytes, timecode_ms: u64) -> Bytes {
    let mut bytes = cluster.to_vec();
    let found = bytes.iter().take(32).position(|byte| *byte == TIMECODE).expect("a timecode comes first");
    let length = usize::from(bytes[found + 1] & 0x7F);
    let value = timecode_ms.to_be_bytes();
    bytes[found + 2..found + 2 + length].copy_from_slice(&value[8 - length..]);
    bytes.into()
}
