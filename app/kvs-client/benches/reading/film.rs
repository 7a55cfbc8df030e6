//! Producers: a rendered scene in its own time, and an answer of a given size.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use camera_sim::{Clip, ClipSpec};
use clock::Clock;
use kvs_client::kvs::ack::AckEvent;
use kvs_client::kvs::api::StreamId;
use kvs_client::kvs::fragmenter::{Fragmenter, FragmenterConfig, Part};
use kvs_client::kvs::{FragmentIds, RunId};
use kvs_client::{Client, PutMedia, PutMediaInput, TimecodeType};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat, nal};

use crate::Error;

const FPS: u32 = 30;
/// Pictures in a fragment of the given size.
const PICTURES: u64 = 60;
/// Of a picture there: 138 fragments have 201 MB.
const PICTURE_BYTES: usize = 24_275;

/// 1080p30, 6 Mbit/s, a random access point every 2 s.
#[derive(Clone)]
pub(crate) struct Film {
    format: Arc<VideoFormat>,
    pictures: Arc<Vec<(bool, Bytes)>>,
}

fn input(stream: &str, start_ms: u64) -> PutMediaInput {
    let stream = StreamId::name(stream);
    PutMediaInput { stream, timecode_type: TimecodeType::Absolute, start_ms, write_timeout: None }
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Film {
    /// Rendered and encoded by x264 the first time, then out of a cache.
    pub(crate) fn load() -> Result<Self, Error> {
        let spec = ClipSpec {
            width: 1_920,
            height: 1_080,
            fps: FPS,
            bitrate_kbps: 6_000,
            gop: 2 * FPS,
            loop_seconds: 10,
            ..ClipSpec::default()
        };
        let clip = Clip::load(&spec, &camera_sim::default_cache_dir())?;
        let sets = clip.parameter_sets();
        let record = nal::avcc_from_sps_pps(&sets[..1], &sets[1..])?;
        let format = Arc::new(VideoFormat::from_codec_private(VideoCodec::H264, record)?);
        let picture = |picture: &camera_sim::Picture| {
            (picture.random_access, nal::to_length_prefixed(&picture.nal_units))
        };
        Ok(Self { format, pictures: Arc::new(clip.pictures().iter().map(picture).collect()) })
    }

    /// Uploads it in its own time, over and over, as the daemon does, in fragments of so many seconds, which are even; each
    /// picture's timestamp is the moment in which it is handed over.
    pub(crate) async fn play(
        &self,
        client: &Client,
        stream: &str,
        delay_ms: u64,
        fragment_s: u64,
    ) -> Result<(), Error> {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        let clock = Clock::system();
        let mut fragmenter = Fragmenter::new(FragmenterConfig {
            fragment_ms: fragment_s * 1_000 - 100,
            fragment_max_ms: fragment_s * 1_000 + 1_900,
            ids: FragmentIds::new(RunId::new(delay_ms + 1)),
            device: "bench".to_owned(),
            camera: stream.to_owned(),
            writing_app: "bench".to_owned(),
            segment_uid: [7; 16],
        });
        let PutMedia { mut sender, mut acks } = client.put_media(&input(stream, ms(clock.wall()))).await?;
        let hearing = async {
            while acks.next_ack().await?.is_some() {}
            Err::<(), Error>("the session ended".into())
        };
        let sending = async {
            let mut turns = tokio::time::interval(Duration::from_secs(1) / FPS);
            let mut opened = false;
            for (random_access, data) in self.pictures.iter().cycle() {
                turns.tick().await;
                let timestamp = ProducerTimestamp::from_millis(ms(clock.wall()));
                let (data, format) = (data.clone(), self.format.clone());
                fragmenter.video(&AccessUnit { data, timestamp, random_access: *random_access, format });
                while let Some(part) = fragmenter.next_part() {
                    match part {
                        Part::Start(start) => {
                            if !std::mem::replace(&mut opened, true) {
                                sender.send(start.header.bytes.clone()).await?;
                            }
                            sender.send(start.head).await?;
                        }
                        Part::Block { head, payload } => {
                            sender.send(head).await?;
                            sender.send(payload).await?;
                        }
                        Part::End(end) => sender.send(end.tag).await?,
                    }
                }
            }
            Ok::<(), Error>(())
        };
        tokio::try_join!(hearing, sending).map(drop)
    }
}

/// Puts so many fragments of 2 s with pictures of random bytes into a stream; returns how many bytes that are.
pub(crate) async fn noise(client: &Client, stream: &str, fragments: u64) -> Result<u64, Error> {
    let begin_ms = ms(Clock::system().wall()) - fragments * 2_000;
    let film = Film::load()?;
    let PutMedia { mut sender, mut acks } = client.put_media(&input(stream, begin_ms)).await?;
    let sending = async {
        sender.send(header([7; 16], "bench", &[Track::Video(film.format.clone())])).await?;
        let (mut state, mut bytes) = (0x9E37_79B9_7F4A_7C15_u64, 0);
        for n in 0..fragments {
            sender.send(cluster_start(begin_ms + n * 2_000)).await?;
            for picture in 0..PICTURES {
                let mut payload = Vec::with_capacity(PICTURE_BYTES + 8);
                while payload.len() < PICTURE_BYTES {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    payload.extend(state.to_le_bytes());
                }
                payload.truncate(PICTURE_BYTES);
                let offset = i16::try_from(picture * 33)?;
                let head = block_head(1, offset, picture == 0, payload.len());
                bytes += (head.len() + payload.len()) as u64;
                sender.send(head).await?;
                sender.send(payload.into()).await?;
            }
        }
        sender.finish().await?;
        Ok::<u64, Error>(bytes)
    };
    let hearing = async {
        let mut persisted = 0;
        while let Some(ack) = acks.next_ack().await? {
            persisted += u64::from(ack.event == AckEvent::Persisted);
        }
        Ok::<u64, Error>(persisted)
    };
    let (bytes, persisted) = tokio::try_join!(sending, hearing)?;
    if persisted == fragments {
        Ok(bytes)
    } else {
        Err(format!("{persisted} of {fragments} are stored").into())
    }
}
