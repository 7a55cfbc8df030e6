//! Decoded pictures out of a real server by real decoders, in the ways that a stream is read.

mod footage;

use std::time::Duration;

use camera_sim::{ClipSpec, Codec};
use kvs::api::{StartSelector, StreamId};
use kvs_client::consumer::Fragment;
use kvs_client::frames::{ChannelOrder, Frame, FrameOptions, Frames, FramesError, WhenFull};
use kvs_client::source::{Play, Source, SourceMode, SourceOptions};
use kvs_client::{Callbacks, Consumer, kvs};
use media::SourceState;

use footage::{BEGIN_MS, DEADLINE, PICTURE_MS, Server, footage, server, spec, stream};

/// All that is stored, by GetMedia and by HLS.
fn everything(mode: SourceMode) -> SourceOptions {
    let mut options = SourceOptions::new(mode);
    options.get_media.start = StartSelector::earliest();
    options.play = Play::Range { from_ms: BEGIN_MS, to_ms: BEGIN_MS + 3_600_000 };
    options
}

fn frames(server: &Server, source: &SourceOptions, change: impl FnOnce(&mut FrameOptions)) -> Frames {
    let mut options = FrameOptions { when_full: WhenFull::Wait, ..FrameOptions::default() };
    change(&mut options);
    let source = Source::new(&server.client, &stream(), source).expect("good options");
    Frames::start(source, options).expect("GStreamer is installed")
}

/// The number in the strip of a picture, which is black and white.
fn index(frame: &Frame) -> Option<u32> {
    let green: Vec<u8> = frame.data.iter().skip(1).step_by(3).copied().collect();
    camera_sim::read_frame_index(&green, frame.width, frame.width, frame.height)
}

#[track_caller]
fn next(frames: &Frames) -> Frame {
    match frames.read_within(DEADLINE) {
        Ok(Some(frame)) => frame,
        other => panic!("{other:?}; {:?}", frames.figures()),
    }
}

/// Until the stream ends.
#[track_caller]
fn rest(frames: &Frames) -> Vec<Frame> {
    let mut found = Vec::new();
    loop {
        match frames.read_within(DEADLINE) {
            Ok(Some(frame)) => found.push(frame),
            Err(FramesError::Ended) => return found,
            other => panic!("{other:?}; {:?}", frames.figures()),
        }
    }
}

/// As it was filmed from `begin_ms` on, and each from the fragment that is stored.
async fn check(server: &Server, found: &[Frame], spec: &ClipSpec, begin_ms: u64) {
    let stored = server.local.fragments("cam1").await.expect("the stream");
    for (n, frame) in found.iter().enumerate() {
        let at_ms = begin_ms + n as u64 * PICTURE_MS;
        assert_eq!((frame.width, frame.height), (spec.width as usize, spec.height as usize));
        assert_eq!(frame.data.len(), 3 * frame.width * frame.height);
        assert_eq!(frame.producer_timestamp.as_millis(), at_ms);
        assert_eq!(index(frame), Some(u32::try_from(n).expect("few")), "{frame:?}");
        let from = stored.iter().filter(|one| one.producer_ms <= at_ms).max_by_key(|one| one.producer_ms);
        let from = from.expect("it is stored");
        assert_eq!(frame.fragment.map(|number| number.to_string()).as_ref(), Some(&from.number));
        assert_eq!(frame.server_timestamp_ms, Some(from.server_ms));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stored_picture_is_an_array_by_any_way_with_its_times_and_its_fragment() {
    let (server, spec) = (server().await, spec());
    footage(&spec).upload(&server.client, BEGIN_MS).await;
    for mode in [SourceMode::GetMedia, SourceMode::Hls, SourceMode::FragmentList] {
        let frames = frames(&server, &everything(mode), |options| options.max_size = 7);
        let found: Vec<Frame> = (0..spec.pictures()).map(|_| next(&frames)).collect();
        check(&server, &found, &spec, BEGIN_MS).await;
        let figures = frames.figures();
        assert_eq!((figures.mode, figures.frames_read, figures.frames_dropped), (mode, 100, 0));
        assert_eq!((figures.decode_errors, figures.parse_errors, figures.read_errors), (0, 0, 0));
        assert!(figures.bytes_received > 50_000 && figures.last_frame_timestamp.is_some(), "{figures:?}");
        let decoder = frames.decoder().expect("it is looked at");
        assert_eq!((decoder.dropped, decoder.unknown), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_decoder_keeps_back_comes_before_another_codec_and_at_the_end() {
    let server = server().await;
    let first = ClipSpec { b_frames: 2, ..spec() };
    let second = ClipSpec { codec: Codec::H265, width: 256, height: 144, b_frames: 2, ..spec() };
    footage(&first).upload(&server.client, BEGIN_MS).await;
    let second_begin_ms = BEGIN_MS + 10_000;
    footage(&second).upload(&server.client, second_begin_ms).await;
    for mode in [SourceMode::Hls, SourceMode::FragmentList] {
        let frames = frames(&server, &everything(mode), |_| {});
        let found = rest(&frames);
        assert_eq!(found.len(), 200, "{mode}");
        check(&server, &found[..100], &first, BEGIN_MS).await;
        check(&server, &found[100..], &second, second_begin_ms).await;
        assert_eq!(frames.state(), SourceState::Disconnected);
        assert_eq!(frames.read(), Err(FramesError::Ended), "it stays at its end");
    }

    // Without an end the last two pictures may wait for the next one.
    let by_get_media = frames(&server, &everything(SourceMode::GetMedia), |_| {});
    let found: Vec<Frame> = (0..196).map(|_| next(&by_get_media)).collect();
    check(&server, &found[..100], &first, BEGIN_MS).await;
    check(&server, &found[100..], &second, second_begin_ms).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_at_the_rate_and_in_the_order_of_bytes_that_was_asked_for() {
    let (server, spec) = (server().await, spec());
    footage(&spec).upload(&server.client, BEGIN_MS).await;
    let read = |order, target_fps| {
        let frames = frames(&server, &everything(SourceMode::Hls), |options| {
            (options.order, options.target_fps) = (order, target_fps);
        });
        rest(&frames)
    };
    let slow = read(ChannelOrder::Bgr, Some(5.0));
    let times: Vec<u64> = slow.iter().map(|frame| frame.producer_timestamp.as_millis() - BEGIN_MS).collect();
    assert_eq!(times, (0..20).map(|n| n * 200).collect::<Vec<_>>());
    let red_first = read(ChannelOrder::Rgb, Some(5.0));
    assert_eq!(red_first.len(), slow.len());
    for (mut red_first, blue_first) in red_first.into_iter().zip(slow) {
        assert_ne!(red_first.data, blue_first.data);
        for pixel in red_first.data.as_chunks_mut::<3>().0 {
            pixel.reverse();
        }
        assert_eq!(red_first.data, blue_first.data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_counted_and_the_rest_comes() {
    let (server, spec) = (server().await, spec());
    let mut footage = footage(&spec);
    (41..45).for_each(|n| footage.spoil(n));
    footage.upload(&server.client, BEGIN_MS).await;
    let frames = frames(&server, &everything(SourceMode::Hls), |_| {});
    let found = rest(&frames);
    let figures = frames.figures();
    assert_eq!(figures.decode_errors, 4, "{figures:?}; {:?}", frames.decoder());
    // The fragments before and behind are as they were filmed.
    let whole = |from: u64, to: u64| {
        let at = |frame: &&Frame| (frame.producer_timestamp.as_millis() - BEGIN_MS) / PICTURE_MS;
        found.iter().filter(|frame| (from..to).contains(&at(frame))).filter_map(index).collect::<Vec<_>>()
    };
    assert_eq!(whole(0, 40), (0..40).collect::<Vec<_>>());
    assert_eq!(whole(60, 100), (60..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_threads_read_there_is_one_session_and_each_picture_comes_once() {
    let (server, spec) = (server().await, spec());
    footage(&spec).upload(&server.client, BEGIN_MS).await;
    let mut options = everything(SourceMode::Hls);
    // 5 fragments: the URL is replaced twice.
    options.hls.playlist_fragments = Some(2);
    let frames = std::sync::Arc::new(frames(&server, &options, |options| options.max_size = 3));
    let reading = (0..4).map(|_| {
        let frames = frames.clone();
        tokio::task::spawn_blocking(move || rest(&frames))
    });
    let mut found = Vec::new();
    for reading in reading.collect::<Vec<_>>() {
        found.extend(reading.await.expect("read"));
    }
    found.sort_by_key(|frame| frame.producer_timestamp);
    assert_eq!(found.len(), 100);
    check(&server, &found, &spec, BEGIN_MS).await;
    let calls = server.local.calls();
    assert_eq!(calls[kvs::api::path::GET_HLS_STREAMING_SESSION_URL], 3);
    assert_eq!(calls[kvs::api::session::HLS_FRAGMENT], 5, "each is fetched once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_gives_up_says_why_and_whoever_stops_it_is_not_kept_waiting() {
    let server = server().await;
    let nobody = StreamId::name("nobody");
    let mut options = SourceOptions::default();
    options.get_media.max_reconnect_attempts = Some(1);
    let source = Source::new(&server.client, &nobody, &options).expect("good options");
    let frames = Frames::start(source, FrameOptions::default()).expect("GStreamer is installed");
    let Err(FramesError::Failed { reason }) = frames.read_within(DEADLINE) else {
        panic!("{:?}", frames.figures());
    };
    assert!(reason.contains("nobody") && reason.contains("ResourceNotFound"), "{reason}");
    assert_eq!((frames.state(), frames.is_healthy()), (SourceState::Failed, false));
    assert_eq!(frames.figures().connection_state(), 4);

    // One that waits for a producer ends at once.
    let source = Source::new(&server.client, &stream(), &SourceOptions::default()).expect("good options");
    let frames = Frames::start(source, FrameOptions::default()).expect("GStreamer is installed");
    assert_eq!(frames.read_within(Duration::ZERO), Ok(None));
    frames.stop();
    assert_eq!(frames.read_within(DEADLINE), Err(FramesError::Stopped));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let client = kvs_client::Client::new({
        let keys = kvs_client::static_credentials("a", "b", None);
        let mut config = kvs_client::Config::new("us-west-2", keys);
        config.endpoints.control = Some("http://127.0.0.1:1".parse().expect("an endpoint"));
        config
    });
    let client = client.expect("built");
    let start = |options| {
        let source = Source::new(&client, &stream(), &SourceOptions::default()).expect("good options");
        Frames::start(source, options).expect_err("refused").to_string()
    };
    let found = start(FrameOptions { max_size: 0, ..FrameOptions::default() });
    assert_eq!(found, "max_size is 0, expected at least 1");
    let found = start(FrameOptions { target_fps: Some(-1.0), ..FrameOptions::default() });
    assert_eq!(found, "target_fps is -1, expected more than 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_nth_picture_of_a_fragment_that_arrived_is_decoded() {
    struct Pictures(std::sync::mpsc::Sender<Vec<Frame>>);
    impl Callbacks for Pictures {
        fn on_fragment_arrived(&self, _: &str, fragment: &Fragment) {
            self.0.send(fragment.frames(3).expect("decoded")).expect("heard");
        }
    }
    let (server, spec) = (server().await, spec());
    footage(&spec).upload(&server.client, BEGIN_MS).await;
    let (told, heard) = std::sync::mpsc::channel();
    let mut consumer = Consumer::new(Pictures(told));
    let answer = server.client.get_media(&stream(), StartSelector::earliest()).await.expect("an answer");
    consumer.read("cam1", answer);
    consumer.finished().await;
    let pictures: Vec<u32> =
        heard.try_iter().flatten().map(|frame| index(&frame).expect("a strip")).collect();
    let first = (0..spec.pictures()).step_by(20);
    assert_eq!(pictures, first.flat_map(|first| (first..first + 20).step_by(3)).collect::<Vec<_>>());
}
