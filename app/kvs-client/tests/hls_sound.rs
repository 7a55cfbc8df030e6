//! Sound beside the pictures of a stream by HLS, client and server in memory on paused time.

use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code, reason = "pictures alone are the matter of other tests")]
mod film;
mod pair;

use bytes::Bytes;
use kvs::api::{StartSelector, session as path};
use kvs_client::PutMedia;
use kvs_client::kvs;
use kvs_client::source::{FollowConfig, FollowSource, HlsConfig, HlsSource, Play, StreamSource};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start, tags};
use media::{AudioFormat, Feed, SourceState, UnitSource};

use film::{FRAGMENT_MS, PICTURE_MS, PICTURES, begins_ms, persisted, picture, put_media, stream, video};
use pair::{BEGIN_MS, Pair};

const S: Duration = Duration::from_secs(1);
/// 1024 samples of 16 kHz.
const SOUND_MS: u64 = 64;
/// The first sound of a fragment lies so far behind its first picture.
const LATE_MS: u64 = 10;
const SOUNDS: u64 = 31;
/// HLS plays the first two tracks.
const SOUND_TRACK: u32 = 2;

fn aac() -> Track {
    Track::Audio(Arc::new(AudioFormat::aac(Bytes::from_static(&[0x14, 0x08])).expect("a config")))
}

fn sound(fragment: u64, index: u64) -> Vec<u8> {
    [&b"aac"[..], &fragment.to_be_bytes(), &index.to_be_bytes()].concat()
}

/// The `n`-th fragment with its sound between the pictures.
fn fragment(n: u64) -> Bytes {
    let pictures = (0..PICTURES).map(|index| {
        let data = picture(n * PICTURES + index);
        (index * PICTURE_MS, 1, index == 0, data)
    });
    let sounds = (0..SOUNDS).map(|index| (LATE_MS + index * SOUND_MS, 2, true, sound(n, index)));
    let mut blocks: Vec<_> = pictures.chain(sounds).collect();
    blocks.sort_by_key(|(at_ms, ..)| *at_ms);
    let mut bytes = cluster_start(begins_ms(n)).to_vec();
    for (at_ms, track, key, data) in blocks {
        bytes.extend_from_slice(&block_head(track, i16::try_from(at_ms).expect("short"), key, data.len()));
        bytes.extend_from_slice(&data);
    }
    bytes.extend_from_slice(&tags(&[(kvs::tag::END_OF_FRAGMENT, "")]));
    bytes.into()
}

/// One session of fragments with sound, or without; `pause` behind each.
async fn upload(pair: &Pair, fragments: std::ops::Range<u64>, has_sound: bool, pause: Duration) {
    let tracks = if has_sound { vec![video(), aac()] } else { vec![video()] };
    let PutMedia { mut sender, acks } = put_media(&pair.client(), &tracks).await;
    let (kept, count) = (tokio::spawn(persisted(acks)), fragments.end - fragments.start);
    for n in fragments {
        sender.send(if has_sound { fragment(n) } else { film::fragment(n) }).await.expect("taken");
        pair.clock.sleep(pause).await;
    }
    sender.finish().await.expect("ended");
    assert_eq!(kept.await.expect("read"), count);
}

fn range(pair: &Pair) -> HlsSource {
    let play = Play::Range { from_ms: BEGIN_MS, to_ms: BEGIN_MS + 3_600_000 };
    HlsSource::new(&pair.client(), &stream(), play, HlsConfig::default()).expect("a good configuration")
}

/// An item in short: behind the begin of the footage in ms, whether it is sound, and what it holds.
type Item = (u64, bool, Vec<u8>);

/// Until the picture with this number, or the end; and how often another sound was told.
async fn read(source: &mut impl StreamSource, last: Option<u64>) -> (Vec<Item>, u64) {
    let (mut items, mut told) = (Vec::new(), 0);
    while let Some(item) = source.next().await {
        let (at, is_sound, data) = match item {
            Feed::Video(unit) => (unit.timestamp, false, unit.data),
            Feed::Audio(frame) => {
                assert_eq!((frame.format.sample_rate, frame.format.channels), (16_000, 1));
                (frame.timestamp, true, frame.data)
            }
            Feed::AudioTrack(_) => {
                told += 1;
                continue;
            }
            Feed::Break | Feed::NewTimeline => continue,
        };
        let at_ms = at.as_millis() - BEGIN_MS;
        let origin = source.origin().expect("an item came");
        assert_eq!(origin.producer_timestamp_ms, Some(begins_ms(at_ms / FRAGMENT_MS)), "{at_ms}");
        items.push((at_ms, is_sound, data.to_vec()));
        if !is_sound && Some(at_ms / PICTURE_MS) == last {
            break;
        }
    }
    (items, told)
}

/// The same as it was sent.
fn items(fragments: std::ops::Range<u64>, has_sound: impl Fn(u64) -> bool) -> Vec<Item> {
    let mut items = Vec::new();
    for n in fragments {
        let begin_ms = n * FRAGMENT_MS;
        let pictures =
            (0..PICTURES).map(|index| (begin_ms + index * PICTURE_MS, false, picture(n * PICTURES + index)));
        let sounds = (0..SOUNDS).filter(|_| has_sound(n));
        let sounds = sounds.map(|index| (begin_ms + LATE_MS + index * SOUND_MS, true, sound(n, index)));
        items.extend(pictures.chain(sounds));
    }
    items.sort();
    items
}

#[tokio::test(start_paused = true)]
async fn sound_and_pictures_come_in_the_order_of_their_times_as_by_get_media() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..5, true, Duration::ZERO).await;
    let mut source = range(&pair);
    let (found, told) = read(&mut source, None).await;
    assert_eq!((&found, told), (&items(0..5, |_| true), 1));
    let metrics = source.hls_metrics();
    assert_eq!((metrics.frames_total, metrics.fragments_processed), (25, 5));
    assert_eq!((metrics.fragments_without_sound, metrics.read_errors_total), (0, 0));
    assert_eq!((source.metrics().pictures, source.metrics().audio_frames), (25, 5 * SOUNDS));
    assert_eq!(source.take_skips(), []);

    let start = StartSelector::earliest();
    let config = FollowConfig { start, max_reconnect_attempts: Some(1), ..FollowConfig::default() };
    let mut follow = FollowSource::new(&pair.client(), &stream(), config).expect("a good configuration");
    let (by_get_media, told) = read(&mut follow, Some(25 - 1)).await;
    assert_eq!(told, 1);
    // Behind the last picture there is sound, which is not read here.
    assert_eq!(by_get_media, found[..by_get_media.len()]);
}

#[tokio::test(start_paused = true)]
async fn a_live_stream_keeps_its_sound_over_its_urls_and_within_the_limits_of_the_service() {
    let pair = Pair::new(64 * 1024, |options| options.limits = kvs_local::Limits::service()).await;
    upload(&pair, 0..1, true, Duration::ZERO).await;
    let mut source = HlsSource::new(&pair.client(), &stream(), Play::Live, HlsConfig::default())
        .expect("a good configuration");
    // It begins with the newest: what follows is filmed once it has begun.
    let (mut found, told) = read(&mut source, Some(PICTURES - 1)).await;
    let reading = async {
        let (rest, told_again) = read(&mut source, Some(300 * PICTURES - 1)).await;
        found.extend(rest);
        let metrics = source.hls_metrics();
        assert_eq!((metrics.url_refreshes_total, metrics.reconnects_total), (2, 0));
        assert_eq!((metrics.read_errors_total, metrics.fragments_without_sound), (0, 0));
        assert_eq!((source.take_skips(), source.state()), (vec![], SourceState::Connected));
        told_again
    };
    let filming = upload(&pair, 1..302, true, S * 2);
    let (told_again, ()) = tokio::join!(reading, filming);
    assert_eq!(told_again, 0);
    let expected = items(0..300, |_| true);
    // The sound behind the last picture is not read.
    assert_eq!((told, found.len() > expected.len() - 7), (1, true));
    assert_eq!(found, expected[..found.len()]);
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_sound_the_pictures_come() {
    let refuse = |path: &str, error_type: &str, status, count| FaultKind::Refuse {
        path: path.to_owned(),
        error_type: error_type.to_owned(),
        status,
        count,
    };
    let garble = |path: &str, count| FaultKind::GarbleFetch { path: path.to_owned(), count };
    let cut = |path: &str| FaultKind::CutFetch { path: path.to_owned(), after_bytes: 50, count: 1 };
    let fake = |path: &str, content_type: &str, body: &str| FaultKind::AnswerFetch {
        path: path.to_owned(),
        status: 200,
        content_type: content_type.to_owned(),
        location: None,
        body: body.to_owned(),
        count: 1,
    };
    // Of another stream, and at its end: no fragment of ours is in it.
    let other = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"init\"\n#EXTINF:2.000,\n\
                 other.mp4?FragmentNumber=91343852333181476874370463302450474163417456001\n#EXT-X-ENDLIST\n";
    let none = 0..0;
    let cases = [
        // Once: it is tried again.
        (refuse(path::HLS_MEDIA, "InternalFailure", 500, 1), none.clone()),
        (refuse(path::HLS_MEDIA, "AccessDeniedException", 403, 1), none.clone()),
        (refuse(path::HLS_FRAGMENT, "ClientLimitExceededException", 400, 1), none.clone()),
        (refuse(path::HLS_INIT, "InternalFailure", 500, 2), none.clone()),
        (garble(path::HLS_MEDIA, 1), none.clone()),
        (garble(path::HLS_INIT, 1), none.clone()),
        (garble(path::HLS_FRAGMENT, 2), none.clone()),
        (cut(path::HLS_MEDIA), none.clone()),
        (cut(path::HLS_INIT), none.clone()),
        (cut(path::HLS_FRAGMENT), none.clone()),
        (fake(path::HLS_FRAGMENT, "text/html", "Sign in to the network"), none.clone()),
        (fake(path::HLS_MEDIA, "application/x-mpegURL", ""), none.clone()),
        // The service has none of this fragment.
        (refuse(path::HLS_FRAGMENT, "InvalidMediaFrameException", 400, 1), 0..1),
        (refuse(path::HLS_FRAGMENT, "ResourceNotFoundException", 404, 2), 0..2),
        // Too often for the first; the second comes at the first try.
        (garble(path::HLS_FRAGMENT, 3), 0..1),
        (refuse(path::HLS_FRAGMENT, "InternalFailure", 500, 5), 0..3),
        // Of the whole session.
        (refuse(path::HLS_MEDIA, "InternalFailure", 500, 1_000), 0..6),
        (fake(path::HLS_MEDIA, "application/x-mpegURL", other), 0..6),
    ];
    for (fault, silent) in cases {
        let pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..6, true, Duration::ZERO).await;
        pair.server.faults().inject(Fault::any(fault.clone()).of_track(SOUND_TRACK));
        let mut source = range(&pair);
        let (found, _) = read(&mut source, None).await;
        assert_eq!(found, items(0..6, |n| !silent.contains(&n)), "{fault:?}");
        let metrics = source.hls_metrics();
        assert_eq!(metrics.fragments_without_sound, silent.end - silent.start, "{fault:?}");
        assert_eq!((metrics.fragments_processed, source.take_skips()), (6, vec![]), "{fault:?}");
        assert_eq!(source.state(), SourceState::Disconnected, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn sound_that_is_listed_later_than_its_pictures_is_waited_for() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..1, true, Duration::ZERO).await;
    let config = HlsConfig { playlist_fragments: Some(10), ..HlsConfig::default() };
    let mut source = HlsSource::new(&pair.client(), &stream(), Play::Live, config).expect("good");
    let mut found = read(&mut source, Some(PICTURES - 1)).await.0;
    let reading = async {
        found.extend(read(&mut source, Some(5 * PICTURES - 1)).await.0);
        // The list of the sound is as old as the session, twice.
        pair.server.faults().inject(Fault::any(FaultKind::OldPlaylist { count: 2 }).of_track(SOUND_TRACK));
        found.extend(read(&mut source, Some(12 * PICTURES - 1)).await.0);
    };
    let ((), ()) = tokio::join!(reading, upload(&pair, 1..14, true, S * 2));
    assert_eq!(found, items(0..12, |_| true)[..found.len()]);
    let metrics = source.hls_metrics();
    assert_eq!((metrics.fragments_without_sound, metrics.read_errors_total), (0, 0));
    assert_eq!(pair.server.faults().waiting(), []);
}

#[tokio::test(start_paused = true)]
async fn sound_that_ends_and_begins_again_is_handed_on_where_there_is_some() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    for (fragments, has_sound) in [(0..2, true), (2..4, false), (4..6, true)] {
        upload(&pair, fragments, has_sound, Duration::ZERO).await;
    }
    let mut source = range(&pair);
    let (found, told) = read(&mut source, None).await;
    assert_eq!((found, told), (items(0..6, |n| !(2..4).contains(&n)), 1));
    let metrics = source.hls_metrics();
    assert_eq!((metrics.fragments_without_sound, source.take_skips()), (0, vec![]));

    // Live: from the first fragment on that has some, and to the last.
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..1, false, Duration::ZERO).await;
    let mut source =
        HlsSource::new(&pair.client(), &stream(), Play::Live, HlsConfig::default()).expect("good");
    let filming = async {
        upload(&pair, 1..4, false, S * 2).await;
        upload(&pair, 4..8, true, S * 2).await;
        upload(&pair, 8..12, false, S * 2).await;
    };
    let (mut found, told) = read(&mut source, Some(PICTURES - 1)).await;
    let ((rest, told_later), ()) = tokio::join!(read(&mut source, Some(11 * PICTURES - 1)), filming);
    found.extend(rest);
    assert_eq!((found, told, told_later), (items(0..11, |n| (4..8).contains(&n)), 0, 1));
    let metrics = source.hls_metrics();
    assert_eq!((metrics.fragments_without_sound, metrics.fragments_skipped), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn sound_is_left_out_on_request_and_g711_is_none_that_hls_plays() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    upload(&pair, 0..3, true, Duration::ZERO).await;
    let play = Play::Range { from_ms: BEGIN_MS, to_ms: BEGIN_MS + 3_600_000 };
    let config = HlsConfig { sound: false, ..HlsConfig::default() };
    let mut source = HlsSource::new(&pair.client(), &stream(), play, config).expect("good");
    let found = read(&mut source, None).await;
    assert_eq!(found, (items(0..3, |_| false), 0));
    let calls = pair.server.calls();
    assert_eq!((calls[path::HLS_MEDIA], calls[path::HLS_FRAGMENT]), (1, 3));

    let pair = Pair::new(64 * 1024, |_| {}).await;
    let pcmu = Track::Audio(Arc::new(AudioFormat::pcmu(8_000, 1)));
    let PutMedia { mut sender, acks } = put_media(&pair.client(), &[video(), pcmu]).await;
    let kept = tokio::spawn(persisted(acks));
    sender.send(fragment(0)).await.expect("taken");
    sender.finish().await.expect("ended");
    assert_eq!(kept.await.expect("read"), 1);
    let mut source = range(&pair);
    assert_eq!(read(&mut source, None).await, (vec![], 0));
    assert_eq!(source.state(), SourceState::Failed);
    let error = source.last_error().expect("told").to_string();
    assert!(error.contains("UnsupportedStreamMediaTypeException"), "{error}");
}
