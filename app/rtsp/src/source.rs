//! RTSP in, access units out.
//!
//! ```text
//!  connecting --PLAY answered--> waiting for key --random access point--> live
//!      ^                              ^------------ packets lost ----------+
//!      |                                                                   |
//!  backing off <---- error, hang-up, no picture for stall_s ---------------+
//! ```
//!
//! retina has no timeouts, does not reconnect and goes on with damaged pictures after a loss (measured), so each
//! handshake step, the time without a picture and the next random access point are watched here. The reader never
//! waits for a consumer: when the feed is full the rest of the GOP is dropped and counted.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use config::{Audio, Source, Transport};
use futures_util::StreamExt;
use health::{Backoff, Problem, Reason, Recent};
use media::{AccessUnit, AudioFormat, AudioFrame, ClockSource, Feed, ProducerTimestamp, VideoFormat, nal};
use retina::client::{self, SessionGroup};
use retina::codec::{CodecItem, ParametersRef};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::options;
use crate::rtp_clock::{Micros, RtpClock, ntp_to_micros};
use crate::watched::Watched;

/// Places between ingest and its consumer: about 2.5 s of video and audio. When it is full, pictures are dropped
/// until the next random access point, because the reader must never wait.
pub const FEED_PLACES: usize = 256;

/// Where one camera stands; counters run since start.
#[derive(Clone, Debug)]
pub struct IngestReport {
    pub state: IngestState,
    pub since: SystemTime,
    pub problem: Option<Problem>,
    /// Failed attempts since the last picture.
    pub attempts: u32,
    pub last_frame: Option<SystemTime>,
    pub format: Option<Arc<VideoFormat>>,
    pub audio: Option<Arc<AudioFormat>>,
    pub transport: Option<&'static str>,
    pub clock: Option<ClockSource>,
    pub clock_offset_us: Option<i64>,
    pub clock_is_wrong: bool,
    pub frames: u64,
    pub bytes: u64,
    pub dropped_frames: u64,
    pub lost_packets: u64,
    /// The newest loss of pictures while the session went on.
    pub loss: Option<Loss>,
    pub gop_frames: Option<u32>,
    pub gop_ms: Option<u64>,
    pub reconnects: Recent,
    pub stalls: Recent,
}

/// Pictures that came, or nearly so, and are not recorded.
#[derive(Clone, Debug)]
pub struct Loss {
    pub at: Instant,
    pub reason: Reason,
    /// For people.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestState {
    Connecting,
    WaitingForKey,
    Live,
    BackingOff,
    Stopped,
}

impl Default for IngestReport {
    fn default() -> Self {
        Self {
            state: IngestState::Connecting,
            since: SystemTime::now(),
            problem: None,
            attempts: 0,
            last_frame: None,
            format: None,
            audio: None,
            transport: None,
            clock: None,
            clock_offset_us: None,
            clock_is_wrong: false,
            frames: 0,
            bytes: 0,
            dropped_frames: 0,
            lost_packets: 0,
            loss: None,
            gop_frames: None,
            gop_ms: None,
            reconnects: Recent::hour(),
            stalls: Recent::hour(),
        }
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("the camera's address does not resolve: {0}")]
    Dns(std::io::Error),
    #[error("no TCP connection to the camera: {0}; check its address, its power and the cable")]
    Connect(std::io::Error),
    #[error("{step} was not answered within {} s", .after.as_secs())]
    Timeout { step: &'static str, after: Duration },
    #[error("the camera refused the login (RTSP {status}); check username and password_file")]
    Unauthorized { status: u16 },
    #[error("the camera has no such path (RTSP 404); check the path in the url")]
    NotFound,
    #[error("the camera offers no video, only {offers}; check the path in the url")]
    NoVideo { offers: String },
    #[error("the camera offers {offers}, expected H.264 or H.265; change the codec in the camera's settings")]
    UnsupportedCodec { offers: String },
    #[error("the camera refuses UDP (RTSP 461); set transport = \"tcp\"")]
    TransportRefused,
    #[error("no picture for {} s", .after.as_secs_f32())]
    Stalled { after: Duration },
    #[error("the camera closed the connection")]
    Disconnected,
    #[error("{step}: {}", options::words(.source))]
    Protocol { step: &'static str, source: retina::Error },
    #[error("the camera's parameter sets: {0}")]
    Parameters(media::FormatError),
}

impl IngestError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dns(_) => Reason::DnsFailed,
            Self::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Reason::ConnectionRefused
            }
            Self::Connect(_) => Reason::Unreachable,
            Self::Timeout { .. } => Reason::Timeout,
            Self::Unauthorized { .. } => Reason::Unauthorized,
            Self::NotFound => Reason::NotFound,
            Self::NoVideo { .. } => Reason::NoVideo,
            Self::UnsupportedCodec { .. } | Self::Parameters(_) => Reason::UnsupportedCodec,
            Self::Stalled { .. } => Reason::Stalled,
            Self::Disconnected => Reason::Disconnected,
            Self::TransportRefused | Self::Protocol { .. } => Reason::ProtocolError,
        }
    }

    /// Somebody has to change a setting; asking often only fills the camera's log (or locks the account).
    pub fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. } | Self::NotFound | Self::NoVideo { .. } | Self::UnsupportedCodec { .. }
        )
    }

    fn protocol(step: &'static str, source: retina::Error) -> Self {
        match source.status_code() {
            Some(status @ (401 | 403)) => Self::Unauthorized { status },
            Some(404) => Self::NotFound,
            Some(461) => Self::TransportRefused,
            _ => Self::Protocol { step, source },
        }
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A session of this length was a good one: the next failure starts with the shortest delay.
const HEALTHY: Duration = Duration::from_secs(30);
/// How often the clock is looked at while no picture comes: a box that stood still shall not leave its cameras for it.
const LOOKS_BEFORE_STALL: u32 = 10;
/// Between attempts that only an operator's change can make succeed.
const OPERATOR_DELAY: Duration = Duration::from_secs(60);

/// Keeps one camera's feed alive until `cancel`. `feed` takes each item at once and returns false if it had no room.
pub async fn run(
    camera: &config::Camera,
    mut feed: impl FnMut(Feed) -> bool + Send + Sync,
    report: watch::Sender<IngestReport>,
    cancel: CancellationToken,
) {
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, HEALTHY);
    let mut udp_refused = false;
    let group = Arc::new(SessionGroup::default().named(camera.id.clone()));
    loop {
        set_state(&report, IngestState::Connecting);
        let transport = match camera.transport {
            Transport::Tcp => Transport::Tcp,
            _ if camera.source == Source::Go2rtc || udp_refused => Transport::Tcp,
            other => other,
        };
        let mut session = Session {
            camera,
            feed: &mut feed,
            report: &report,
            backoff: &mut backoff,
            group: &group,
            video_clock: RtpClock::new(90_000),
            audio_clock: RtpClock::new(90_000),
            format: None,
            waiting_for_key: true,
            gop: Gop::default(),
        };
        let ended = cancel.run_until_cancelled(session.run(transport)).await;
        feed(Feed::Break); // a full feed is told by the next picture's gap anyway
        let Some(Err(error)) = ended else { break };
        if matches!(error, IngestError::TransportRefused) && camera.transport == Transport::Auto {
            tracing::info!(camera = camera.id, "the camera refuses UDP, going on with TCP");
            udp_refused = true;
            continue;
        }
        let now = Instant::now();
        let mut delay = backoff.failed(now, rand::random());
        if error.needs_operator() {
            delay = delay.max(OPERATOR_DELAY);
        }
        tracing::warn!(camera = camera.id, error = %error, retry_in_ms = delay.as_millis(), "camera lost");
        report.send_modify(|report| {
            report.attempts += 1;
            report.problem = Some(Problem::new(error.reason(), error.to_string(), SystemTime::now()));
            report.reconnects.add(now);
            if matches!(error, IngestError::Stalled { .. }) {
                report.stalls.add(now);
            }
        });
        set_state(&report, IngestState::BackingOff);
        if cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            break;
        }
    }
    set_state(&report, IngestState::Stopped);
    // The camera frees its session on TEARDOWN; some allow only one.
    let _ = timeout(Duration::from_secs(1), group.await_teardown()).await;
}

fn set_state(report: &watch::Sender<IngestReport>, state: IngestState) {
    report.send_if_modified(|report| {
        let changed = report.state != state;
        if changed {
            report.state = state;
            report.since = SystemTime::now();
        }
        changed
    });
}

struct Session<'a> {
    camera: &'a config::Camera,
    feed: &'a mut (dyn FnMut(Feed) -> bool + Send + Sync),
    report: &'a watch::Sender<IngestReport>,
    backoff: &'a mut Backoff,
    group: &'a Arc<SessionGroup>,
    video_clock: RtpClock,
    audio_clock: RtpClock,
    format: Option<Arc<VideoFormat>>,
    waiting_for_key: bool,
    gop: Gop,
}

/// Measures from one random access point to the next.
#[derive(Default)]
struct Gop {
    frames: u32,
    start: Option<ProducerTimestamp>,
    /// Pictures and milliseconds of the last whole one.
    last: Option<(u32, u64)>,
}

/// Which of the session's tracks are taken.
struct Tracks {
    video: usize,
    audio: Option<usize>,
}

impl Session<'_> {
    async fn run(&mut self, transport: Transport) -> Result<(), IngestError> {
        let limit = self.camera.handshake;
        let options = options::session_options(self.camera.login.as_ref(), self.group);
        let mut session =
            self.step("DESCRIBE", client::Session::describe(self.camera.url.clone(), options)).await?;
        let tracks = choose(session.streams(), self.camera.audio)?;
        for index in [Some(tracks.video), tracks.audio].into_iter().flatten() {
            let setup = timeout(limit, session.setup(index, options::setup_options(transport))).await;
            setup
                .map_err(|_| IngestError::Timeout { step: "SETUP", after: limit })?
                .map_err(|source| IngestError::protocol("SETUP", source))?;
        }
        self.video_clock = RtpClock::new(session.streams()[tracks.video].clock_rate_hz());
        if let Some(index) = tracks.audio {
            self.audio_clock = RtpClock::new(session.streams()[index].clock_rate_hz());
        }
        let playing = self.step("PLAY", session.play(options::play_options())).await?;
        let mut demuxed =
            playing.demuxed().map_err(|source| IngestError::protocol("starting the tracks", source))?;
        self.report.send_modify(|report| {
            report.transport = Some(if transport == Transport::Tcp { "tcp" } else { "udp" });
        });
        set_state(self.report, IngestState::WaitingForKey);
        self.announce_audio(&demuxed, &tracks);
        let look = self.camera.stall / LOOKS_BEFORE_STALL;
        let mut without_picture = Watched::new(look);
        without_picture.restart(Instant::now());
        loop {
            let item = match timeout(look, demuxed.next()).await {
                Err(_) => None,
                Ok(None) => return Err(IngestError::Disconnected),
                Ok(Some(item)) => Some(item.map_err(|source| IngestError::protocol("media", source))?),
            };
            match item {
                Some(CodecItem::VideoFrame(frame)) => {
                    without_picture.restart(Instant::now());
                    if frame.has_new_parameters() || self.format.is_none() {
                        self.read_format(&demuxed.streams()[tracks.video])?;
                    }
                    self.video(frame);
                }
                Some(CodecItem::AudioFrame(frame)) => self.audio(&frame),
                Some(CodecItem::Rtcp(packet)) => self.sender_report(&packet, &tracks),
                _ => {}
            }
            if without_picture.until(Instant::now()) >= self.camera.stall {
                return Err(IngestError::Stalled { after: self.camera.stall });
            }
        }
    }

    async fn step<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, retina::Error>>,
    ) -> Result<T, IngestError> {
        let after = self.camera.handshake;
        match timeout(after, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => match IngestError::protocol(step, source) {
                // retina does not say what kind of error it is: see whether the camera can be reached at all.
                error @ IngestError::Protocol { .. } => {
                    Err(reach(&self.camera.url, after).await.err().unwrap_or(error))
                }
                error => Err(error),
            },
            Err(_) => Err(reach(&self.camera.url, after)
                .await
                .err()
                .unwrap_or(IngestError::Timeout { step, after })),
        }
    }

    fn announce_audio(&mut self, demuxed: &client::Demuxed, tracks: &Tracks) {
        let format =
            tracks.audio.and_then(|index| options::audio_format(&demuxed.streams()[index])).map(Arc::new);
        self.report.send_modify(|report| report.audio.clone_from(&format));
        if let Some(format) = format {
            (self.feed)(Feed::AudioTrack(format)); // the first audio frame says it again
        }
    }

    fn read_format(&mut self, stream: &client::Stream) -> Result<(), IngestError> {
        let Some(ParametersRef::Video(parameters)) = stream.parameters() else { return Ok(()) };
        let Some(codec) = options::video_codec(stream) else { return Ok(()) };
        let codec_private = Bytes::copy_from_slice(parameters.extra_data());
        if self.format.as_ref().is_some_and(|format| format.codec_private == codec_private) {
            return Ok(());
        }
        let format =
            VideoFormat::from_codec_private(codec, codec_private).map_err(IngestError::Parameters)?;
        tracing::info!(
            camera = self.camera.id,
            codec = format.rfc6381(),
            width = format.width,
            height = format.height,
            "parameter sets"
        );
        let format = Arc::new(format);
        self.format = Some(format.clone());
        self.report.send_modify(|report| report.format = Some(format));
        Ok(())
    }

    fn video(&mut self, frame: retina::codec::VideoFrame) {
        let Some(format) = self.format.clone() else { return };
        let lost = u64::from(frame.loss());
        if lost > 0 {
            // Pictures after a loss refer to what is not there; the next random access point heals.
            self.wait_for_key();
        }
        let received = wall_micros(frame.start_ctx());
        let stamp = self.video_clock.stamp(frame.timestamp().elapsed(), received);
        let data = Bytes::from(frame.into_data());
        // retina throws away what was hit inside or at its end, but not a picture of several slices whose first
        // ones are lost.
        let random_access = nal::is_random_access(format.codec, &data).unwrap_or(false)
            && (lost == 0 || nal::begins_picture(format.codec, &data));
        self.gop.count(random_access, stamp.timestamp);
        self.waiting_for_key &= !random_access;
        let size = data.len() as u64;
        let dropped = self.waiting_for_key || {
            if stamp.new_timeline {
                (self.feed)(Feed::NewTimeline);
            }
            let unit = AccessUnit { data, timestamp: stamp.timestamp, random_access, format };
            !self.send(Feed::Video(unit))
        };
        if !dropped {
            self.backoff.up(Instant::now());
        }
        let gop = self.gop.last;
        let (offset, wrong) = (self.video_clock.camera_offset_us(), self.video_clock.camera_is_wrong());
        self.report.send_modify(|report| {
            report.frames += 1;
            report.bytes += size;
            report.lost_packets += lost;
            if lost > 0 {
                let text = format!(
                    "{} packets lost since start, each time the pictures up to the next key frame; check the network",
                    report.lost_packets
                );
                report.loss = Some(Loss { at: Instant::now(), reason: Reason::PacketLoss, text });
            }
            report.dropped_frames += u64::from(dropped);
            report.last_frame = Some(SystemTime::now());
            report.clock = Some(stamp.source);
            report.clock_offset_us = offset;
            report.clock_is_wrong = wrong;
            if let Some((frames, ms)) = gop {
                report.gop_frames = Some(frames);
                report.gop_ms = Some(ms);
            }
            if !dropped {
                report.attempts = 0;
                report.problem = None;
            }
        });
        set_state(
            self.report,
            if self.waiting_for_key { IngestState::WaitingForKey } else { IngestState::Live },
        );
    }

    fn audio(&mut self, frame: &retina::codec::AudioFrame) {
        let Some(format) = self.report.borrow().audio.clone() else { return };
        let stamp = self.audio_clock.stamp(frame.timestamp().elapsed(), wall_micros(frame.ctx()));
        let data = Bytes::copy_from_slice(frame.data());
        (self.feed)(Feed::Audio(AudioFrame { data, timestamp: stamp.timestamp, format }));
    }

    fn sender_report(&mut self, packet: &retina::rtcp::ReceivedCompoundPacket, tracks: &Tracks) {
        let Some(rtp) = packet.rtp_timestamp() else { return };
        let received = wall_micros(packet.ctx());
        let clock = match packet.stream_id() {
            id if id == tracks.video => &mut self.video_clock,
            id if Some(id) == tracks.audio => &mut self.audio_clock,
            _ => return,
        };
        for report in packet.pkts() {
            if let Ok(Some(report)) = report.as_sender_report() {
                clock.report(rtp.elapsed(), ntp_to_micros(report.ntp_timestamp().0), received);
            }
        }
    }

    /// False if the picture was dropped.
    fn send(&mut self, feed: Feed) -> bool {
        let taken = (self.feed)(feed);
        if !taken {
            self.wait_for_key();
            let text = "the box is too slow for this camera: pictures up to the next key frame are dropped";
            let loss = Loss { at: Instant::now(), reason: Reason::BacklogFull, text: text.to_owned() };
            self.report.send_modify(|report| report.loss = Some(loss));
        }
        taken
    }

    fn wait_for_key(&mut self) {
        if !self.waiting_for_key {
            self.waiting_for_key = true;
            (self.feed)(Feed::Break);
        }
    }
}

impl Gop {
    fn count(&mut self, random_access: bool, timestamp: ProducerTimestamp) {
        if random_access {
            if let Some(start) = self.start {
                self.last = Some((self.frames, timestamp.as_millis().saturating_sub(start.as_millis())));
            }
            self.start = Some(timestamp);
            self.frames = 0;
        }
        self.frames = self.frames.saturating_add(1);
    }
}

/// The first H.264 or H.265 track, and the first audio track that KVS takes.
fn choose(streams: &[client::Stream], audio: Audio) -> Result<Tracks, IngestError> {
    let offers = || {
        let names: Vec<_> = streams.iter().map(|s| format!("{} {}", s.media(), s.encoding_name())).collect();
        if names.is_empty() { "no tracks at all".to_owned() } else { names.join(", ") }
    };
    let video = streams.iter().position(|stream| options::video_codec(stream).is_some());
    let Some(video) = video else {
        let any_video = streams.iter().any(|stream| stream.media() == "video");
        let offers = offers();
        return Err(if any_video {
            IngestError::UnsupportedCodec { offers }
        } else {
            IngestError::NoVideo { offers }
        });
    };
    let audio = (audio == Audio::Auto)
        .then(|| streams.iter().position(|stream| options::audio_format(stream).is_some()));
    Ok(Tracks { video, audio: audio.flatten() })
}

/// Whether the camera's port can be reached; asked only after a failure, to say what kind it is.
pub async fn reach(url: &Url, limit: Duration) -> Result<(), IngestError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port().unwrap_or(554);
    let late = |step| move |_| IngestError::Timeout { step, after: limit };
    let addresses =
        timeout(limit, tokio::net::lookup_host((host, port))).await.map_err(late("name resolution"))?;
    let addresses: Vec<_> = addresses.map_err(IngestError::Dns)?.collect();
    let connect = timeout(limit, tokio::net::TcpStream::connect(&addresses[..]));
    connect.await.map_err(late("TCP connect"))?.map(drop).map_err(IngestError::Connect)
}

/// When a packet arrived, on our wall clock.
fn wall_micros(context: &retina::PacketContext) -> Micros {
    let since = SystemTime::from(context.received_wall()).duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}
