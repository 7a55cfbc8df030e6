//! Stored fragments read by number and by time, client and server in memory on paused time.

#[allow(dead_code, reason = "what is live is not read here")]
mod film;
#[allow(dead_code, reason = "what is live is not read here")]
mod pair;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use kvs::FragmentNumber;
use kvs::api::{FragmentSelectorType, StreamId, path};
use kvs_client::source::{
    FragmentListConfig, FragmentListSource, SkipReason, Source, SourceMode, SourceOptions, StreamSource,
    Wanted,
};
use kvs_client::{SharedDialler, kvs};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::Track;
use media::{Feed, SourceState, UnitSource, VideoCodec, VideoFormat};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use film::{AVCC, PICTURE_MS, PICTURES, begins_ms, finish, pictures, put_media, read, send, stream, upload};
use pair::{BEGIN_MS, Pair};

fn by_time(from: u64, to: u64) -> Wanted {
    let by = FragmentSelectorType::ProducerTimestamp;
    Wanted::Range { by, from_ms: begins_ms(from), to_ms: begins_ms(to) }
}

fn source(pair: &Pair, wanted: Wanted, batch: usize) -> FragmentListSource {
    let config = FragmentListConfig { batch, ..FragmentListConfig::default() };
    FragmentListSource::new(&pair.client(), &stream(), wanted, config).expect("a good configuration")
}

async fn numbers(pair: &Pair) -> Vec<FragmentNumber> {
    let stored = pair.server.fragments("cam1").await.expect("the stream");
    stored.iter().map(|one| one.number.parse().expect("a number")).collect()
}

fn skips(source: &mut FragmentListSource) -> Vec<(FragmentNumber, SkipReason)> {
    source.take_skips().iter().map(|skip| (skip.before, skip.why)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_range_of_several_sessions_and_calls_is_read_in_order_over_one_connection() {
    let pair = Pair::new(64 * 1024, |options| options.limits.fragment_list_per_stream = 1).await;
    for n in 0..3 {
        upload(&pair, n * 40..(n + 1) * 40).await;
    }
    let mut source = source(&pair, by_time(3, 116), 50);
    assert_eq!(
        (source.state(), source.left(), source.is_healthy()),
        (SourceState::Disconnected, None, false)
    );
    // Both ends of the range are included.
    assert_eq!(read(&mut source, None).await, (pictures(3..117), 1));
    assert!(source.next().await.is_none(), "it stays at its end");
    assert_eq!(
        (source.state(), source.left(), skips(&mut source)),
        (SourceState::Disconnected, Some(0), vec![])
    );
    let calls = pair.server.calls();
    assert_eq!((calls[path::LIST_FRAGMENTS], calls[path::GET_MEDIA_FOR_FRAGMENT_LIST]), (1, 3));
    let figures = source.figures();
    assert_eq!((figures.fragments_processed, figures.frames_read), (114, 114 * PICTURES));
    assert_eq!((figures.read_errors, figures.connection_resets), (0, 0));
    assert!(figures.prometheus("gate").contains("kvs_fragment_list_frames_total{camera_id=\"gate\"} 570\n"));
}

#[tokio::test(start_paused = true)]
async fn fragments_are_read_in_the_order_in_which_they_were_asked_for_and_a_codec_that_changes_is_told() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..3).await;
    let mut other = AVCC.to_vec();
    other[3] = 0x1f;
    let format = VideoFormat::from_codec_private(VideoCodec::H264, other.into()).expect("a record");
    let mut session = put_media(&pair.client(), &[Track::Video(Arc::new(format))]).await;
    send(&mut session.sender, 3).await;
    assert_eq!(finish(session).await, 1);
    let all = numbers(&pair).await;
    let mut source = source(&pair, Wanted::Numbers(vec![all[2], all[3], all[0]]), 2);
    let mut found = Vec::new();
    while let Some(item) = source.next().await {
        match item {
            Feed::Video(unit) if unit.random_access => {
                found.push((unit.timestamp.as_millis(), unit.format.codec_private[3]));
            }
            Feed::NewTimeline => found.push((0, 0)),
            _ => {}
        }
    }
    // Time that goes back is a new timeline.
    assert_eq!(found, [(begins_ms(2), 0x1e), (begins_ms(3), 0x1f), (0, 0), (begins_ms(0), 0x1e)]);
}

#[tokio::test(start_paused = true)]
async fn none_is_left_out_without_a_report() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..8).await;
    // The second try of two fragments counts.
    upload(&pair, 5..7).await;
    let all = numbers(&pair).await;
    let mut by_range = source(&pair, by_time(0, 7), 100);
    let (found, _) = read(&mut by_range, None).await;
    assert_eq!(found, pictures(0..8));
    assert_eq!(skips(&mut by_range), [(all[5], SkipReason::Duplicate), (all[6], SkipReason::Duplicate)]);

    pair.server.delete_fragment("cam1", &all[1].to_string()).await.expect("there");
    let unknown = FragmentNumber::new(77, BEGIN_MS, 1);
    let mut listed = vec![all[0], all[1], all[2], unknown, all[3]];
    let mut by_number = source(&pair, Wanted::Numbers(listed.clone()), 100);
    assert_eq!(read(&mut by_number, None).await, ([pictures(0..1), pictures(2..4)].concat(), 3));
    assert_eq!(skips(&mut by_number), [(all[1], SkipReason::Gone), (unknown, SkipReason::Gone)]);
    assert_eq!(by_number.figures().fragments_skipped, 2);
    // None at all.
    listed.drain(2..);
    listed.remove(0);
    let mut none = source(&pair, Wanted::Numbers(listed), 100);
    assert_eq!(read(&mut none, None).await, (vec![], 0));
    assert_eq!(skips(&mut none), [(all[1], SkipReason::Gone)]);
}

#[tokio::test(start_paused = true)]
async fn answers_that_break_or_are_refused_cost_no_picture_and_repeat_none() {
    let refuse = |path: &str, error_type: &str, status, count| FaultKind::Refuse {
        path: path.to_owned(),
        error_type: error_type.to_owned(),
        status,
        count,
    };
    let media = path::GET_MEDIA_FOR_FRAGMENT_LIST;
    let cases = [
        vec![refuse(media, "InternalFailure", 500, 3)],
        vec![refuse(media, "ConnectionLimitExceededException", 400, 2)],
        vec![refuse(media, "InvalidArgumentException", 400, 1)],
        vec![refuse(path::LIST_FRAGMENTS, "ClientLimitExceededException", 400, 2)],
    ];
    for faults in cases {
        let pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..8).await;
        for fault in &faults {
            pair.server.faults().inject(Fault::any(fault.clone()));
        }
        let mut source = source(&pair, by_time(0, 7), 100);
        assert_eq!(read(&mut source, None).await, (pictures(0..8), 1), "{faults:?}");
        assert_eq!((pair.server.faults().waiting(), skips(&mut source)), (vec![], vec![]), "{faults:?}");
    }
}

/// A connection that breaks after so many bytes of what it would have given.
struct Cut<S> {
    inner: S,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut part = buffer.take(self.left);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        let bytes = part.filled().to_vec();
        buffer.put_slice(&bytes);
        self.left -= read;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_answers_are_cut_no_picture_is_lost_or_repeated() {
    let cases: [Vec<usize>; 3] = [
        // In the head, in the header of a document, in a picture: a fragment is about 700 bytes.
        vec![20],
        vec![700],
        (1..6).map(|n| n * 311).collect(),
    ];
    for cuts in cases {
        let mut pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..8).await;
        let (connector, cuts) = (pair.server.connector(), cuts);
        let dialled = Arc::new(AtomicUsize::new(0));
        let (count, after) = (dialled.clone(), cuts.clone());
        pair.config.dialler = SharedDialler::from_fn(move |_, _| {
            let n = count.fetch_add(1, Ordering::SeqCst);
            // Where lists are, the list, where media is; then media.
            let left = n.checked_sub(3).and_then(|n| after.get(n)).copied().unwrap_or(usize::MAX);
            std::future::ready(connector.connect(64 * 1024).map(|inner| Cut { inner, left }))
        });
        let mut source = source(&pair, by_time(0, 7), 100);
        assert_eq!(read(&mut source, None).await, (pictures(0..8), 1), "{cuts:?}");
        let figures = source.figures();
        assert_eq!((figures.read_errors, skips(&mut source)), (cuts.len() as u64, vec![]), "{cuts:?}");
        assert_eq!(dialled.load(Ordering::SeqCst), 4 + cuts.len(), "{cuts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_in_the_end_and_says_why_and_a_list_without_an_end_is_refused() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let mut options = SourceOptions::new(SourceMode::FragmentList);
    let error = Source::new(&pair.client(), &stream(), &options).expect_err("no range").to_string();
    assert!(error.starts_with("FRAGMENT_LIST reads a range of time or given fragments"), "{error}");
    options.wanted = Some(by_time(0, 1));
    options.fragment_list.max_consecutive_errors = Some(4);
    let mut source = Source::new(&pair.client(), &StreamId::name("nobody"), &options).expect("good options");
    assert!(source.next().await.is_none());
    assert_eq!((source.state(), source.figures().read_errors), (SourceState::Failed, 4));
    let error = source.last_error().expect("told");
    assert!(error.contains("ResourceNotFoundException"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_loses_nothing() {
    let pair = Pair::new(256, |_| {}).await;
    upload(&pair, 0..6).await;
    let mut source = source(&pair, by_time(0, 5), 2);
    let mut found = Vec::new();
    loop {
        let waited = tokio::time::timeout(std::time::Duration::from_micros(1), source.next()).await;
        match waited {
            Ok(Some(Feed::Video(unit))) => found.push((unit.timestamp.as_millis() - BEGIN_MS) / PICTURE_MS),
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => break,
        }
    }
    assert_eq!(found, pictures(0..6));
}
