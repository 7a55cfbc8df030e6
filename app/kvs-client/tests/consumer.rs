//! Answers of several streams as callbacks see them.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

mod pair;

use bytes::Bytes;
use kvs::ack::AckEvent;
use kvs::api::{GetMediaForFragmentListInput, StartSelector, StreamId};
use kvs_client::consumer::Fragment;
use kvs_client::{
    Callbacks, Client, Consumer, ConsumerError, PutMedia, PutMediaInput, TimecodeType, documents_of, kvs,
};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start, header, tags};
use media::{VideoCodec, VideoFormat};

use pair::{BEGIN_MS, Pair};

const STREAMS: [&str; 2] = ["cam1", "cam2"];
const BLOCK_BYTES: usize = 5_000;

/// Puts so many fragments of 1 s with two blocks and a tag; returns their numbers.
async fn put(client: &Client, stream: &str, fragments: u64) -> Vec<String> {
    let format = VideoFormat {
        codec: VideoCodec::H264,
        codec_private: Bytes::from_static(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 1, 0x67, 0]),
        width: 640,
        height: 360,
        frame_rate: None,
    };
    let input = PutMediaInput {
        stream: StreamId::name(stream),
        timecode_type: TimecodeType::Absolute,
        start_ms: BEGIN_MS,
        write_timeout: None,
    };
    let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
    let sending = async {
        sender.send(header([7; 16], "test", &[Track::Video(Arc::new(format))])).await.expect("taken");
        for n in 0..fragments {
            sender.send(cluster_start(BEGIN_MS + n * 1_000)).await.expect("taken");
            for (offset, key_frame) in [(0, true), (500, false)] {
                sender.send(block_head(1, offset, key_frame, BLOCK_BYTES)).await.expect("taken");
                sender.send(vec![7; BLOCK_BYTES].into()).await.expect("taken");
            }
            sender.send(tags(&[("place", stream)])).await.expect("taken");
        }
        sender.finish().await.expect("ended");
    };
    let hearing = async {
        let mut numbers = Vec::new();
        while let Some(ack) = acks.next_ack().await.expect("in order") {
            if ack.event == AckEvent::Persisted {
                numbers.push(ack.number.expect("a number").to_string());
            }
        }
        numbers
    };
    tokio::join!(sending, hearing).1
}

enum Call {
    Arrived(String, Fragment),
    Complete(String),
    Exception(String, String),
}

struct Told(Sender<Call>);

impl Callbacks for Told {
    fn on_fragment_arrived(&self, stream_name: &str, fragment: &Fragment) {
        self.0.send(Call::Arrived(stream_name.to_owned(), fragment.clone())).expect("heard");
    }

    fn on_read_stream_complete(&self, stream_name: &str) {
        self.0.send(Call::Complete(stream_name.to_owned())).expect("heard");
    }

    fn on_read_stream_exception(&self, stream_name: &str, error: &ConsumerError) {
        self.0.send(Call::Exception(stream_name.to_owned(), error.to_string())).expect("heard");
    }
}

fn consumer() -> (Consumer, Receiver<Call>) {
    let (told, heard) = channel();
    (Consumer::new(Told(told)), heard)
}

/// Numbers that arrived, and how the answer ended.
fn of_stream(calls: &[Call], stream: &str) -> (Vec<String>, Vec<String>) {
    let (mut numbers, mut ends) = (Vec::new(), Vec::new());
    for call in calls {
        match call {
            Call::Arrived(name, fragment) if name == stream => {
                assert!(ends.is_empty(), "nothing comes behind the end");
                numbers.push(fragment.number.expect("a number").to_string());
            }
            Call::Complete(name) if name == stream => ends.push("complete".to_owned()),
            Call::Exception(name, error) if name == stream => ends.push(error.clone()),
            _ => {}
        }
    }
    (numbers, ends)
}

async fn both() -> Pair {
    Pair::new(64 << 10, |options| *options = options.clone().stream("cam2", 24)).await
}

#[tokio::test]
async fn all_fragments_of_several_streams_arrive_in_order_the_last_ones_too() {
    let pair = both().await;
    let client = pair.client();
    let (mut consumer, heard) = consumer();
    let mut sent = Vec::new();
    for (stream, fragments) in STREAMS.into_iter().zip([5, 3]) {
        let numbers = put(&client, stream, fragments).await;
        let input =
            GetMediaForFragmentListInput { stream: StreamId::name(stream), fragments: numbers.clone() };
        consumer.read(stream, client.get_media_for_fragment_list(&input).await.expect("an answer"));
        sent.push(numbers);
    }
    consumer.finished().await;
    assert_eq!(consumer.reading(), 0);
    let calls: Vec<Call> = heard.try_iter().collect();
    for (stream, numbers) in STREAMS.into_iter().zip(sent) {
        assert_eq!(of_stream(&calls, stream), (numbers, vec!["complete".to_owned()]));
    }
    let fragments = calls.iter().filter_map(|call| match call {
        Call::Arrived(stream, fragment) => Some((stream, fragment)),
        _ => None,
    });
    let folder = tempfile::tempdir().expect("a folder");
    for (stream, fragment) in fragments {
        assert_eq!((fragment.blocks, fragment.tag("place")), (2, Some(stream.as_str())));
        let contents = fragment.contents().expect("whole");
        assert_eq!(contents.blocks.iter().map(|block| block.payload.len()).sum::<usize>(), 2 * BLOCK_BYTES);
        let path = folder.path().join("fragment.mkv");
        fragment.save_mkv(&path).expect("written");
        let saved = documents_of(std::fs::read(&path).expect("there").into()).expect("Matroska");
        assert_eq!(saved.iter().map(|one| one.number).collect::<Vec<_>>(), [fragment.number]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 1, "nothing is left beside it");
}

#[tokio::test]
async fn an_answer_that_breaks_is_an_exception_behind_what_came_whole() {
    let pair = both().await;
    let client = pair.client();
    let numbers = put(&client, "cam1", 3).await;
    let after_bytes = 2 * BLOCK_BYTES as u64 * 2 + 5_000; // inside the third
    pair.server.faults().inject(Fault::any(FaultKind::CutGetMedia { after_bytes }));
    let (mut consumer, heard) = consumer();
    let answer = client.get_media(&StreamId::name("cam1"), StartSelector::earliest()).await.expect("one");
    consumer.read("cam1", answer);
    consumer.finished().await;
    let (arrived, ends) = of_stream(&heard.try_iter().collect::<Vec<_>>(), "cam1");
    assert_eq!(arrived, numbers[..2]);
    assert!(ends.len() == 1 && ends[0] != "complete", "{ends:?}");
}

/// Removes what is named after this fragment; returns how many files that were.
fn remove_files(folder: &Path, number: &str) -> usize {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| {
            if path.is_dir() {
                return remove_files(&path, number);
            }
            let named = path.file_name().is_some_and(|name| name.to_string_lossy().contains(number));
            if named {
                std::fs::remove_file(&path).expect("removed");
            }
            usize::from(named)
        })
        .sum()
}

#[tokio::test]
async fn what_the_service_says_in_its_answer_is_an_exception() {
    let pair = both().await;
    let client = pair.client();
    let mut numbers = put(&client, "cam1", 3).await;
    let fragments = numbers.clone();
    let gone = numbers.remove(1);
    assert_eq!(remove_files(pair.folder(), &gone), 1, "one file is of this fragment");
    let input = GetMediaForFragmentListInput { stream: StreamId::name("cam1"), fragments };
    let (mut consumer, heard) = consumer();
    consumer.read("cam1", client.get_media_for_fragment_list(&input).await.expect("the answer says it"));
    consumer.finished().await;
    let (arrived, ends) = of_stream(&heard.try_iter().collect::<Vec<_>>(), "cam1");
    assert_eq!(arrived, numbers);
    assert!(ends.len() == 1 && ends[0].starts_with("KVS read failure"), "{ends:?}");
}

#[tokio::test]
async fn a_stream_that_is_stopped_ends_in_order_and_the_other_one_goes_on() {
    let pair = both().await;
    let client = pair.client();
    for stream in STREAMS {
        put(&client, stream, 2).await;
    }
    let (mut consumer, heard) = consumer();
    for stream in STREAMS {
        let start = StartSelector::earliest();
        consumer.read(stream, client.get_media(&StreamId::name(stream), start).await.expect("an answer"));
    }
    consumer.stop("cam1");
    tokio::time::timeout(Duration::from_secs(60), consumer.finished()).await.expect("both are over");
    let calls: Vec<Call> = heard.try_iter().collect();
    assert_eq!(of_stream(&calls, "cam1").1, ["complete"]);
    let (arrived, ends) = of_stream(&calls, "cam2");
    assert_eq!((arrived.len(), ends), (2, vec!["complete".to_owned()]));
}
