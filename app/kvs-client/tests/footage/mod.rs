//! Real coded pictures in a stream of a server on loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camera_sim::{Clip, ClipSpec, Codec};
use kvs::ack::AckEvent;
use kvs::api::StreamId;
use kvs_client::{Client, Config, PutMedia, PutMediaInput, TimecodeType, kvs, static_credentials};
use kvs_local::{KvsLocal, Options};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::{VideoCodec, VideoFormat, nal};

/// A wait that takes longer has failed. No test depends on how long anything takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// 2026-11-20T15:08:34Z.
pub(crate) const BEGIN_MS: u64 = 1_795_187_314_000;
/// Of a picture.
pub(crate) const PICTURE_MS: u64 = 40;

pub(crate) struct Server {
    pub(crate) local: KvsLocal,
    pub(crate) client: Client,
    _data: tempfile::TempDir,
}

/// `cam1` is there and keeps for a day.
pub(crate) async fn server() -> Server {
    let data = tempfile::tempdir().expect("a folder");
    let local = KvsLocal::start(Options::new(data.path()).stream("cam1", 24)).await.expect("starts");
    let mut config = Config::new("us-west-2", static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None));
    config.endpoints.control = Some(local.endpoint().parse().expect("an endpoint"));
    let client = Client::new(config).expect("built");
    Server { local, client, _data: data }
}

pub(crate) fn stream() -> StreamId {
    StreamId::name("cam1")
}

/// 25 pictures a second, 5 fragments of 20 pictures.
pub(crate) fn spec() -> ClipSpec {
    ClipSpec {
        width: 320,
        height: 192,
        bitrate_kbps: 500,
        gop: 20,
        loop_seconds: 4,
        seed: 3,
        ..ClipSpec::default()
    }
}

pub(crate) struct Footage {
    track: Track,
    /// In coding order: number in the strip, whether decoding may begin there, payload.
    pictures: Vec<(u32, bool, Bytes)>,
}

pub(crate) fn footage(spec: &ClipSpec) -> Footage {
    let clip =
        Clip::load(spec, &camera_sim::default_cache_dir()).expect("GStreamer's encoders are installed");
    let sets = clip.parameter_sets();
    let (codec, record) = match spec.codec {
        Codec::H264 => (VideoCodec::H264, nal::avcc_from_sps_pps(&sets[..1], &sets[1..])),
        Codec::H265 => (VideoCodec::H265, nal::hvcc_from_vps_sps_pps(&sets[..1], &sets[1..2], &sets[2..])),
    };
    let record = record.expect("parameter sets of x264 and x265");
    let format = VideoFormat::from_codec_private(codec, record).expect("a valid SPS");
    let picture = |picture: &camera_sim::Picture| {
        (picture.index, picture.random_access, nal::to_length_prefixed(&picture.nal_units))
    };
    Footage { track: Track::Video(Arc::new(format)), pictures: clip.pictures().iter().map(picture).collect() }
}

impl Footage {
    /// The `n`-th picture in coding order is spoilt: its slice begins at a macroblock that the picture does not have.
    pub(crate) fn spoil(&mut self, n: usize) {
        let mut data = self.pictures[n].2.to_vec();
        for (byte, bad) in data[5..].iter_mut().zip([0x00, 0x40].into_iter().cycle()) {
            *byte = bad;
        }
        self.pictures[n].2 = data.into();
    }

    /// Uploads it in one session, the first picture at this time, until all is kept.
    pub(crate) async fn upload(&self, client: &Client, begin_ms: u64) {
        let input = PutMediaInput {
            stream: stream(),
            timecode_type: TimecodeType::Absolute,
            start_ms: begin_ms,
            write_timeout: None,
        };
        let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
        let sending = async {
            sender.send(header([7; 16], "test", std::slice::from_ref(&self.track))).await.expect("taken");
            let mut cluster_ms = begin_ms;
            for (index, random_access, data) in &self.pictures {
                let at = begin_ms + u64::from(*index) * PICTURE_MS;
                let mut bytes = Vec::new();
                if *random_access {
                    cluster_ms = at;
                    bytes.extend_from_slice(&cluster_start(at));
                }
                let offset = i16::try_from(at.cast_signed() - cluster_ms.cast_signed()).expect("short");
                bytes.extend_from_slice(&block_head(1, offset, *random_access, data.len()));
                bytes.extend_from_slice(data);
                sender.send(bytes.into()).await.expect("taken");
            }
            sender.finish().await.expect("ended");
        };
        let hearing = async {
            let mut persisted = 0;
            while let Some(ack) = acks.next_ack().await.expect("the session ends in order") {
                persisted += usize::from(ack.event == AckEvent::Persisted);
            }
            persisted
        };
        let ((), persisted) = tokio::join!(sending, hearing);
        assert_eq!(persisted, self.pictures.iter().filter(|(_, random_access, _)| *random_access).count());
    }
}
