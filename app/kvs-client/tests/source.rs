//! Stored and live streams as sources of pictures, client and server in memory on paused time.

use std::sync::Arc;
use std::time::Duration;

mod pair;

use bytes::Bytes;
use kvs::ack::AckEvent;
use kvs::api::{StartSelector, StreamId};
use kvs::fragmenter::{Fragmenter, FragmenterConfig, Part};
use kvs::{FragmentIds, RunId};
use kvs_client::source::{GetMediaSource, SourceError};
use kvs_client::{
    Client, Error, PutMedia, PutMediaInput, PutMediaSender, ServiceErrorKind, TimecodeType, kvs,
};
use kvs_local::{Fault, FaultKind};
use media::{
    AccessUnit, AudioFormat, AudioFrame, Feed, ProducerTimestamp, SourceState, UnitSource, VideoCodec,
    VideoFormat,
};

use pair::{BEGIN_MS, Pair};

const PICTURE_MS: u64 = 200;
/// Of one fragment.
const PICTURES: u64 = 5;

/// A picture or a sound, as it went in or came out.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Picture(AccessUnit),
    Sound(AudioFrame),
}

/// A camera with sound, whose footage is cut and uploaded as the daemon does it.
struct Camera {
    fragmenter: Fragmenter,
    video: Arc<VideoFormat>,
    audio: Arc<AudioFormat>,
    pictures: u64,
    filmed: Vec<Item>,
}

impl Camera {
    fn new() -> Self {
        // 640x360 of x264, as in the tests of `media`.
        let sps = b"\x67\x64\x00\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\x00\x00\x03\x00\x20\x00\x00\x07\x91\xe2\xc5\xb2\xc0";
        let pps = b"\x68\xeb\xec\xb2\x2c";
        let record = [
            &[1, 0x64, 0, 0x1e, 0xff, 0xe1, 0, 30][..],
            sps,
            &[1, 0, 5],
            pps,
            &[0xfd, 0xf8, 0xf8, 0], // of the high profiles
        ];
        let video =
            VideoFormat::from_codec_private(VideoCodec::H264, record.concat().into()).expect("a record");
        let audio = Arc::new(AudioFormat::pcmu(8_000, 1));
        let mut fragmenter = Fragmenter::new(FragmenterConfig {
            fragment_ms: PICTURES * PICTURE_MS,
            fragment_max_ms: 8_000,
            ids: FragmentIds::new(RunId::new(7)),
            device: "box".to_owned(),
            camera: "cam".to_owned(),
            writing_app: "test".to_owned(),
            segment_uid: [7; 16],
        });
        fragmenter.announce_audio(audio.clone());
        Self { fragmenter, video: Arc::new(video), audio, pictures: 0, filmed: Vec::new() }
    }

    /// Films whole fragments; what comes out may lack the last one, which waits for the next.
    fn film(&mut self, fragments: u64) -> Vec<Part> {
        for _ in 0..fragments * PICTURES {
            let n = self.pictures;
            self.pictures += 1;
            let timestamp = ProducerTimestamp::from_millis(BEGIN_MS + n * PICTURE_MS);
            let random_access = n.is_multiple_of(PICTURES);
            let fill = u8::try_from(n).expect("few pictures");
            let mut data = vec![0, 0, 4, 0, if random_access { 0x65 } else { 0x41 }];
            data.resize(4 + 0x400, fill);
            let (data, format) = (data.into(), self.video.clone());
            let unit = AccessUnit { data, timestamp, random_access, format };
            self.fragmenter.video(&unit);
            self.filmed.push(Item::Picture(unit));
            let data = Bytes::from(vec![fill; 1_600]);
            let frame = AudioFrame { data, timestamp, format: self.audio.clone() };
            self.fragmenter.audio(frame.clone());
            self.filmed.push(Item::Sound(frame));
        }
        std::iter::from_fn(|| self.fragmenter.next_part()).collect()
    }

    fn finish(&mut self) -> Vec<Part> {
        self.fragmenter.finish();
        std::iter::from_fn(|| self.fragmenter.next_part()).collect()
    }
}

fn stream() -> StreamId {
    StreamId::name("cam1")
}

async fn put_media(client: &Client) -> PutMedia {
    let input = PutMediaInput {
        stream: stream(),
        timecode_type: TimecodeType::Absolute,
        start_ms: BEGIN_MS,
        write_timeout: None,
    };
    client.put_media(&input).await.expect("a session")
}

/// Sends the parts, with the header in front if they are the session's first; returns how many fragments they complete.
async fn send(sender: &mut PutMediaSender, parts: Vec<Part>, mut first: bool) -> u64 {
    let mut whole = 0;
    for part in parts {
        let pieces = match part {
            Part::Start(start) if std::mem::take(&mut first) => [start.header.bytes.clone(), start.head],
            Part::Start(start) => [start.head, Bytes::new()],
            Part::Block { head, payload } => [head, payload],
            Part::End(end) => {
                whole += 1;
                [end.tag, Bytes::new()]
            }
        };
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            sender.send(piece).await.expect("taken");
        }
    }
    whole
}

/// Films and uploads whole fragments in one session, until all are kept.
async fn upload(client: &Client, camera: &mut Camera, fragments: u64) {
    let mut parts = camera.film(fragments);
    parts.extend(camera.finish());
    let PutMedia { mut sender, mut acks } = put_media(client).await;
    assert_eq!(send(&mut sender, parts, true).await, fragments);
    sender.finish().await.expect("ended");
    let mut persisted = 0;
    while let Some(ack) = acks.next_ack().await.expect("the session ends in order") {
        persisted += u64::from(ack.event == AckEvent::Persisted);
    }
    assert_eq!(persisted, fragments);
}

fn item(feed: Feed) -> Option<Item> {
    match feed {
        Feed::Video(unit) => Some(Item::Picture(unit)),
        Feed::Audio(frame) => Some(Item::Sound(frame)),
        _ => None,
    }
}

fn by_time(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_key(|item| match item {
        Item::Picture(unit) => (unit.timestamp, 0),
        Item::Sound(frame) => (frame.timestamp, 1),
    });
    items
}

#[tokio::test(start_paused = true)]
async fn a_stored_stream_is_read_as_it_was_filmed_and_says_where_each_item_is_from() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let (client, mut camera) = (pair.client(), Camera::new());
    upload(&client, &mut camera, 3).await;
    let stored = pair.server.fragments("cam1").await.expect("the stream");
    assert_eq!(stored.len(), 3);

    let mut source = GetMediaSource::new(&client, &stream(), StartSelector::earliest());
    assert_eq!((source.state(), source.origin()), (SourceState::Disconnected, None));
    let (mut read, mut others) = (Vec::new(), Vec::new());
    while let Some(feed) = source.next().await {
        if let Feed::Video(unit) = &feed {
            let origin = source.origin().expect("an item came");
            let from = stored.iter().rev().find(|one| one.producer_ms <= unit.timestamp.as_millis());
            let from = from.expect("it is stored");
            assert_eq!(origin.number.map(|number| number.to_string()).as_ref(), Some(&from.number));
            assert_eq!(origin.server_timestamp_ms, Some(from.server_ms));
            assert_eq!(origin.producer_timestamp_ms, Some(from.producer_ms));
        }
        match item(feed.clone()) {
            Some(item) => read.push(item),
            None => others.push(feed),
        }
    }
    assert_eq!(by_time(read), by_time(camera.filmed.clone()));
    assert!(matches!(&others[..], [Feed::AudioTrack(_), Feed::Break]), "{others:?}");
    assert_eq!((source.state(), source.failure().is_none()), (SourceState::Disconnected, true));
    let metrics = source.metrics();
    assert_eq!(
        (metrics.pictures, metrics.key_pictures, metrics.audio_frames, metrics.breaks),
        (15, 3, 15, 1)
    );

    // Another one goes on behind it.
    let resume = source.resume().expect("whole fragments came");
    let before = camera.filmed.len();
    upload(&client, &mut camera, 1).await;
    let mut source = GetMediaSource::new(&client, &stream(), resume);
    let mut read = Vec::new();
    while let Some(feed) = source.next().await {
        read.extend(item(feed));
    }
    assert_eq!(by_time(read), by_time(camera.filmed.split_off(before)));
}

#[tokio::test(start_paused = true)]
async fn a_live_stream_is_read_while_it_is_uploaded_and_a_caller_that_gives_up_waiting_loses_nothing() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let (client, mut camera) = (pair.client(), Camera::new());
    let mut session = put_media(&client).await;
    let parts = camera.film(2);
    send(&mut session.sender, parts, true).await;
    while session.acks.next_ack().await.expect("it goes on").expect("an ack").event != AckEvent::Persisted {}
    let clock = pair.clock.clone();
    let writing = async {
        for _ in 0..4 {
            clock.sleep(Duration::from_secs(1)).await;
            let parts = camera.film(1);
            send(&mut session.sender, parts, false).await;
        }
        camera.filmed
    };
    let mut source = GetMediaSource::new(&client, &stream(), StartSelector::now());
    let reading = async {
        let mut pictures: Vec<AccessUnit> = Vec::new();
        while pictures.last().is_none_or(|unit| unit.timestamp.as_millis() < BEGIN_MS + 24 * PICTURE_MS) {
            let waited = tokio::time::timeout(Duration::from_millis(1), source.next()).await;
            match waited {
                Ok(Some(Feed::Video(unit))) => pictures.push(unit),
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => panic!("it ended: {:?}", source.failure()),
            }
        }
        pictures
    };
    let (filmed, read) = tokio::join!(writing, reading);
    assert_eq!(source.state(), SourceState::Connected);
    let pictures = filmed.into_iter().filter_map(|item| match item {
        Item::Picture(unit) => Some(unit),
        Item::Sound(_) => None,
    });
    let first = read[0].timestamp;
    assert!(read[0].random_access && read.len() > 10, "{} pictures", read.len());
    let expected: Vec<_> = pictures.filter(|unit| unit.timestamp >= first).take(read.len()).collect();
    assert_eq!(read, expected);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_is_a_failure_that_says_so_and_what_was_cut_is_read_again() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let (client, mut camera) = (pair.client(), Camera::new());
    upload(&client, &mut camera, 3).await;
    // In the second fragment: a picture and its sound are 2.6 kB.
    pair.server.faults().inject(Fault::on("cam1", FaultKind::CutGetMedia { after_bytes: 22_000 }));
    let mut source = GetMediaSource::new(&client, &stream(), StartSelector::earliest());
    let (mut pictures, mut last) = (Vec::new(), None);
    while let Some(feed) = source.next().await {
        if let Feed::Video(unit) = &feed {
            pictures.push(unit.timestamp.as_millis());
        }
        last = Some(feed);
    }
    assert!((6..10).contains(&pictures.len()), "{pictures:?}");
    assert!(matches!(last, Some(Feed::Break)), "{last:?}");
    assert_eq!(source.state(), SourceState::Failed);
    let failure = source.failure().expect("it failed");
    assert!(matches!(failure, SourceError::Call(Error::Interrupted { .. })), "{failure:?}");

    let resume = source.resume().expect("one fragment came whole");
    let mut again = GetMediaSource::new(&client, &stream(), resume);
    let mut rest = Vec::new();
    while let Some(feed) = again.next().await {
        if let Feed::Video(unit) = feed {
            rest.push(unit.timestamp.as_millis());
        }
    }
    let all = (0..15).map(|n| BEGIN_MS + n * PICTURE_MS);
    assert_eq!(rest, all.skip(5).collect::<Vec<_>>(), "from the fragment on that was cut");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_exist_is_a_failure() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let mut source = GetMediaSource::new(&pair.client(), &StreamId::name("nobody"), StartSelector::now());
    assert!(source.next().await.is_none());
    assert!(source.next().await.is_none(), "it stays at its end");
    assert_eq!(source.state(), SourceState::Failed);
    let Some(SourceError::Call(error)) = source.failure() else { panic!("{:?}", source.failure()) };
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::ResourceNotFound));
}
