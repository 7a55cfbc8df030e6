//! Ctrl-C in the middle of the work, and the run that goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

/// Ctrl-C comes with the first results.
struct Interrupts<'a> {
    stop: &'a CancellationToken,
    bytes: Vec<u8>,
}

impl Write for Interrupts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stop.cancel();
        Ok(())
    }
}

impl Rig {
    /// What there is when Ctrl-C came with the first results.
    async fn interrupted(&self, arguments: &str) -> Vec<u8> {
        let stop = CancellationToken::new();
        let mut out = Interrupts { stop: &stop, bytes: Vec::new() };
        let outcome = self.run_into(arguments, &mut out, &stop).await;
        assert!(outcome.is_ok() && stop.is_cancelled(), "{arguments}: {outcome:?}");
        out.bytes
    }

    fn folder(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = folder.read_dir().expect("a folder").map(|entry| entry.expect("a file").path());
    let file = |path: std::path::PathBuf| {
        let bytes = std::fs::read(&path).expect("readable");
        (path.to_string_lossy().into_owned(), bytes)
    };
    entries.map(file).collect()
}

/// As it was printed.
fn names(text: Vec<u8>) -> BTreeSet<String> {
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_stopped_ends_behind_a_whole_fragment() {
    let rig = Rig::new().await;
    let whole = rig.run("get --stream cam1").await.expect("done");
    let part = rig.interrupted("get --stream cam1").await;
    let documents = documents_of(part.clone().into()).expect("Matroska");
    assert_eq!((documents.len(), documents[0].complete), (1, true));
    assert!(whole.starts_with(&part));

    let saved = names(rig.interrupted("save FOLDER/saved --stream cam1").await);
    let there = files(&rig.folder("saved"));
    assert_eq!(
        (saved.len(), there.keys().cloned().collect()),
        (1, saved.clone()),
        "what is printed is there"
    );
    assert!(there.into_values().all(|bytes| bytes == part));
    let rest = names(rig.run("save FOLDER/saved --stream cam1").await.expect("done"));
    assert_eq!((rest.len(), rest.is_disjoint(&saved)), (4, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_are_stopped_are_whole_and_the_next_run_fetches_only_what_is_missing() {
    let rig = Rig::new().await;
    let all = "frames --stream cam1 --ratio 10 --jpeg FOLDER/all";
    rig.run(all).await.expect("done");
    let all = files(&rig.folder("all"));
    let fragment = |path: &String| {
        let name = path.rsplit('/').next().expect("a name").to_owned();
        name.split_once('-').expect("number and time").0.to_owned()
    };
    let of_fragments = |files: &BTreeMap<String, Vec<u8>>| {
        let mut counts = BTreeMap::<String, usize>::new();
        files.keys().for_each(|path| *counts.entry(fragment(path)).or_default() += 1);
        counts
    };
    let expected = of_fragments(&all);
    assert_eq!(expected.len(), 5);

    let command = "frames --stream cam1 --ratio 10 --jpeg FOLDER/some";
    let printed = names(rig.interrupted(command).await);
    let some = files(&rig.folder("some"));
    assert_eq!(some.keys().cloned().collect::<BTreeSet<_>>(), printed, "what is printed is there");
    for bytes in some.values() {
        assert_eq!((&bytes[..3], &bytes[bytes.len() - 2..]), (&[0xff, 0xd8, 0xff][..], &[0xff, 0xd9][..]));
    }
    for (number, count) in of_fragments(&some) {
        assert_eq!(count, expected[&number], "{number}: all pictures of what was fetched");
    }

    // One fragment is done, of the last one nobody knows.
    let command = "frames --stream cam1 --ratio 10 --jpeg FOLDER/more";
    rig.run(&format!("{command} --count 2")).await.expect("done");
    let before = files(&rig.folder("more"));
    let begun = of_fragments(&before);
    let (first, last) = (begun.keys().next().expect("one"), begun.keys().nth(1).expect("two"));
    let of_last = before.keys().rfind(|path| fragment(path) == *last).expect("a picture");
    std::fs::remove_file(of_last).expect("there");
    let resumed = names(rig.run(&format!("{command} --resume")).await.expect("done"));
    assert!(resumed.iter().all(|path| fragment(path) != *first), "{resumed:?}");
    let after = files(&rig.folder("more"));
    assert!(after.values().eq(all.values()), "the same pictures as at once");
    assert_eq!(resumed.len(), all.len() - expected[first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_of_fragments_is_made_once() {
    let rig = Rig::new().await;
    let begins = 1_795_186_073_000;
    let (client, stream) = rig.account("cam2").open().await.expect("a client");
    let input =
        PutMediaInput { stream, timecode_type: TimecodeType::Absolute, start_ms: 0, write_timeout: None };
    for (n, letters) in (0..).zip([[b'a', b'b'], [b'c', b'd'], [b'e', b'f']]) {
        let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
        sender.send(call(Some("one"), true, begins + n * 128, letters).into()).await.expect("taken");
        sender.finish().await.expect("ended");
        let mut events = Vec::new();
        while let Some(ack) = acks.next_ack().await.expect("in order") {
            events.push(ack.event);
        }
        assert!(events.contains(&kvs_client::kvs::ack::AckEvent::Persisted), "{events:?}");
    }
    let command = "wav FOLDER/sound --stream cam2 --per-fragment";
    let part = names(rig.interrupted(command).await);
    assert_eq!(part.len(), 2, "both sides of the first: {part:?}");
    let rest = names(rig.run(command).await.expect("done"));
    assert_eq!((rest.len(), rest.is_disjoint(&part)), (4, true));
    assert_eq!(files(&rig.folder("sound")).len(), 6);
    assert!(names(rig.run(command).await.expect("done")).is_empty(), "all is there");
    // Calls are made anew, and are the same.
    let calls = "wav FOLDER/calls --stream cam2";
    rig.interrupted(calls).await;
    let (first, second) = (rig.run(calls).await.expect("done"), rig.run(calls).await.expect("done"));
    assert_eq!(names(first), names(second));
    for bytes in files(&rig.folder("calls")).into_values() {
        let said = u32::from_le_bytes(bytes[40..44].try_into().expect("four"));
        assert_eq!((said as usize, bytes.len()), (3 * 2_048, 44 + 3 * 2_048), "all three fragments");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_of_reading_are_measured_and_told_as_a_table_and_as_json() {
    let rig = Rig::new().await;
    // The same recording again and again, each ten seconds behind the one before.
    let begins_ms = clock::Clock::system().wall_ms() - 3_600_000;
    let producer = async {
        for n in 0.. {
            let start = ProducerTimestamp::from_millis(begins_ms + n * 10_000);
            rig.text(&format!("put --stream cam2 {RECORDING} --start {start}")).await;
        }
    };
    let measured = async {
        let command = "bench-latency --stream cam2 --seconds 86400 --warm-up 0 --pictures 40";
        (rig.text(&format!("{command} --json")).await, rig.text(command).await)
    };
    let (json, table) = tokio::select! {
        () = producer => unreachable!("it has no end"),
        measured = measured => measured,
    };
    let rows: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        rows.iter().map(|row| row["mode"].as_str()).collect::<Vec<_>>(),
        [Some("GetMedia"), Some("HLS")]
    );
    for row in &rows {
        let number = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{name}: {row}"));
        assert_eq!((number("pictures"), &row["error"]), (40, &serde_json::Value::Null), "{row}");
        assert!(number("p50_ms") <= number("p95_ms") && number("p95_ms") <= number("worst_ms"), "{row}");
        assert!(number("p50_ms") > 0 && number("first_picture_ms") > 0, "{row}");
        // As it was stamped an hour ago.
        assert!(number("first_picture_age_ms") > 1_000_000, "{row}");
    }
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(table.lines().next(), Some("read with default settings, producer to here, ms"));
    assert_eq!(lines[1][..4], ["pictures", "p50", "p95", "worst"]);
    assert_eq!(
        lines[2..].iter().map(|line| &line[..2]).collect::<Vec<_>>(),
        [["GetMedia", "40"], ["HLS", "40"]]
    );
    assert!(lines[2..].iter().all(|line| line.len() == 7), "{table}");
}
