//! The commands as they are typed, on a server in the same process.

use bytes::Bytes;
use clap::Parser;
use kvs_client::{PutMedia, PutMediaInput, TimecodeType, documents_of};
use kvs_local::{KvsLocal, Options};

use super::*;

mod resumed;

/// By AWS's own producer: five fragments of 2 s from 2026-11-20T14:47:53.633Z on.
const RECORDING: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/kvssink-putmedia/ok_put_001.mkv");

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Kvs,
}

/// A stream with a recording of AWS's own producer: five fragments; and a configuration that leads to it.
struct Rig {
    folder: tempfile::TempDir,
    server: KvsLocal,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new(folder.path().join("kvs")).stream("cam1", 24).stream("cam2", 24);
        let server = KvsLocal::start(options).await.expect("starts");
        for (name, text) in [("id", "AKIDKVSLOCAL"), ("secret", "kvs-local-secret")] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let text = format!(
            "[device]\nid = \"box\"\n[aws]\nregion = \"us-west-2\"\nendpoint = \"{}\"\naccess_key_id_file = \"id\"\n\
             secret_access_key_file = \"secret\"\n[mqtt]\nhost = \"127.0.0.1\"\n\
             [[camera]]\nid = \"cam1\"\nurl = \"rtsp://127.0.0.1:1/\"\nstream = \"cam1\"\n",
            server.endpoint()
        );
        std::fs::write(folder.path().join("kvs-edge.toml"), text).expect("written");
        let rig = Self { folder, server };
        let (client, stream) = rig.account("cam1").open().await.expect("a client");
        let input =
            PutMediaInput { stream, timecode_type: TimecodeType::Absolute, start_ms: 0, write_timeout: None };
        let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/kvssink-putmedia/ok_put_001.mkv");
        sender.send(std::fs::read(path).expect("the recording").into()).await.expect("taken");
        sender.finish().await.expect("ended");
        while acks.next_ack().await.expect("in order").is_some() {}
        rig
    }

    fn account(&self, stream: &str) -> Account {
        Account {
            stream: Some(stream.to_owned()),
            config: self.folder.path().join("kvs-edge.toml"),
            region: None,
            endpoint: None,
        }
    }

    async fn run(&self, arguments: &str) -> Result<Vec<u8>, Failed> {
        let mut out = Vec::new();
        self.run_into(arguments, &mut out, &CancellationToken::new()).await.map(|()| out)
    }

    async fn run_into(
        &self,
        arguments: &str,
        out: &mut (impl Write + Send),
        stop: &CancellationToken,
    ) -> Result<(), Failed> {
        let config = self.folder.path().join("kvs-edge.toml").to_string_lossy().into_owned();
        let line = format!("kvs {arguments}").replace("FOLDER", &self.folder.path().to_string_lossy());
        let mut words: Vec<&str> = line.split(' ').collect();
        words.extend(["--config", &config]);
        let line = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        execute(line.command, out, stop).await
    }

    async fn failure(&self, arguments: &str) -> String {
        self.run(arguments).await.expect_err(arguments).to_string()
    }

    async fn text(&self, arguments: &str) -> String {
        String::from_utf8(self.run(arguments).await.expect("done")).expect("text")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_listed_copied_taken_apart_saved_and_played() {
    let rig = Rig::new().await;
    let list = rig.text("list --stream cam1").await;
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((rows.len(), rows[0][1]), (5, "2026-11-20T14:47:53.633Z"), "{list}");
    let part =
        rig.text("list --json --stream cam1 --from 2026-11-20T14:47:55.633Z --to 2026-11-20T14:47:58Z").await;
    assert_eq!((part.lines().count(), part.contains(rows[1][0])), (2, true), "{part}");

    let copied: Bytes = rig.run("get --stream cam1").await.expect("done").into();
    let documents = documents_of(copied.clone()).expect("Matroska");
    let numbers: Vec<String> = documents.iter().filter_map(|one| one.number).map(|n| n.to_string()).collect();
    assert_eq!(numbers, rows.iter().map(|row| row[0]).collect::<Vec<_>>());
    let few = rig.run("get --stream cam1 --count 2").await.expect("done");
    assert!(copied.starts_with(&few) && documents_of(few.into()).expect("Matroska").len() == 2);

    let tags = rig.text("tags --stream cam1").await;
    let named = format!("{}\tAWS_KINESISVIDEO_FRAGMENT_NUMBER\t{}", numbers[4], numbers[4]);
    assert!(tags.lines().any(|line| line == named), "{tags}");

    let saved = rig.text("save FOLDER/saved --stream cam1").await;
    assert_eq!(saved.lines().count(), 5);
    std::fs::remove_file(saved.lines().next().expect("one")).expect("there");
    let again = rig.text("save FOLDER/saved --stream cam1").await;
    assert_eq!(again.lines().collect::<Vec<_>>(), [saved.lines().next().expect("one")], "what was missing");
    let one = std::fs::read(again.trim()).expect("there");
    assert_eq!(one, documents[0].bytes());

    let tree = rig.text(&format!("tree --file FOLDER/saved/{}.mkv", numbers[0])).await;
    for line in ["  TrackEntry", "CodecID: V_MPEG4/ISO/AVC", "    Block: track 1, +0, key frame"] {
        assert!(tree.contains(line), "{line}: {tree}");
    }
    let blocks = tree.lines().filter(|line| line.contains("Block: track 1")).count();
    assert_eq!(blocks as u64, documents[0].blocks);
    let json = rig.text(&format!("tree --json --file FOLDER/saved/{}.mkv", numbers[0])).await;
    assert_eq!(json.lines().count(), tree.lines().count());
    let first: serde_json::Value = serde_json::from_str(json.lines().next().expect("one")).expect("JSON");
    assert_eq!((first["name"].as_str(), first["offset"].as_u64()), (Some("EBML"), Some(0)));

    let url = rig.text("hls-url --stream cam1 --from 2026-11-20T14:47:53Z --to 2026-11-20T15:00:00Z").await;
    assert!(
        url.starts_with(&format!("{}/hls/v1/getHLSMasterPlaylist.m3u8?", rig.server.endpoint())),
        "{url}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let rig = Rig::new().await;
    let error = rig.failure("list --stream nobody").await;
    assert!(error.contains("ResourceNotFoundException") && error.contains("nobody"), "{error}");
    assert_eq!(rig.failure("list").await, "name the stream: --stream NAME");
    // What ended behind the tags that open a fragment: these are there.
    let opened = [media::mkv::write::header([7; 16], "test", &[]), media::mkv::write::tags(&[("A", "b")])];
    std::fs::write(rig.folder.path().join("opened.mkv"), opened.concat()).expect("written");
    assert_eq!(rig.text("tags --file FOLDER/opened.mkv").await, "-\tA\tb\n");
    assert!(rig.text("tree --file FOLDER/opened.mkv").await.contains("TagName: A"));
    assert_eq!(rig.text("save FOLDER/none --file FOLDER/opened.mkv").await, "");
    let error = rig.failure("tree --file FOLDER/secret").await;
    assert!(error.contains("secret: "), "{error}");
    let none = rig.run("get --stream cam1 --from 2030-01-01T00:00:00Z").await.expect("nothing in it");
    assert_eq!(none, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_broke_off_is_completed_without_fetching_twice() {
    let rig = Rig::new().await;
    let whole = rig.run("get --stream cam1").await.expect("done");
    rig.run("get --stream cam1 --output FOLDER/copy.mkv --count 3").await.expect("done");
    let path = rig.folder.path().join("copy.mkv");
    let part = std::fs::read(&path).expect("there");
    assert!(whole.starts_with(&part) && part.len() < whole.len());
    for cut in [0, 1_000, part.len() - 10] {
        std::fs::write(&path, &part[..part.len() - cut]).expect("written");
        rig.run("get --stream cam1 --output FOLDER/copy.mkv --resume").await.expect("done");
        assert!(std::fs::read(&path).expect("there") == whole, "{cut} bytes were missing");
    }
    rig.run("get --stream cam1 --output FOLDER/copy.mkv --count 1").await.expect("done");
    let one = std::fs::read(&path).expect("there");
    assert_eq!(documents_of(one.into()).expect("Matroska").len(), 1, "a copy from the beginning");
    let error = rig.failure("get --stream cam1 --output FOLDER/secret --resume").await;
    assert!(error.contains("secret: "), "{error}");
    assert_eq!(std::fs::read(rig.folder.path().join("secret")).expect("there"), b"kvs-local-secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_and_clips_come_as_files_and_for_pipes() {
    let rig = Rig::new().await;
    let names = rig.text("frames --stream cam1 --ratio 20 --jpeg FOLDER/pictures").await;
    let names: Vec<&str> = names.lines().collect();
    let documents = documents_of(std::fs::read(RECORDING).expect("there").into());
    assert_eq!(documents.map(|found| found.len()), Ok(1), "one session");
    // 15 pictures a second: of 30 in a fragment the first and the 21st.
    let list = rig.text("list --stream cam1").await;
    let numbers: Vec<&str> = list.lines().filter_map(|line| line.split('\t').next()).collect();
    for number in numbers {
        let of_fragment = names.iter().filter(|name| name.contains(number)).count();
        assert!((1..=2).contains(&of_fragment), "{number}: {of_fragment}");
    }
    let first = std::fs::read(names[0]).expect("there");
    assert_eq!(first[..3], [0xff, 0xd8, 0xff], "JPEG");
    let raw = rig.run("frames --stream cam1 --count 1 --ratio 1000 --raw").await.expect("done");
    assert_eq!(raw.len() % (3 * 16), 0);
    assert!(raw.len() > 3 * 160 * 120, "one picture: {} bytes", raw.len());

    let range = "--from 2026-11-20T14:47:53Z --to 2026-11-20T14:47:58Z";
    let clip = rig.run(&format!("clip --stream cam1 {range}")).await.expect("done");
    assert_eq!(&clip[4..8], b"ftyp");
    rig.run(&format!("clip --stream cam1 {range} --output FOLDER/clip.mp4")).await.expect("done");
    assert!(std::fs::read(rig.folder.path().join("clip.mp4")).expect("there") == clip);
    let images = rig.text(&format!("images FOLDER/images --stream cam1 {range} --interval 1000")).await;
    assert!(images.lines().count() >= 4, "{images}");
    let one = std::fs::read(images.lines().next().expect("one")).expect("there");
    assert_eq!(one[..3], [0xff, 0xd8, 0xff], "JPEG");
    let error = rig.failure("clip --stream cam1 --from 2030-01-01T00:00:00Z --to 2030-01-01T00:01:00Z").await;
    assert!(error.contains("GetClip"), "{error}");
    let error = rig.failure("clip --stream cam1 --from 2030-01-01T00:00:00Z --to 2029-01-01T00:01:00Z").await;
    assert!(error.contains("lies behind"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_put_once_however_often_it_is_run() {
    let rig = Rig::new().await;
    let put = format!("put --stream cam2 {RECORDING}");
    let acks = rig.text(&put).await;
    let times = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split('\t').nth(1)).map(str::to_owned).collect()
    };
    let first = rig.text("list --stream cam2").await;
    assert_eq!((times(&acks).len(), times(&first)), (5, times(&acks)));
    assert_eq!(times(&first)[0], "2026-11-20T14:47:53.633Z");
    assert_eq!(rig.text(&put).await, "", "all is there");
    // Moved: the same fragments at other times.
    let moved = rig.text(&format!("{put} --start 2026-11-21T00:00:00Z")).await;
    assert_eq!((times(&moved).len(), times(&moved)[0].as_str()), (5, "2026-11-21T00:00:00.000Z"));

    // What a first run could not send is sent by the second, and nothing else.
    let bytes = std::fs::read(RECORDING).expect("there");
    let part = rig.folder.path().join("part.mkv");
    std::fs::write(&part, &bytes[..bytes.len() / 2]).expect("written");
    let again = "--start 2026-11-22T00:00:00Z";
    let error = rig.failure(&format!("put --stream cam2 FOLDER/part.mkv {again}")).await;
    assert!(error.contains("input ends at byte") && error.contains("is stored"), "{error}");
    let before = times(&rig.text("list --stream cam2 --from 2026-11-22T00:00:00Z").await).len();
    assert!((1..5).contains(&before), "{before}");
    let rest = times(&rig.text(&format!("{put} {again}")).await);
    let after = times(&rig.text("list --stream cam2 --from 2026-11-22T00:00:00Z").await);
    // The fragment in which the first file ended is shorter than the one that belongs there: it is sent again.
    assert_eq!((rest.len(), after.len()), (6 - before, 6), "{rest:?} {after:?}");
    assert_eq!(after.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    assert_eq!(rig.text(&format!("{put} {again}")).await, "", "all is there");

    for (arguments, expected) in [
        ("put --stream cam2 FOLDER/secret", "expected Matroska"),
        ("put --stream cam2 FOLDER/nowhere.mkv", "No such file"),
        ("put --stream nobody FOLDER/part.mkv", "ResourceNotFoundException"),
    ] {
        let error = rig.failure(arguments).await;
        assert!(error.contains(expected), "{arguments}: {error}");
    }
    let relative = rig.folder.path().join("relative.mkv");
    let mut head = bytes[..bytes.len() / 2].to_vec();
    // The first cluster's timecode, an unsigned integer of eight bytes behind its id and size.
    let at = head.windows(2).position(|two| two == [0xE7, 0x88]).expect("a timecode") + 2;
    head[at..at + 8].fill(0);
    std::fs::write(&relative, head).expect("written");
    let error = rig.failure("put --stream cam2 FOLDER/relative.mkv").await;
    assert!(error.contains("--start"), "{error}");
}

/// A fragment of two sides: FROM first, or TO first; a letter of each.
fn call(contact: Option<&str>, from_first: bool, begins_ms: u64, letters: [u8; 2]) -> Vec<u8> {
    let names = [("AUDIO_FROM_CUSTOMER", letters[0]), ("AUDIO_TO_CUSTOMER", letters[1])];
    let order: Vec<_> = if from_first { names.to_vec() } else { names.into_iter().rev().collect() };
    let element = |id: &[u8], body: &[u8]| {
        let length = u32::try_from(body.len()).expect("short") | 0x1000_0000;
        [id, &length.to_be_bytes(), body].concat()
    };
    let entry = |(number, (name, _)): (u8, &(&str, u8))| {
        let parts = [
            element(&[0xD7], &[number]),
            element(&[0x73, 0xC5], &[number]),
            element(&[0x83], &[2]),
            element(&[0x53, 0x6E], name.as_bytes()),
            element(&[0x86], b"A_AAC"),
            element(&[0x63, 0xA2], &[0x11, 0x90]),
        ];
        element(&[0xAE], &parts.concat())
    };
    let tracks: Vec<u8> = (1..).zip(&order).flat_map(entry).collect();
    let mut bytes = media::mkv::write::header([7; 16], "test", &[]).to_vec();
    // Its tracks are empty.
    let tracks_at = bytes.windows(4).position(|four| four == [0x16, 0x54, 0xAE, 0x6B]);
    bytes.truncate(tracks_at.expect("there"));
    bytes.extend(element(&[0x16, 0x54, 0xAE, 0x6B], &tracks));
    bytes.extend(contact.iter().flat_map(|contact| media::mkv::write::tags(&[("ContactId", contact)])));
    bytes.extend(media::mkv::write::cluster_start(begins_ms));
    for (track, (_, letter)) in (1..).zip(order) {
        for offset in [0, 64] {
            bytes.extend(media::mkv::write::block_head(track, offset, true, 1_024));
            bytes.extend([letter; 1_024]);
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_each_call_becomes_a_wav_file() {
    let rig = Rig::new().await;
    let begins = 1_795_186_073_000;
    let answer = [
        call(Some("one"), true, begins, [b'a', b'b']),
        call(None, false, begins + 128, [b'c', b'd']),
        call(Some("../two"), true, begins + 1_128, [b'e', b'f']),
    ];
    std::fs::write(rig.folder.path().join("call.mkv"), answer.concat()).expect("written");
    let names = rig.text("wav FOLDER/calls --file FOLDER/call.mkv").await;
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for (contact, side, letters) in [
        ("one-2026", "AUDIO_FROM_CUSTOMER", "ac"),
        ("one-2026", "AUDIO_TO_CUSTOMER", "bd"),
        ("_.._two-2026", "AUDIO_FROM_CUSTOMER", "e"),
        ("_.._two-2026", "AUDIO_TO_CUSTOMER", "f"),
    ] {
        let path = names.iter().find(|name| name.contains(contact) && name.contains(side));
        let wav =
            std::fs::read(path.unwrap_or_else(|| panic!("{contact} {side}: {names:?}"))).expect("there");
        let expected: Vec<u8> = letters.bytes().flat_map(|letter| [letter; 2_048]).collect();
        assert!(wav[44..] == expected, "{contact} {side}");
        let said = u32::from_le_bytes(wav[40..44].try_into().expect("four"));
        assert_eq!(said as usize, expected.len());
    }
    let single =
        rig.text("wav FOLDER/each --file FOLDER/call.mkv --per-fragment --track AUDIO_TO_CUSTOMER").await;
    assert_eq!(single.lines().count(), 3, "{single}");
    let error = rig.failure("wav FOLDER/none --stream cam1").await;
    assert!(error.contains("AUDIO_FROM_CUSTOMER"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_the_pipe_is_no_failure_in_words() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let rig = Rig::new().await;
    let config = rig.folder.path().join("kvs-edge.toml").to_string_lossy().into_owned();
    for command in ["list", "get", "tags", "tree"] {
        let line = Line::try_parse_from(["kvs", command, "--stream", "cam1", "--config", &config]);
        let stop = CancellationToken::new();
        let outcome = execute(line.expect("a command").command, &mut Closed, &stop).await;
        assert!(matches!(outcome, Err(Failed::ClosedPipe)), "{command}: {outcome:?}");
    }
}
