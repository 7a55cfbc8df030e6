//! AWS's consumer library for Python. It is in no package index: `KVS_EDGE_TEST_CONSUMER_LIBRARY` names a checkout of it.

use std::path::Path;
use std::process::Command;

use crate::client::Rig;
use crate::mkv::recorded;

#[tokio::test]
async fn the_consumer_library_for_python_reads_get_media_and_a_fragment_list() {
    let Some(library) = std::env::var_os("KVS_EDGE_TEST_CONSUMER_LIBRARY") else {
        println!(
            "skipped: KVS_EDGE_TEST_CONSUMER_LIBRARY names no checkout (a peer of cargo xtask test --peers)"
        );
        return;
    };
    let rig = Rig::new(24).await;
    rig.client.put_whole("cam1", &recorded("ok_put_001.mkv")).await;
    // Debian's interpreter, for which Debian's boto3 is installed.
    let mut python = Command::new("/usr/bin/python3");
    python.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_consumer.py")).arg(library);
    python.args([&rig.server.endpoint(), "cam1"]);
    python.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", "/dev/null");
    let output =
        tokio::task::spawn_blocking(move || python.output()).await.expect("joined").expect("python3");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let mut stored = rig.server.fragments("cam1").await.expect("the stream");
    // It never hands over the last fragment of an answer, of the real service neither.
    stored.pop().expect("some fragments");
    for operation in ["GetMedia", "GetMediaForFragmentList"] {
        let found =
            told.lines().filter_map(|line| line.strip_prefix(&format!("{operation} "))).map(str::to_owned);
        let expected = stored.iter().map(|fragment| format!("{} {}", fragment.number, fragment.blocks));
        assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{told}");
    }
}
