//! One RTSP session, from DESCRIBE to its last packet: the only place that talks to retina.
//!
//! ```text
//!  describe --choose--> set up each track --> play --> next, next, ... --> end
//!      each step with a limit                   Item | Tick
//! ```
//!
//! retina has no timeouts and does not say what kind of error it has, so each step of the handshake is timed here, and
//! after a failure it is seen whether the camera can be reached at all. `source` and `probe` both come through here:
//! what works for the one works for the other.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use clock::Clock;
use config::{Audio, Login, Transport};
use futures_util::StreamExt;
use media::{AudioFormat, FormatError, VideoCodec, VideoFormat, nal};
use retina::client::{
    self, Credentials, Demuxed, InitialTimestampPolicy, PlayOptions, SessionGroup, SessionIdPolicy,
    SessionOptions, SetupOptions, Stream, TcpTransportOptions, UdpTransportOptions,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until, timeout};
use url::Url;

use crate::error::SessionError;
use crate::timeline::{Arrival, Kind, Micros};

/// Packet type of RTCP (RFC 3550 12.1).
const RTCP_BYE: u8 = 203;

/// Where a session goes to, and how.
pub(crate) struct Target<'a> {
    /// `rtsp://`, without credentials.
    pub(crate) url: &'a Url,
    pub(crate) login: Option<&'a Login>,
    /// [`Transport::Auto`] counts as UDP here: whoever falls back asks again.
    pub(crate) transport: Transport,
    /// For each step: name resolution and connect, DESCRIBE, each SETUP, PLAY.
    pub(crate) step_limit: Duration,
    pub(crate) group: &'a Arc<SessionGroup>,
}

/// A camera that said what it has.
pub(crate) struct Described<'a> {
    target: &'a Target<'a>,
    session: client::Session<client::Described>,
}

/// Which tracks of a session are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracks {
    pub(crate) video: usize,
    pub(crate) codec: VideoCodec,
    pub(crate) audio: Option<usize>,
}

/// A session that plays.
pub(crate) struct Session {
    demuxed: Demuxed,
    tracks: Tracks,
    format: Result<Option<Arc<VideoFormat>>, FormatError>,
    clocks: Clocks,
    look: Duration,
    tick: std::pin::Pin<Box<Sleep>>,
}

/// What comes out of a session.
pub(crate) enum Next {
    Picture(Picture),
    Sound(Sound),
    SenderReport(SenderReport),
    /// A beat of `look` has passed since the one before. Whoever counts these sees no more time than the box did: while it
    /// stands still (starved, its virtual machine paused) there are none, and the camera is not blamed for it.
    Tick,
}

/// A coded picture as the camera sent it.
pub(crate) struct Picture {
    /// Ticks, unwrapped.
    pub(crate) rtp: i64,
    pub(crate) arrival: Arrival,
    /// RTP packets lost before it or in it.
    pub(crate) lost: u64,
    /// Decoding may begin here.
    pub(crate) random_access: bool,
    /// NAL units behind their length in 4 bytes; no inserted parameter sets.
    pub(crate) data: Bytes,
}

/// A frame of sound as the camera sent it.
pub(crate) struct Sound {
    /// Ticks, unwrapped.
    pub(crate) rtp: i64,
    pub(crate) arrival: Arrival,
    pub(crate) data: Bytes,
}

/// An RTCP sender report: the camera's clock at an RTP time of one track.
pub(crate) struct SenderReport {
    pub(crate) kind: Kind,
    /// Ticks, unwrapped.
    pub(crate) rtp: i64,
    pub(crate) ntp: u64,
    pub(crate) arrival: Arrival,
}

/// Brings times of arrival to one form.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    pub(crate) clock: Clock,
    /// Where monotonic microseconds count from.
    epoch: Instant,
}

impl Clocks {
    pub(crate) fn new(clock: Clock, epoch: Instant) -> Self {
        Self { clock, epoch }
    }

    fn arrival(&self, received: Instant) -> Arrival {
        self.by_now(micros(received.saturating_duration_since(self.epoch)))
    }

    pub(crate) fn instant(&self, arrival: Arrival) -> Instant {
        self.epoch + Duration::from_micros(arrival.monotonic.max(0).unsigned_abs())
    }

    /// The arrival at that monotonic time, in wall time as it is known now.
    pub(crate) fn by_now(&self, monotonic: Micros) -> Arrival {
        let ago = micros(self.clock.since(self.epoch)).saturating_sub(monotonic);
        let wall = match self.clock.wall().duration_since(UNIX_EPOCH) {
            Ok(since) => micros(since),
            Err(before) => -micros(before.duration()),
        };
        Arrival { monotonic, wall: wall.saturating_sub(ago) }
    }
}

impl<'a> Described<'a> {
    /// Asks the camera what it has.
    pub(crate) async fn ask(target: &'a Target<'a>) -> Result<Self, SessionError> {
        let credentials = target.login.map(|login| Credentials {
            username: login.username.clone(),
            password: login.password.expose().to_owned(),
        });
        // UseFirst, because go2rtc answers each SETUP with another session id.
        let options = SessionOptions::default()
            .creds(credentials)
            .user_agent(crate::USER_AGENT.to_owned())
            .session_group(target.group.clone())
            .session_id(SessionIdPolicy::UseFirst);
        let describe = client::Session::describe(target.url.clone(), options);
        Ok(Self { target, session: target.step("DESCRIBE", describe).await? })
    }

    pub(crate) fn streams(&self) -> &[Stream] {
        self.session.streams()
    }

    /// The server's name for itself, where the session description has one.
    pub(crate) fn tool(&self) -> Option<String> {
        self.session.tool().map(|tool| tool.to_string())
    }

    /// The first H.264 or H.265 track, and the first audio track that KVS takes.
    pub(crate) fn choose(&self, audio: Audio) -> Result<Tracks, SessionError> {
        let streams = self.streams();
        let mut videos = streams.iter().enumerate().filter_map(|(index, s)| Some((index, video_codec(s)?)));
        let Some((video, codec)) = videos.next() else {
            let names = |s: &Stream| format!("{} {}", s.media(), s.encoding_name());
            let offers = streams.iter().map(names).collect::<Vec<_>>().join(", ");
            return Err(if streams.is_empty() {
                SessionError::NoTracks
            } else if streams.iter().any(|stream| stream.media() == "video") {
                SessionError::UnsupportedCodec { offers }
            } else {
                SessionError::NoVideo { offers }
            });
        };
        let audio = (audio == Audio::Auto)
            .then(|| streams.iter().position(|stream| audio_format(stream).is_some()))
            .flatten();
        Ok(Tracks { video, codec, audio })
    }

    pub(crate) async fn set_up(&mut self, tracks: Tracks) -> Result<(), SessionError> {
        for index in [Some(tracks.video), tracks.audio].into_iter().flatten() {
            let transport = match self.target.transport {
                Transport::Tcp => client::Transport::Tcp(TcpTransportOptions::default()),
                Transport::Udp | Transport::Auto => client::Transport::Udp(UdpTransportOptions::default()),
            };
            // Length-prefixed access units without inserted parameter sets: the camera's bytes as they are.
            let options = SetupOptions::default().frame_format(FrameFormat::MP4).transport(transport);
            self.target.step("SETUP", self.session.setup(index, options)).await?;
        }
        Ok(())
    }

    /// Starts the tracks that were set up; ticks come each `look`.
    pub(crate) async fn play(
        self,
        tracks: Tracks,
        look: Duration,
        clocks: &Clocks,
    ) -> Result<Session, SessionError> {
        // Permissive, because go2rtc and some cameras send no RTP-Info.
        let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
        let playing = self.target.step("PLAY", self.session.play(options)).await?;
        let demuxed = playing.demuxed().map_err(|error| self.target.error("PLAY", &error))?;
        let tick = Box::pin(sleep_until(clocks.clock.next_beat(look).into()));
        let mut session = Session { demuxed, tracks, format: Ok(None), clocks: clocks.clone(), look, tick };
        session.read_format();
        Ok(session)
    }
}

impl Target<'_> {
    async fn step<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, retina::Error>>,
    ) -> Result<T, SessionError> {
        let error = match timeout(self.step_limit, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => self.error(step, &error),
            Err(_) => SessionError::Timeout { step, after: self.step_limit },
        };
        // retina does not say what kind of error it is: see whether the camera can be reached at all.
        Err(match error {
            SessionError::Protocol { .. } | SessionError::Timeout { .. } => {
                connect(self.url, self.step_limit).await.err().unwrap_or(error)
            }
            error => error,
        })
    }

    fn error(&self, step: &'static str, error: &retina::Error) -> SessionError {
        match error.status_code() {
            Some(status @ 401) if self.login.is_none() => SessionError::LoginNeeded { step, status },
            Some(status @ (401 | 403)) => SessionError::LoginRefused { step, status },
            Some(404) => SessionError::NotFound { step, path: self.url.path().to_owned() },
            Some(461) => SessionError::TransportRefused { step },
            _ => {
                let text = words(error);
                if text.contains("No parseable streams (and 0 unparseable") {
                    return SessionError::NoTracks;
                }
                SessionError::Protocol { step, text }
            }
        }
    }
}

/// Connects to the camera's port.
pub(crate) async fn connect(url: &Url, limit: Duration) -> Result<TcpStream, SessionError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port().unwrap_or(554);
    let late = |step| move |_| SessionError::Timeout { step, after: limit };
    let addresses =
        timeout(limit, tokio::net::lookup_host((host, port))).await.map_err(late("name resolution"))?;
    let addresses: Vec<_> =
        addresses.map_err(|source| SessionError::Dns { host: host.to_owned(), source })?.collect();
    let connected = timeout(limit, TcpStream::connect(&addresses[..])).await.map_err(late("TCP connect"))?;
    connected.map_err(|source| SessionError::Connect { host: host.to_owned(), port, source })
}

impl Session {
    /// The next thing, or why there is no more.
    pub(crate) async fn next(&mut self) -> Result<Next, SessionError> {
        loop {
            let item = tokio::select! {
                biased;
                item = self.demuxed.next() => item,
                () = &mut self.tick => {
                    self.tick.as_mut().reset(self.clocks.clock.next_beat(self.look).into());
                    return Ok(Next::Tick);
                }
            };
            let item = item.ok_or(SessionError::Disconnected)?;
            let item = item.map_err(|error| SessionError::Protocol { step: "media", text: words(&error) })?;
            if self.is_goodbye(&item) {
                return Err(SessionError::Goodbye);
            }
            if let Some(next) = self.take(item) {
                return Ok(next);
            }
        }
    }

    /// Nothing more comes of the pictures, whatever the connection does: waiting for them would only cost footage.
    fn is_goodbye(&self, item: &CodecItem) -> bool {
        let CodecItem::Rtcp(packet) = item else { return false };
        packet.stream_id() == self.tracks.video
            && packet.pkts().any(|packet| packet.payload_type() == RTCP_BYE)
    }

    fn take(&mut self, item: CodecItem) -> Option<Next> {
        match item {
            CodecItem::VideoFrame(frame) if frame.stream_id() == self.tracks.video => {
                if frame.has_new_parameters() || !matches!(self.format, Ok(Some(_))) {
                    self.read_format();
                }
                let lost = u64::from(frame.loss());
                let (rtp, received) = (frame.timestamp().elapsed(), frame.start_ctx().received());
                let data = Bytes::from(frame.into_data());
                // retina throws away what was hit inside or at its end, but not a picture of several slices whose
                // first ones are lost.
                let random_access = nal::is_random_access(self.tracks.codec, &data).unwrap_or(false)
                    && (lost == 0 || nal::begins_picture(self.tracks.codec, &data));
                let arrival = self.clocks.arrival(received);
                Some(Next::Picture(Picture { rtp, arrival, lost, random_access, data }))
            }
            CodecItem::AudioFrame(frame) => Some(Next::Sound(Sound {
                rtp: frame.timestamp().elapsed(),
                arrival: self.clocks.arrival(frame.ctx().received()),
                data: Bytes::copy_from_slice(frame.data()),
            })),
            CodecItem::Rtcp(packet) => {
                let kind = match packet.stream_id() {
                    id if id == self.tracks.video => Kind::Video,
                    id if Some(id) == self.tracks.audio => Kind::Audio,
                    _ => return None,
                };
                let rtp = packet.rtp_timestamp()?.elapsed();
                let ntp = packet.pkts().find_map(|packet| packet.as_sender_report().ok().flatten())?;
                let arrival = self.clocks.arrival(packet.ctx().received());
                let ntp = ntp.ntp_timestamp().0;
                Some(Next::SenderReport(SenderReport { kind, rtp, ntp, arrival }))
            }
            _ => None,
        }
    }

    fn read_format(&mut self) {
        let Some(ParametersRef::Video(parameters)) = self.demuxed.streams()[self.tracks.video].parameters()
        else {
            return;
        };
        let known = self.format.as_ref().ok().and_then(Option::as_ref);
        if known.is_none_or(|format| format.codec_private != parameters.extra_data()) {
            let codec_private = Bytes::copy_from_slice(parameters.extra_data());
            let format = VideoFormat::from_codec_private(self.tracks.codec, codec_private);
            self.format = format.map(|format| Some(Arc::new(format)));
        }
    }

    /// How to decode the pictures: the newest parameter sets, `None` before the first ones.
    pub(crate) fn format(&self) -> Result<Option<&Arc<VideoFormat>>, &FormatError> {
        self.format.as_ref().map(Option::as_ref)
    }

    pub(crate) fn audio_format(&self) -> Option<AudioFormat> {
        audio_format(&self.demuxed.streams()[self.tracks.audio?])
    }

    /// RTP ticks per second of both tracks; 0 without sound.
    pub(crate) fn rates_hz(&self) -> (u32, u32) {
        let rate = |index: usize| self.demuxed.streams()[index].clock_rate_hz();
        (rate(self.tracks.video), self.tracks.audio.map_or(0, rate))
    }
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

/// The codec of a track that can be uploaded as video.
pub(crate) fn video_codec(stream: &Stream) -> Option<VideoCodec> {
    match (stream.media(), stream.encoding_name()) {
        ("video", "h264") => Some(VideoCodec::H264),
        ("video", "h265") => Some(VideoCodec::H265),
        _ => None,
    }
}

/// The format of a track that can be uploaded as audio.
pub(crate) fn audio_format(stream: &Stream) -> Option<AudioFormat> {
    let Some(ParametersRef::Audio(parameters)) = stream.parameters() else { return None };
    let (rate, channels) = (parameters.clock_rate(), parameters.channels().get());
    match stream.encoding_name() {
        "mpeg4-generic" => AudioFormat::aac(Bytes::copy_from_slice(parameters.extra_data())).ok(),
        "pcmu" => Some(AudioFormat::pcmu(rate, channels)),
        "pcma" => Some(AudioFormat::pcma(rate, channels)),
        _ => None,
    }
}

/// A retina error on one line.
fn words(error: &retina::Error) -> String {
    first_words(&error.to_string())
}

/// The first paragraph, without the bytes that it quotes in hexadecimal; what it appends is for its authors.
fn first_words(text: &str) -> String {
    let words = text.split("\n\n").next().unwrap_or_default();
    words.split("; buffered:").next().unwrap_or_default().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_retina_is_one_line_of_words() {
        let framing = "RTSP framing error: Invalid RTSP message: byte 12: status-line; buffered:\nLength: 366 (0x16e) bytes\n0000:   52 54\n\nconn: 127.0.0.1";
        assert_eq!(first_words(framing), "RTSP framing error: Invalid RTSP message: byte 12: status-line");
        assert_eq!(first_words("wrong ssrc\nexpecting 1\n\nconn: x"), "wrong ssrc expecting 1");
    }
}
