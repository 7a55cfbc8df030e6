//! The harness itself: what it must notice.

use std::process::Command;

use kvs_edge_tests::{Process, program};

#[tokio::test]
async fn a_process_is_heard_and_its_end_is_seen() {
    let process =
        Process::spawn("sh", Command::new("/bin/sh").args(["-c", "echo one; echo two >&2; exit 3"]));
    process.line("two").await;
    assert_eq!(process.ended().await.code(), Some(3));
    assert_eq!(process.stdout(), ["one"]);
    let mut output = process.output();
    output.sort();
    assert_eq!(output, ["one", "two"]);
    assert!(!process.is_running());
    process.signal("KILL"); // of no effect, whoever has its number now
}

#[tokio::test]
async fn a_signal_reaches_the_process() {
    let process = Process::spawn("sleep", Command::new("/bin/sleep").arg("1000"));
    assert!(process.is_running());
    process.signal("TERM");
    assert_eq!(process.ended().await.code(), None);
}

#[test]
fn a_program_that_is_not_there_is_no_program_and_fails_where_peers_are_required() {
    let found = std::panic::catch_unwind(|| program("no-such-program", "none"));
    let required = std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_some();
    assert_eq!(found.is_err(), required);
    assert_eq!(found.ok().flatten(), None);
}
