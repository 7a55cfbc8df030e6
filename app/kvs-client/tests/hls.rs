//! Streams read by HLS, client and server in memory on paused time.

use std::sync::Arc;
use std::time::Duration;

mod film;
mod pair;

use bytes::Bytes;
use kvs::api::{StreamId, session as path};
use kvs_client::kvs;
use kvs_client::source::{HlsConfig, HlsSource, Play, SkipReason};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start, tags};
use media::{AudioFormat, Feed, SourceState, UnitSource, VideoCodec, VideoFormat};

use film::{
    AVCC, PICTURE_MS, PICTURES, begins_ms, film, finish, pictures, put_media, read, send, stream, upload,
};
use pair::{BEGIN_MS, Pair};

const S: Duration = Duration::from_secs(1);
fn source(pair: &Pair, play: Play, config: HlsConfig) -> HlsSource {
    HlsSource::new(&pair.client(), &stream(), play, config).expect("a good configuration")
}

fn whole_range() -> Play {
    Play::Range { from_ms: BEGIN_MS, to_ms: BEGIN_MS + 3_600_000 }
}

#[tokio::test(start_paused = true)]
async fn a_range_is_read_as_it_was_filmed_and_longer_than_a_playlist() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..11).await;
    let config = HlsConfig { playlist_fragments: Some(4), ..HlsConfig::default() };
    let mut source = source(&pair, whole_range(), config);
    assert_eq!((source.state(), source.is_healthy()), (SourceState::Disconnected, false));
    let (found, breaks) = read(&mut source, None).await;
    assert_eq!((found, breaks), (pictures(0..11), 1));
    assert!(source.next().await.is_none());
    assert_eq!((source.state(), source.take_skips()), (SourceState::Disconnected, vec![]));
    let metrics = source.hls_metrics();
    assert_eq!((metrics.frames_total, metrics.fragments_processed, metrics.read_errors_total), (55, 11, 0));
    assert_eq!((source.metrics().pictures, source.metrics().key_pictures), (55, 11));
    let urls = pair.server.calls()[kvs::api::path::GET_HLS_STREAMING_SESSION_URL];
    assert_eq!(urls, 3, "4, 4 and 3 fragments");
}

/// Ten minutes of a camera, with the limits of the service.
#[tokio::test(start_paused = true)]
async fn a_live_stream_outlives_its_urls_without_losing_or_repeating_a_picture() {
    let pair = Pair::new(64 * 1024, |options| options.limits = kvs_local::Limits::service()).await;
    upload(&pair, 0..1).await;
    let camera = film(&pair, vec![(S, 1..301)]);
    let mut source = source(&pair, Play::Live, HlsConfig::default());
    let (found, breaks) = read(&mut source, Some(301 * PICTURES - 1)).await;
    assert_eq!(source.take_skips(), []);
    assert_eq!((found.len(), breaks), (301 * 5, 0));
    assert_eq!(found, pictures(0..301));
    let metrics = source.hls_metrics();
    assert_eq!((metrics.url_refreshes_total, metrics.reconnects_total, metrics.read_errors_total), (2, 0, 0));
    assert_eq!(
        (source.state(), source.is_healthy(), metrics.connection_state),
        (SourceState::Connected, true, 2)
    );
    assert_eq!(source.take_skips(), []);
    camera.await.expect("filmed");
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_one_answer_no_picture_is_lost_or_repeated() {
    let refuse = |path: &str, error_type: &str, status, count| FaultKind::Refuse {
        path: path.to_owned(),
        error_type: error_type.to_owned(),
        status,
        count,
    };
    let answer =
        |path: &str, status, content_type: &str, location: Option<&str>, body: &str| FaultKind::AnswerFetch {
            path: path.to_owned(),
            status,
            content_type: content_type.to_owned(),
            location: location.map(str::to_owned),
            body: body.to_owned(),
            count: 1,
        };
    let cut = |path: &str, after_bytes| FaultKind::CutFetch { path: path.to_owned(), after_bytes, count: 1 };
    let html = "<html><body>Sign in to the network</body></html>";
    let cases = [
        refuse(path::HLS_MEDIA, "AccessDeniedException", 403, 1),
        refuse(path::HLS_FRAGMENT, "AccessDeniedException", 403, 1),
        refuse(path::HLS_FRAGMENT, "ClientLimitExceededException", 400, 1),
        refuse(path::HLS_MEDIA, "InternalFailure", 500, 1),
        refuse(kvs::api::path::GET_HLS_STREAMING_SESSION_URL, "ClientLimitExceededException", 400, 2),
        cut(path::HLS_MASTER, 10),
        cut(path::HLS_MEDIA, 100),
        cut(path::HLS_INIT, 100),
        cut(path::HLS_FRAGMENT, 0),
        cut(path::HLS_FRAGMENT, 500),
        FaultKind::GarbleFetch { path: path::HLS_FRAGMENT.to_owned(), count: 1 },
        FaultKind::GarbleFetch { path: path::HLS_INIT.to_owned(), count: 1 },
        FaultKind::GarbleFetch { path: path::HLS_MEDIA.to_owned(), count: 1 },
        answer(path::HLS_FRAGMENT, 302, "video/mp4", Some("/hls/v1/getMP4MediaFragment.mp4"), ""),
        answer(path::HLS_FRAGMENT, 200, "text/html", None, html),
        answer(path::HLS_FRAGMENT, 200, "video/mp4", None, html),
        answer(path::HLS_FRAGMENT, 200, "video/mp4", None, ""),
        answer(path::HLS_MEDIA, 200, "application/x-mpegURL", None, html),
        answer(path::HLS_MEDIA, 200, "application/x-mpegURL", None, ""),
        answer(path::HLS_MASTER, 200, "application/x-mpegURL", None, "#EXTM3U\n"),
    ];
    for fault in cases {
        let pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..6).await;
        pair.server.faults().inject(Fault::any(fault.clone()));
        let mut source = source(&pair, whole_range(), HlsConfig::default());
        let (found, breaks) = read(&mut source, None).await;
        assert_eq!((found, breaks), (pictures(0..6), 1), "{fault:?}");
        assert_eq!((source.take_skips(), pair.server.faults().waiting()), (vec![], vec![]), "{fault:?}");
        let errors = if matches!(fault, FaultKind::Refuse { count: 2, .. }) { 2 } else { 1 };
        assert_eq!(source.hls_metrics().read_errors_total, errors, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_playlist_that_goes_back_is_waited_out() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..1).await;
    let camera = film(&pair, vec![(S, 1..60)]);
    let mut source =
        source(&pair, Play::Live, HlsConfig { playlist_fragments: Some(10), ..HlsConfig::default() });
    let mut found = read(&mut source, Some(12 * PICTURES - 1)).await.0;
    pair.server.faults().inject(Fault::any(FaultKind::OldPlaylist { count: 1 }));
    found.extend(read(&mut source, Some(60 * PICTURES - 1)).await.0);
    assert_eq!(found, pictures(0..60));
    let metrics = source.hls_metrics();
    assert_eq!((metrics.parse_errors, source.take_skips()), (1, vec![]));
    camera.await.expect("filmed");
}

#[tokio::test(start_paused = true)]
async fn a_fragment_that_stays_unreadable_is_left_out_and_told() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..4).await;
    let fault = FaultKind::GarbleFetch { path: path::HLS_FRAGMENT.to_owned(), count: 2 };
    pair.server.faults().inject(Fault::any(fault));
    let stored = pair.server.fragments("cam1").await.expect("the stream");
    let mut source = source(&pair, whole_range(), HlsConfig::default());
    let mut found = read(&mut source, Some(2 * PICTURES - 1)).await.0;
    // Another one goes while its session lasts.
    pair.server.delete_fragment("cam1", &stored[2].number).await.expect("there");
    let (rest, breaks) = read(&mut source, None).await;
    found.extend(rest);
    assert_eq!((found, breaks), ([pictures(1..2), pictures(3..4)].concat(), 2));
    let skips: Vec<_> =
        source.take_skips().iter().map(|skip| (skip.before.to_string(), skip.fragments, skip.why)).collect();
    let expected = [
        (stored[0].number.clone(), Some(1), SkipReason::Unreadable),
        (stored[2].number.clone(), Some(1), SkipReason::Gone),
    ];
    assert_eq!(skips, expected);
    assert_eq!(source.hls_metrics().fragments_skipped, 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_outlived_and_what_was_missed_is_told() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..1).await;
    // Five minutes without footage.
    let camera = film(&pair, vec![(S, 1..20), (S * 300, 20..60)]);
    // Of one fragment, so that no playlist has those of both sessions, whenever it is tried again.
    let config =
        HlsConfig { max_consecutive_errors: None, playlist_fragments: Some(1), ..HlsConfig::default() };
    let mut source = source(&pair, Play::Live, config);
    let (found, _) = read(&mut source, Some(20 * PICTURES - 1)).await;
    assert_eq!(found, pictures(0..20));
    let (after, breaks) = read(&mut source, Some(60 * PICTURES - 1)).await;
    let first = after.first().expect("it goes on") / PICTURES;
    assert!((20..60).contains(&first));
    assert_eq!((after, breaks), (pictures(first..60), 1));
    let skips = source.take_skips();
    assert_eq!((skips.len(), skips[0].why), (1, SkipReason::NotListed), "{skips:?}");
    assert_eq!(skips[0].fragments, None, "another session of the producer");
    assert_eq!((source.hls_metrics().reconnects_total, source.state()), (1, SourceState::Connected));
    camera.await.expect("filmed");
}

#[tokio::test(start_paused = true)]
async fn errors_without_end_are_fatal_and_say_what_is_wrong() {
    let endless = |path: &str, status, content_type: &str, location: Option<&str>| FaultKind::AnswerFetch {
        path: path.to_owned(),
        status,
        content_type: content_type.to_owned(),
        location: location.map(str::to_owned),
        body: "any".to_owned(),
        count: 1_000,
    };
    let cases = [
        (
            endless(path::HLS_MEDIA, 301, "text/plain", Some(path::HLS_MEDIA)),
            "a redirection (301 Moved Permanently), which is not followed",
        ),
        (
            endless(path::HLS_MASTER, 200, "text/html", None),
            "content type text/html, expected application/x-mpegurl",
        ),
    ];
    for (fault, expected) in cases {
        let pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..2).await;
        pair.server.faults().inject(Fault::any(fault));
        let mut source = source(&pair, whole_range(), HlsConfig::default());
        let begin = pair.clock.now();
        assert_eq!(read(&mut source, None).await, (vec![], 0));
        assert_eq!((source.state(), source.hls_metrics().read_errors_total), (SourceState::Failed, 10));
        let error = source.last_error().expect("told").to_string();
        assert!(error.contains(expected) && !error.contains("SessionToken"), "{error}");
        // 5, 10, 20, 40 s and then 60 s each, 80 to 120 % of it.
        let waited = pair.clock.since(begin);
        assert!((S * 300..S * 450).contains(&waited), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_footage_or_without_pictures_is_no_source_of_pictures() {
    let nothing_kept = |options: &mut kvs_local::Options| *options = options.clone().stream("none", 0);
    let pair = Pair::new(64 * 1024, nothing_kept).await;
    for play in [Play::Live, whole_range()] {
        let mut none = HlsSource::new(&pair.client(), &StreamId::name("none"), play, HlsConfig::default())
            .expect("a good configuration");
        assert_eq!(read(&mut none, None).await, (vec![], 0));
        assert_eq!((none.state(), none.hls_metrics().read_errors_total), (SourceState::Failed, 10));
        let error = none.last_error().expect("told").to_string();
        assert!(error.contains("NoDataRetentionException"), "{error}");
    }
    let mut empty = source(&pair, Play::Live, HlsConfig::default());
    assert_eq!(read(&mut empty, None).await, (vec![], 0));
    assert_eq!((empty.state(), empty.is_healthy()), (SourceState::Failed, false));
    assert!(empty.last_error().expect("told").to_string().contains("No fragments found"));

    let aac = AudioFormat::aac(Bytes::from_static(&[0x14, 0x08])).expect("a config");
    let mut session = put_media(&pair.client(), &[Track::Audio(Arc::new(aac))]).await;
    let block = [&block_head(1, 0, true, 3)[..], b"aac"].concat();
    let cluster = [&cluster_start(BEGIN_MS)[..], &block, &tags(&[(kvs::tag::END_OF_FRAGMENT, "")])].concat();
    session.sender.send(cluster.into()).await.expect("taken");
    assert_eq!(finish(session).await, 1);
    let mut sound = source(&pair, whole_range(), HlsConfig::default());
    assert_eq!(read(&mut sound, None).await, (vec![], 0));
    assert_eq!(sound.state(), SourceState::Failed);
    assert_eq!(sound.last_error().expect("told").to_string(), "the playlist: no variant with pictures");
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_changes_in_mid_stream_is_told_and_costs_no_picture() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..2).await;
    let mut other = AVCC.to_vec();
    other[3] = 0x1f;
    let format = VideoFormat::from_codec_private(VideoCodec::H264, other.into()).expect("a record");
    let mut session = put_media(&pair.client(), &[Track::Video(Arc::new(format))]).await;
    for n in 2..4 {
        send(&mut session.sender, n).await;
    }
    assert_eq!(finish(session).await, 2);
    upload(&pair, 4..5).await;
    let mut source = source(&pair, whole_range(), HlsConfig::default());
    let mut found = Vec::new();
    while let Some(item) = source.next().await {
        match item {
            Feed::Video(unit) => found.push((unit.timestamp.as_millis(), unit.format.codec_private[3])),
            other => assert!(matches!(other, Feed::Break), "{other:?}"),
        }
    }
    let level = |n| if (2..4).contains(&(n / PICTURES)) { 0x1f } else { 0x1e };
    let expected: Vec<_> = (0..5 * PICTURES).map(|n| (begins_ms(0) + n * PICTURE_MS, level(n))).collect();
    assert_eq!((found, source.take_skips()), (expected, vec![]));
    assert_eq!(source.hls_metrics().read_errors_total, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_loses_nothing() {
    let pair = Pair::new(1_024, |_| {}).await;
    upload(&pair, 0..3).await;
    let mut source = source(&pair, whole_range(), HlsConfig::default());
    let mut found = Vec::new();
    loop {
        // Dropped at the first moment at which it has to wait.
        let next = tokio::select! {
            biased;
            next = source.next() => next,
            () = tokio::task::yield_now() => continue,
        };
        match next {
            Some(Feed::Video(unit)) => found.push((unit.timestamp.as_millis() - BEGIN_MS) / PICTURE_MS),
            Some(_) => {}
            None => break,
        }
    }
    assert_eq!(found, pictures(0..3));
}
