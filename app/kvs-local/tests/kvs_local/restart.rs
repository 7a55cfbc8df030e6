//! What was acknowledged is there after any end of the server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kvs_local::{Credentials, KvsLocal, Options, StartError};
use serde_json::json;

use crate::client::{Client, Rig, persisted};
use crate::mkv::{body, chunks, cluster, end_of_fragment, head};

#[tokio::test]
async fn streams_tags_and_fragments_survive_a_restart() {
    let rig = Rig::new(24).await;
    rig.client.call("/tagStream", json!({ "StreamName": "cam1", "Tags": { "site": "north" } })).await;
    let before = persisted(&rig.client.put_whole("cam1", &body(&[1_000, 2_000])).await);
    let described = rig.client.call("/describeStream", json!({ "StreamName": "cam1" })).await.json();
    let Rig { server, folder, .. } = rig;
    server.shutdown().await;

    let server = KvsLocal::start(Options::new(folder.path())).await.expect("starts again");
    let client = Client::new(server.address().expect("it listens"), Credentials::local());
    assert_eq!(client.call("/describeStream", json!({ "StreamName": "cam1" })).await.json(), described);
    let tags = client.call("/listTagsForStream", json!({ "StreamName": "cam1" })).await.json();
    assert_eq!(tags["Tags"], json!({ "site": "north" }));
    let after = persisted(&client.put_whole("cam1", &body(&[3_000])).await);
    assert!(after[0] > before[1]);
    assert_eq!(after[0].sequence(), before[0].sequence() + 1000);
    let stored = server.fragments("cam1").await.expect("listed");
    assert_eq!(stored.len(), 3);
    assert!(server.disk_used_bytes() > 0);
}

#[tokio::test]
async fn half_written_and_damaged_files_are_left_out_at_start() {
    let rig = Rig::new(24).await;
    let kept = persisted(&rig.client.put_whole("cam1", &body(&[1_000, 2_000, 3_000])).await);
    let Rig { server, folder, .. } = rig;
    server.shutdown().await;
    let [stream] = streams(folder.path()).try_into().expect("one stream");
    let fragments = stream.join("fragments");
    let whole = std::fs::read(fragments.join(kept[0].to_string())).expect("there");
    std::fs::write(fragments.join(".tmp-1"), &whole[..20]).expect("written");
    std::fs::write(fragments.join(kept[1].to_string()), &whole[..whole.len() - 1]).expect("written");
    std::fs::write(fragments.join("strange"), b"KVSFRAG1\xff\xff\xff\xff").expect("written");
    std::fs::write(stream.join(".tmp-stream.json"), b"{").expect("written");

    let server = KvsLocal::start(Options::new(folder.path())).await.expect("starts again");
    let found: Vec<_> =
        server.fragments("cam1").await.expect("listed").into_iter().map(|one| one.number).collect();
    assert_eq!(found, [kept[0].to_string(), kept[2].to_string()]);
    assert!(!fragments.join(".tmp-1").exists());
}

#[tokio::test]
async fn a_deleted_stream_is_gone_and_its_name_is_free() {
    let rig = Rig::new(24).await;
    rig.client.put_whole("cam1", &body(&[1_000])).await;
    assert_eq!(rig.client.call("/deleteStream", json!({ "StreamName": "cam1" })).await.status, 200);
    assert_eq!(streams(rig.folder.path()), [] as [PathBuf; 0]);
    assert_eq!(rig.server.disk_used_bytes(), 0);
    let again = json!({ "StreamName": "cam1", "DataRetentionInHours": 1 });
    assert_eq!(rig.client.call("/createStream", again).await.status, 200);
    assert_eq!(rig.client.read_all("cam1").await, b"");
}

/// The folders in a data folder.
fn streams(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).expect("readable");
    entries.map(|entry| entry.expect("readable").path()).filter(|path| path.is_dir()).collect()
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_does_not_start() {
    let Rig { server, client, folder } = Rig::new(24).await;
    let error = KvsLocal::start(Options::new(folder.path())).await.expect_err("the folder is taken");
    assert!(matches!(&error, StartError::InUse { path } if path == folder.path()), "{error:?}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    // The first one goes on, and a third one may follow it.
    assert_eq!(persisted(&client.put_whole("cam1", &body(&[1_000])).await).len(), 1);
    server.shutdown().await;
    KvsLocal::start(Options::new(folder.path())).await.expect("free again");
}

#[tokio::test]
async fn a_server_that_was_killed_leaves_its_folder_free() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut program = Program::start(folder.path());
    let start = || KvsLocal::start(Options::new(folder.path()));
    assert!(matches!(start().await, Err(StartError::InUse { .. })));
    // SIGKILL.
    program.child.kill().expect("killed");
    program.child.wait().expect("gone");
    let server = start().await.expect("free");
    let second = Program::command(folder.path()).output().expect("runs");
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("another server") && told.contains(&folder.path().display().to_string()), "{told}");
    drop(server);
}

/// The program, and where it listens.
struct Program {
    child: Child,
    client: Client,
}

impl Program {
    fn command(data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvs-local"));
        command
            .args(["--listen", "127.0.0.1:0", "--create", "cam1", "--retention-hours", "24", "--data"])
            .arg(data)
            .env_clear()
            .env("RUST_LOG", "warn");
        command
    }

    fn start(data: &Path) -> Self {
        let mut child = Self::command(data).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("prints its endpoint");
        let address = line.trim().strip_prefix("http://").expect("an endpoint").parse().expect("an address");
        Self { child, client: Client::new(address, Credentials::local()) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_every_persisted_fragment_is_there_and_nothing_half() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut kept = BTreeMap::new();
    for round in 0..3 {
        let mut program = Program::start(folder.path());
        let mut session = program.client.put_media("cam1").await;
        session.send(&head(1)).await;
        let mut timecode = round as u64 * 1_000_000;
        for _ in 0..20 {
            timecode += 1_000;
            session.send(&cluster(timecode)).await;
        }
        while kept.len() < (round + 1) * 10 {
            let ack = session.until("PERSISTED").await;
            kept.insert(ack.number.expect("has one").to_string(), ack.timecode_ms.expect("has one"));
        }
        // In the middle of the next ones; SIGKILL.
        session.send(&[cluster(timecode + 1_000), cluster(timecode + 2_000)[..50].to_vec()].concat()).await;
        program.child.kill().expect("killed");
        program.child.wait().expect("gone");
        for ack in session.rest().await {
            if let (kvs::ack::AckEvent::Persisted, Some(number), Some(timecode)) =
                (&ack.event, ack.number, ack.timecode_ms)
            {
                kept.insert(number.to_string(), timecode);
            }
        }
    }
    let mut program = Program::start(folder.path());
    let answer = program
        .client
        .get_media("cam1", json!({ "StartSelectorType": "EARLIEST" }))
        .await
        .end()
        .await
        .expect("ends well");
    let found = chunks(&answer);
    for chunk in &found {
        let timecode_ms = kvs::tag::parse_seconds(&chunk.opening[2].1).expect("a time");
        assert_eq!(chunk.cluster, cluster(timecode_ms), "whole, byte for byte");
        let told =
            kept.remove(chunk.number()).map_or(timecode_ms, |told| u64::try_from(told).expect("positive"));
        assert_eq!(told, timecode_ms);
    }
    assert_eq!(kept, BTreeMap::new(), "acknowledged but lost");

    // SIGTERM: sessions end, the program leaves cleanly.
    let mut session = program.client.put_media("cam1").await;
    session.send(&[body(&[9_000_000]), end_of_fragment()].concat()).await;
    session.until("PERSISTED").await;
    let pid = program.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("runs").success());
    session.rest().await;
    let mut child = std::mem::replace(&mut program.child, Command::new("true").spawn().expect("runs"));
    let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("joined").expect("waited");
    assert!(status.success(), "{status}");
}
