//! The programs of the README do what it says.

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/copy_range.rs"]
mod copy_range;
#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/detect.rs"]
mod detect;
#[allow(dead_code, reason = "other tests use more of it")]
mod footage;
#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/watch_live.rs"]
mod watch_live;

use kvs_client::documents_of;
use kvs_client::frames::{FrameOptions, WhenFull};
use kvs_client::source::{Play, SourceMode, SourceOptions};

use footage::{BEGIN_MS, footage, server, spec, stream};

const END_MS: u64 = BEGIN_MS + 3_600_000;

/// All that is stored, so that the programs end.
fn stored(mode: SourceMode) -> SourceOptions {
    SourceOptions { play: Play::Range { from_ms: BEGIN_MS, to_ms: END_MS }, ..SourceOptions::new(mode) }
}

#[test]
fn they_stand_in_the_readme_as_they_are_run() {
    let readme = include_str!("../README.md");
    for program in [
        include_str!("../examples/watch_live.rs"),
        include_str!("../examples/copy_range.rs"),
        include_str!("../examples/detect.rs"),
    ] {
        assert!(readme.contains(&format!("```rust\n{program}```")), "not as it is: {program:.60}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_watched_copied_and_looked_at() {
    let (server, spec) = (server().await, spec());
    footage(&spec).upload(&server.client, BEGIN_MS).await;

    for mode in [SourceMode::Hls, SourceMode::FragmentList] {
        let mut said = Vec::new();
        watch_live::watch(&server.client, &stream(), &stored(mode), &mut said).await.expect("to the end");
        let said = String::from_utf8(said).expect("text");
        let pictures: Vec<&str> = said.lines().filter(|line| line.contains(" 320x192 ")).collect();
        assert_eq!(pictures.len(), 100, "{said}");
        assert!(pictures[0].starts_with("2026-11-20T15:08:34.000Z 320x192 "), "{}", pictures[0]);
        assert_eq!(pictures.iter().filter(|line| line.contains(" key ")).count(), 5, "{said}");
    }

    let folder = tempfile::tempdir().expect("a folder");
    let cam1 = stream();
    let copy = || copy_range::copy(&server.client, &cam1, BEGIN_MS, END_MS, folder.path());
    assert_eq!(copy().await.expect("copied"), 5);
    let files =
        || std::fs::read_dir(folder.path()).expect("it is there").map(|file| file.expect("a file").path());
    for file in files() {
        let documents = documents_of(std::fs::read(&file).expect("readable").into()).expect("Matroska");
        let [document] = documents.as_slice() else { panic!("{}: one document", file.display()) };
        assert_eq!((document.blocks, document.complete), (20, true));
        let name = file.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        assert_eq!(document.number.map(|number| number.to_string()), name);
    }
    // What is there is not copied again.
    std::fs::remove_file(files().next().expect("five")).expect("gone");
    assert_eq!(copy().await.expect("copied"), 1);
    assert_eq!(files().count(), 5);

    // The scene has people who walk.
    let client = server.client.clone();
    let detected = tokio::task::spawn_blocking(move || {
        let frames =
            FrameOptions { target_fps: Some(5.0), when_full: WhenFull::Wait, ..FrameOptions::default() };
        let mut said = Vec::new();
        let ended = detect::detect(&client, &stream(), &stored(SourceMode::FragmentList), frames, &mut said);
        (ended.map_err(|error| error.to_string()), String::from_utf8(said).expect("text"))
    });
    let (ended, said) = detected.await.expect("no panic");
    assert_eq!(ended, Ok(()));
    assert!(said.contains("something moves at "), "{said}");
    assert!(said.ends_with("20 pictures, 0 not decoded\n"), "{said}");
}
