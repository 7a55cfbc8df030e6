//! A stream followed over many GetMedia answers, client and server in memory on paused time.

use std::sync::Arc;
use std::time::Duration;

mod film;
mod pair;

use kvs::api::{StartSelector, StreamId, path};
use kvs_client::kvs;
use kvs_client::source::{FollowConfig, FollowSource};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start};
use media::{AudioFormat, Feed, SourceState, UnitSource, VideoCodec, VideoFormat};

use film::{AVCC, PICTURES, begins_ms, film, finish, pictures, put_media, read, send, stream, upload, video};
use pair::{BEGIN_MS, Pair};

const S: Duration = Duration::from_secs(1);

fn from_the_first() -> FollowConfig {
    FollowConfig { start: StartSelector::earliest(), ..FollowConfig::default() }
}

fn source(pair: &Pair, config: FollowConfig) -> FollowSource {
    FollowSource::new(&pair.client(), &stream(), config).expect("a good configuration")
}

fn last_of(fragments: u64) -> u64 {
    fragments * PICTURES - 1
}

#[tokio::test(start_paused = true)]
async fn a_live_stream_outlives_its_answers_without_losing_or_repeating_a_picture() {
    // As 38 and 40 minutes, in less time.
    let pair = Pair::new(64 * 1024, |options| {
        options.limits = kvs_local::Limits::service();
        options.limits.get_media_age = S * 70;
        options.limits.get_media_per_stream = 1;
    })
    .await;
    upload(&pair, 0..1).await;
    let camera = film(&pair, vec![(S, 1..150)]);
    let config = FollowConfig { rotate_after: S * 60, ..FollowConfig::default() };
    let mut source = source(&pair, config);
    assert_eq!((source.state(), source.is_healthy()), (SourceState::Disconnected, false));
    let (found, breaks) = read(&mut source, Some(last_of(150))).await;
    assert_eq!((found, breaks), (pictures(0..150), 0));
    let metrics = source.get_media_metrics();
    assert_eq!((metrics.connection_resets, metrics.read_errors, metrics.frames_read), (0, 0, 750));
    assert!((5..=6).contains(&pair.server.connections("cam1").expect("there").get_media_ever));
    assert!(source.is_healthy());
    camera.await.expect("filmed");
}

#[tokio::test(start_paused = true)]
async fn answers_that_end_break_repeat_or_refuse_cost_no_picture() {
    let refuse = |error_type: &str, status, count| FaultKind::Refuse {
        path: path::GET_MEDIA.to_owned(),
        error_type: error_type.to_owned(),
        status,
        count,
    };
    let cut = |after_bytes| FaultKind::CutGetMedia { after_bytes };
    let cases = [
        // Somewhere in the header, between fragments, inside a picture: a fragment is about 700 bytes.
        vec![cut(50)],
        vec![cut(640)],
        (1..13).map(|n| cut(n * 97)).collect(),
        vec![FaultKind::DuplicateChunk { count: 2 }],
        vec![refuse("InternalFailure", 500, 3)],
        vec![refuse("ClientLimitExceededException", 400, 2)],
        vec![refuse("ConnectionLimitExceededException", 400, 1)],
        vec![cut(1_000), refuse("InvalidArgumentException", 400, 1)],
    ];
    for faults in cases {
        let pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..8).await;
        for fault in &faults {
            pair.server.faults().inject(Fault::any(fault.clone()));
        }
        let config = FollowConfig { max_reconnect_attempts: Some(30), ..from_the_first() };
        let mut source = source(&pair, config);
        let (found, breaks) = read(&mut source, Some(last_of(8))).await;
        assert_eq!((found, breaks), (pictures(0..8), 0), "{faults:?}");
        assert_eq!(pair.server.faults().waiting(), [], "{faults:?}");
    }
}

/// As at 40 to 45 min: the answer is over, and nothing says so.
#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_silently_while_footage_comes_costs_no_picture() {
    let pair = Pair::new(64 * 1024, |options| options.limits.get_media_age = S * 25).await;
    upload(&pair, 0..1).await;
    let camera = film(&pair, vec![(S, 1..100)]);
    let mut source = source(&pair, FollowConfig::default());
    assert_eq!(read(&mut source, Some(last_of(100))).await, (pictures(0..100), 0));
    let metrics = source.get_media_metrics();
    assert!((6..=8).contains(&metrics.connection_resets), "{metrics:?}");
    assert_eq!((metrics.read_errors, metrics.fragments_skipped), (0, 0));
    camera.await.expect("filmed");
}

#[tokio::test(start_paused = true)]
async fn what_the_service_says_in_its_answer_and_what_is_no_matroska_cost_no_picture() {
    let cases = [3002, 4000, 4500, 5000].map(|id| (FaultKind::FailGetMedia { id }, 0));
    for (fault, parse_errors) in cases.into_iter().chain([(FaultKind::GarbageChunk, 1)]) {
        let pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..6).await;
        // In place of the third.
        pair.server.faults().inject(Fault::any(FaultKind::DuplicateChunk { count: 2 }));
        pair.server.faults().inject(Fault::any(fault.clone()));
        let mut source = source(&pair, from_the_first());
        assert_eq!(read(&mut source, Some(last_of(2))).await, (pictures(0..2), 0), "{fault:?}");
        assert_eq!(read(&mut source, Some(last_of(6))).await, (pictures(2..6), 0), "{fault:?}");
        let metrics = source.get_media_metrics();
        assert_eq!((metrics.read_errors, metrics.parse_errors), (1, parse_errors), "{fault:?}");
        assert_eq!(pair.server.faults().waiting(), [], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_begins_where_it_is_told_to_and_reads_as_much_at_once() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..3).await;
    pair.clock.sleep(S * 10).await;
    let fourth_ms = pair.clock.wall_ms();
    upload(&pair, 3..8).await;
    let stored = pair.server.fragments("cam1").await.expect("the stream");
    let number = stored[4].number.parse().expect("a number");
    for (start, first) in [
        (StartSelector::earliest(), 0),
        (StartSelector::after(number), 5),
        (StartSelector::server_timestamp_ms(fourth_ms), 3),
        (StartSelector::producer_timestamp_ms(begins_ms(2)), 2),
        // The server's tokens are numbers.
        (StartSelector::continuation(&stored[5].number), 6),
        (StartSelector::now(), 7),
    ] {
        for chunk_size in [1_024, 65_536, 16 << 20] {
            let config = FollowConfig { start: start.clone(), chunk_size, ..FollowConfig::default() };
            let mut source = source(&pair, config);
            let found = read(&mut source, Some(last_of(8))).await;
            assert_eq!(found, (pictures(first..8), 0), "{start:?}, {chunk_size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_pauses_and_comes_back_in_another_format_is_followed() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..3).await;
    let mut source = source(&pair, from_the_first());
    assert_eq!(read(&mut source, Some(last_of(3))).await, (pictures(0..3), 0));
    let clock = pair.clock.clone();
    let again = async {
        // Answers end 3 s after the last byte, again and again.
        clock.sleep(S * 60).await;
        let mut other = AVCC.to_vec();
        other[3] = 0x1f;
        let format = VideoFormat::from_codec_private(VideoCodec::H264, other.into()).expect("a record");
        let mut session = put_media(&pair.client(), &[Track::Video(Arc::new(format))]).await;
        send(&mut session.sender, 3).await;
        finish(session).await;
    };
    let (item, ()) = tokio::join!(source.next(), again);
    let Some(Feed::Video(unit)) = item else { panic!("{item:?}") };
    assert_eq!((unit.timestamp.as_millis(), unit.format.codec_private[3]), (begins_ms(3), 0x1f));
    let metrics = source.get_media_metrics();
    assert!(metrics.connection_resets > 3, "{metrics:?}");
    assert_eq!((metrics.read_errors, source.state()), (0, SourceState::Connected));
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_a_break_and_what_is_too_old_is_left_out() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..4).await;
    let stored = pair.server.fragments("cam1").await.expect("the stream");
    pair.server.delete_fragment("cam1", &stored[2].number).await.expect("there");
    let mut whole = source(&pair, from_the_first());
    let expected = [pictures(0..2), pictures(3..4)].concat();
    assert_eq!(read(&mut whole, Some(last_of(4))).await, (expected, 1));

    // Live, after a minute in which the connection could not be made.
    let mut live = source(&pair, FollowConfig::default());
    assert_eq!(read(&mut live, Some(last_of(4))).await, (pictures(3..4), 0));
    let refuse = FaultKind::Refuse {
        path: path::GET_MEDIA.to_owned(),
        error_type: "ServiceUnavailableException".to_owned(),
        status: 503,
        count: 5,
    };
    pair.server.faults().inject(Fault::any(refuse));
    let camera = film(&pair, vec![(S * 5, 4..80)]);
    let (found, breaks) = read(&mut live, Some(last_of(80))).await;
    let first = found[0] / PICTURES;
    assert!(first > 20, "it goes on with the newest, and not with fragment {first}");
    assert_eq!((found, breaks), (pictures(first..80), 1));
    assert_eq!(live.get_media_metrics().read_errors, 5);
    camera.await.expect("filmed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_nothing_is_followed_all_the_same() {
    let nothing = |options: &mut kvs_local::Options| options.create_streams = vec![("cam1".to_owned(), 0)];
    let pair = Pair::new(64 * 1024, nothing).await;
    let mut session = put_media(&pair.client(), &[video()]).await;
    for n in 0..3 {
        send(&mut session.sender, n).await;
    }
    assert_eq!(finish(session).await, 0, "nothing is kept");
    let mut source = source(&pair, from_the_first());
    assert_eq!(read(&mut source, Some(last_of(3))).await, (pictures(0..3), 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_pictures_is_no_source_of_pictures() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let sound = Track::Audio(AudioFormat::pcmu(8_000, 1).into());
    let mut session = put_media(&pair.client(), &[sound]).await;
    let block = [&block_head(1, 0, true, 5)[..], b"sound"].concat();
    session.sender.send([&cluster_start(BEGIN_MS)[..], &block].concat().into()).await.expect("taken");
    assert_eq!(finish(session).await, 1);
    let mut source = source(&pair, from_the_first());
    assert!(source.next().await.is_none());
    assert_eq!((source.state(), source.is_healthy()), (SourceState::Failed, false));
    let error = source.last_error().expect("told").to_string();
    assert!(error.contains("no H.264 or H.265 track"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_in_the_end_and_says_why() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let mut source = FollowSource::new(&pair.client(), &StreamId::name("nobody"), FollowConfig::default())
        .expect("a good configuration");
    assert!(source.next().await.is_none());
    assert!(source.next().await.is_none(), "it stays at its end");
    assert_eq!((source.state(), source.get_media_metrics().read_errors), (SourceState::Failed, 10));
    let error = source.last_error().expect("told").to_string();
    assert!(error.contains("ResourceNotFoundException"), "{error}");
}
