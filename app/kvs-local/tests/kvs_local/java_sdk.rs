//! AWS's SDK for Java, from Maven Central: the only PutMedia client that AWS publishes; and AWS's parser library. They run when
//! `KVS_EDGE_TEST_PEERS` is set (`cargo xtask test --peers`); then a missing `mvn`, `javac` or `java` fails the test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::Rig;
use crate::mkv::{chunks, cluster_timecodes, recorded, recording};

fn run(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!("{program}: {error}; install it (Debian: maven, default-jdk-headless) or unset KVS_EDGE_TEST_PEERS")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The peers' class path: the libraries, fetched once for a build folder, and the compiled programs.
fn class_path() -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("java-sdk-peer");
    let (libraries, classes) = (target.join("libraries"), target.join("classes"));
    let mut fetch = Command::new("mvn");
    fetch.args(["--quiet", "--batch-mode", "--file"]).arg(sources.join("pom.xml"));
    fetch.arg("dependency:copy-dependencies").arg(format!("-DoutputDirectory={}", libraries.display()));
    run(&mut fetch);
    let libraries = format!("{}/*", libraries.display());
    let mut compile = Command::new("javac");
    run(compile
        .args(["-cp", &libraries, "-d"])
        .arg(&classes)
        .args(["Peer.java", "Reader.java"].map(|name| sources.join(name))));
    format!("{libraries}:{}", classes.display())
}

/// Also reads it with the parser library, over GetMedia and a fragment list, and by HLS.
#[tokio::test]
async fn the_sdk_for_java_uploads_lists_and_reads_back() {
    if std::env::var_os("KVS_EDGE_TEST_PEERS").is_none() {
        println!(
            "skipped: KVS_EDGE_TEST_PEERS is not set (a peer of cargo xtask test --peers: AWS SDK for Java)"
        );
        return;
    }
    let rig = Rig::new(24).await;
    let (endpoint, keys) = (rig.server.endpoint(), rig.client.credentials.clone());
    let start_ms = 1_519_423_067_997_u64;
    let peers = tokio::task::spawn_blocking(move || {
        let (classes, keys) = (class_path(), [keys.access_key, keys.secret_key]);
        let mut upload = Command::new("java");
        upload.args(["-cp", &classes, "Peer", &endpoint, "java"]).arg(recording("ok_put_001.mkv"));
        let told = run(upload.arg(start_ms.to_string()).args(&keys));
        let mut read = Command::new("java");
        (told, run(read.args(["-cp", &classes, "Reader", &endpoint, "java"]).args(&keys)))
    });
    let (told, read) = peers.await.expect("joined");
    let lines =
        |start: &str| -> Vec<&str> { told.lines().filter_map(|line| line.strip_prefix(start)).collect() };
    assert_eq!((lines("failure"), lines("complete")), (vec![], vec![""]), "{told}");
    let timecodes = cluster_timecodes(&recorded("ok_put_001.mkv"));
    for event in ["BUFFERING", "RECEIVED", "PERSISTED"] {
        let acked = lines(&format!("ack {event} "));
        assert_eq!(acked, timecodes.iter().map(u64::to_string).collect::<Vec<_>>(), "{told}");
    }
    let mut listed = lines("fragment ");
    listed.sort_unstable();
    let expected: Vec<_> = timecodes.iter().map(|timecode| format!("{} 1933", start_ms + timecode)).collect();
    assert_eq!(listed, expected);
    let answer = rig.client.read_all("java").await;
    assert_eq!(chunks(&answer).len(), timecodes.len());
    let stored = rig.server.fragments("java").await.expect("the stream");
    for operation in ["GetMedia", "GetMediaForFragmentList"] {
        let found =
            read.lines().filter_map(|line| line.strip_prefix(&format!("{operation} "))).map(str::to_owned);
        let expected = stored.iter().map(|fragment| {
            format!("{} {} {} {}", fragment.number, fragment.producer_ms, fragment.server_ms, fragment.blocks)
        });
        assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{operation}");
    }
    let segments: Vec<_> = read.lines().filter_map(|line| line.strip_prefix("HLS segment ")).collect();
    assert_eq!(segments.len(), stored.len(), "{read}");
    for (segment, fragment) in segments.iter().zip(&stored) {
        let (bytes, number) = segment.split_once(' ').expect("length and number");
        assert_eq!(number, fragment.number);
        assert!(bytes.parse::<u64>().expect("a length") > fragment.cluster_bytes / 2, "{segment}");
    }
    // What differs from answer to answer is how far behind now its fragments were.
    let read: usize = lines("read ")[0].parse().expect("a number");
    assert!(read.abs_diff(answer.len()) <= 10 * timecodes.len(), "{read} bytes, {} of ours", answer.len());
}
