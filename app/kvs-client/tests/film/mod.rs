//! A camera whose pictures say which they are, and its footage on the way into a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvs::ack::AckEvent;
use kvs::api::StreamId;
use kvs_client::source::StreamSource;
use kvs_client::{Client, PutMedia, PutMediaAcks, PutMediaInput, PutMediaSender, TimecodeType, kvs};
use media::mkv::write::{Track, block_head, cluster_start, header, tags};
use media::{Feed, VideoCodec, VideoFormat};

use crate::pair::{BEGIN_MS, Pair};

pub(crate) const FRAGMENT_MS: u64 = 2_000;
/// Of one fragment, 400 ms each.
pub(crate) const PICTURES: u64 = 5;
pub(crate) const PICTURE_MS: u64 = FRAGMENT_MS / PICTURES;
/// 640x360 of x264.
pub(crate) const AVCC: &[u8] = b"\x01\x64\x00\x1e\xff\xe1\x00\x1e\x67\x64\x00\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\x00\x00\x03\x00\x20\x00\x00\x07\x91\xe2\xc5\xb2\xc0\x01\x00\x05\x68\xeb\xec\xb2\x2c\xfd\xf8\xf8\x00";

pub(crate) fn video() -> Track {
    let record = Bytes::from_static(AVCC);
    Track::Video(Arc::new(VideoFormat::from_codec_private(VideoCodec::H264, record).expect("a record")))
}

/// The `n`-th picture of the stream.
pub(crate) fn picture(n: u64) -> Vec<u8> {
    let kind = if n.is_multiple_of(PICTURES) { 0x65 } else { 0x41 };
    [&[0, 0, 0, 10, kind, 0x88][..], &n.to_be_bytes()].concat()
}

pub(crate) fn begins_ms(fragment: u64) -> u64 {
    BEGIN_MS + fragment * FRAGMENT_MS
}

/// The `n`-th fragment, with the word that it is whole.
pub(crate) fn fragment(n: u64) -> Bytes {
    let mut bytes = cluster_start(begins_ms(n)).to_vec();
    for index in 0..PICTURES {
        let data = picture(n * PICTURES + index);
        let offset = i16::try_from(index * PICTURE_MS).expect("short");
        bytes.extend_from_slice(&block_head(1, offset, index == 0, data.len()));
        bytes.extend_from_slice(&data);
    }
    bytes.extend_from_slice(&tags(&[(kvs::tag::END_OF_FRAGMENT, "")]));
    bytes.into()
}

pub(crate) fn stream() -> StreamId {
    StreamId::name("cam1")
}

pub(crate) async fn put_media(client: &Client, tracks: &[Track]) -> PutMedia {
    let input = PutMediaInput {
        stream: stream(),
        timecode_type: TimecodeType::Absolute,
        start_ms: BEGIN_MS,
        write_timeout: None,
    };
    let mut session = client.put_media(&input).await.expect("a session");
    session.sender.send(header([7; 16], "test", tracks)).await.expect("taken");
    session
}

pub(crate) async fn send(sender: &mut PutMediaSender, n: u64) {
    sender.send(fragment(n)).await.expect("taken");
}

/// Ends it; how many fragments were kept.
pub(crate) async fn finish(session: PutMedia) -> u64 {
    let PutMedia { sender, acks } = session;
    sender.finish().await.expect("ended");
    persisted(acks).await
}

/// Acks must be read, or the session stalls.
pub(crate) async fn persisted(mut acks: PutMediaAcks) -> u64 {
    let mut persisted = 0;
    while let Some(ack) = acks.next_ack().await.expect("the session ends in order") {
        persisted += u64::from(ack.event == AckEvent::Persisted);
    }
    persisted
}

pub(crate) async fn upload(pair: &Pair, fragments: std::ops::Range<u64>) {
    let mut session = put_media(&pair.client(), &[video()]).await;
    let expected = fragments.end - fragments.start;
    for n in fragments {
        send(&mut session.sender, n).await;
    }
    assert_eq!(finish(session).await, expected);
}

/// One fragment every two seconds, as a camera gives them; each range is a session of its own, with time to pass before it.
pub(crate) fn film(
    pair: &Pair,
    ranges: Vec<(Duration, std::ops::Range<u64>)>,
) -> tokio::task::JoinHandle<()> {
    let (client, clock) = (pair.client(), pair.clock.clone());
    tokio::spawn(async move {
        for (pause, range) in ranges {
            clock.sleep(pause).await;
            let PutMedia { mut sender, acks } = put_media(&client, &[video()]).await;
            let (kept, fragments) = (tokio::spawn(persisted(acks)), range.end - range.start);
            for n in range {
                send(&mut sender, n).await;
                clock.sleep(Duration::from_millis(FRAGMENT_MS)).await;
            }
            sender.finish().await.expect("ended");
            assert_eq!(kept.await.expect("read"), fragments);
        }
    })
}

pub(crate) fn pictures(fragments: std::ops::Range<u64>) -> Vec<u64> {
    (fragments.start * PICTURES..fragments.end * PICTURES).collect()
}

/// Numbers of the pictures that come, which must be as they were filmed, until this one or the end; and how often the
/// pictures broke off, the end included.
pub(crate) async fn read(source: &mut impl StreamSource, last: Option<u64>) -> (Vec<u64>, u64) {
    let (mut pictures, mut breaks) = (Vec::new(), 0);
    while let Some(item) = source.next().await {
        let Feed::Video(unit) = item else {
            assert!(matches!(item, Feed::Break), "{item:?}");
            breaks += 1;
            continue;
        };
        let n = (unit.timestamp.as_millis() - BEGIN_MS) / PICTURE_MS;
        assert_eq!(unit.timestamp.as_millis(), BEGIN_MS + n * PICTURE_MS);
        assert_eq!((unit.data.to_vec(), unit.random_access), (picture(n), n.is_multiple_of(PICTURES)));
        assert_eq!(&unit.format.codec_private[..], AVCC);
        let origin = source.origin().expect("an item came");
        assert_eq!(origin.producer_timestamp_ms, Some(begins_ms(n / PICTURES)));
        assert_eq!(origin.server_timestamp_ms, origin.number.map(|number| number.server_time_ms()));
        pictures.push(n);
        if Some(n) == last {
            break;
        }
    }
    (pictures, breaks)
}
