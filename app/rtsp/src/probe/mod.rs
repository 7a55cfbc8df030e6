//! `kvs-edge probe`: one look at a camera, what it offers and what will be wrong with it.
//!
//! Connects once, takes every video and audio track that can be uploaded, watches for a few seconds and takes leave.
//! An absent or unreachable camera is an error; a camera that answers is a [`Report`], with [`Problem`]s.

mod measure;
mod report;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use media::VideoCodec;
use retina::client::{Demuxed, Described, Session, SessionGroup};
use retina::codec::{CodecItem, ParametersRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::options;
use config::{Login, Transport, Upload};
use measure::{LOOK, Measured};
pub use report::{
    AudioReport, ClockReport, ParameterSets, Problem, Report, Severity, StepTimes, TrackReport, VideoReport,
};

/// TEARDOWN, so that a camera with few sessions is free again for the daemon.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(2);

/// What to look at, and how.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// `rtsp://`, without credentials.
    pub url: Url,
    pub login: Option<Login>,
    pub transport: Transport,
    /// How long pictures are watched; sender reports come every 2 to 5 s.
    pub watch: Duration,
    /// For each step: name resolution and connect, DESCRIBE, each SETUP, PLAY.
    pub step_limit: Duration,
    /// A GOP longer than this is a problem: `upload.fragment_max_ms`. Pictures are watched for up to this much longer
    /// until a whole GOP has been seen.
    pub gop_limit: Duration,
}

impl ProbeOptions {
    /// TCP, 6 s of pictures, 10 s for each step.
    pub fn new(url: Url) -> ProbeOptions {
        ProbeOptions {
            url,
            login: None,
            transport: Transport::Tcp,
            watch: Duration::from_secs(6),
            step_limit: Duration::from_secs(10),
            gop_limit: Upload::default().fragment_max,
        }
    }
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the URL starts with {scheme}://, expected rtsp://")]
    Scheme { scheme: String },
    #[error("the URL names no host, expected rtsp://HOST[:PORT]/PATH")]
    NoHost,
    #[error(
        "the URL holds a user name or password; remove them, because URLs end up in logs, and give --username and \
         --password-file"
    )]
    CredentialsInUrl,
    #[error("{host} does not resolve: {source}; check the name, or use the address")]
    Dns { host: String, source: io::Error },
    #[error(
        "no TCP connection to {host}:{port}: {source}; check address and port, the camera's power and the cable"
    )]
    Connect { host: String, port: u16, source: io::Error },
    #[error("{step} was not answered within {} s; is this an RTSP server, and is it overloaded?", limit.as_secs_f32())]
    Timeout { step: &'static str, limit: Duration },
    #[error("{step} needs a login (RTSP {status}); give --username and --password-file")]
    LoginNeeded { step: &'static str, status: u16 },
    #[error(
        "{step}: the camera refused the login (RTSP {status}); check user name, password, and that the account may \
             watch live video"
    )]
    LoginRefused { step: &'static str, status: u16 },
    #[error("{step}: the camera has no path {path:?} (RTSP 404); check the path in its manual")]
    NotFound { step: &'static str, path: String },
    #[error("{step}: the camera refuses UDP (RTSP 461); use --transport tcp")]
    TransportRefused { step: &'static str },
    #[error("the camera describes no track at all; check the path in its manual")]
    NoTracks,
    #[error("{step}: {text}")]
    Protocol { step: &'static str, text: String },
}

/// Looks at one camera. Ends within about `watch` + 2 * `gop_limit` + 6 * `step_limit`, whatever the camera does; later
/// when the box itself stands still meanwhile.
pub async fn run(options: ProbeOptions) -> Result<Report, ProbeError> {
    let (host, port) = target(&options.url)?;
    let begun = Instant::now();
    let socket = connect(&host, port, options.step_limit).await?;
    let connect_ms = ms(begun);
    // A courtesy, not a step: some cameras answer OPTIONS only after a login.
    let greeting = timeout(options.step_limit.min(Duration::from_secs(3)), greet(socket, &options.url)).await;
    let (server, methods) = greeting.ok().flatten().unwrap_or_default();

    let first = match options.transport {
        Transport::Tcp => Transport::Tcp,
        Transport::Udp | Transport::Auto => Transport::Udp,
    };
    let mut attempt = Attempt::new(&options, first);
    attempt.report.server = server;
    attempt.report.methods = methods;
    attempt.report.steps.connect_ms = connect_ms;
    match attempt.run().await {
        Ok(()) => Ok(attempt.finish().await),
        Err(ProbeError::TransportRefused { .. }) if options.transport == Transport::Auto => {
            let earlier = attempt.finish().await;
            let mut attempt = Attempt::new(&options, Transport::Tcp);
            attempt.report.server = earlier.server;
            attempt.report.methods = earlier.methods;
            attempt.report.steps.connect_ms = connect_ms;
            attempt.report.problems.push(Problem {
                severity: Severity::Note,
                code: "udp_refused",
                text: "the camera refuses UDP".into(),
                fix: "TCP is used, which is the default anyway".into(),
            });
            attempt.run().await?;
            Ok(attempt.finish().await)
        }
        Err(error) => {
            attempt.finish().await;
            Err(error)
        }
    }
}

fn target(url: &Url) -> Result<(String, u16), ProbeError> {
    if url.scheme() != "rtsp" {
        return Err(ProbeError::Scheme { scheme: url.scheme().to_owned() });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ProbeError::CredentialsInUrl);
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(ProbeError::NoHost)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), url.port().unwrap_or(554)))
}

async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, ProbeError> {
    let late = |step| move |_| ProbeError::Timeout { step, limit };
    let addresses =
        timeout(limit, tokio::net::lookup_host((host, port))).await.map_err(late("name resolution"))?;
    let addresses: Vec<_> =
        addresses.map_err(|source| ProbeError::Dns { host: host.to_owned(), source })?.collect();
    let connected = timeout(limit, TcpStream::connect(&addresses[..])).await.map_err(late("TCP connect"))?;
    connected.map_err(|source| ProbeError::Connect { host: host.to_owned(), port, source })
}

/// Server name and methods from an OPTIONS request of our own: retina keeps its answer to itself.
async fn greet(mut socket: TcpStream, url: &Url) -> Option<(Option<String>, Vec<String>)> {
    let agent = concat!("kvs-edge/", env!("CARGO_PKG_VERSION"));
    let request = format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: {agent}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") && answer.len() < 8192 {
        match socket.read(&mut piece).await.ok()? {
            0 => break,
            length => answer.extend_from_slice(&piece[..length]),
        }
    }
    Some(read_greeting(&answer))
}

fn read_greeting(answer: &[u8]) -> (Option<String>, Vec<String>) {
    let answer = String::from_utf8_lossy(answer);
    let header = |wanted: &str| {
        let value = answer.lines().skip(1).take_while(|line| !line.is_empty()).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
        })?;
        Some(value.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
            .filter(|v| !v.is_empty())
    };
    let methods = header("Public").unwrap_or_default();
    let methods = methods.split(',').map(str::trim).filter(|method| !method.is_empty());
    (header("Server"), methods.map(str::to_ascii_uppercase).collect())
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// One RTSP session from DESCRIBE to TEARDOWN.
struct Attempt<'a> {
    options: &'a ProbeOptions,
    transport: Transport,
    group: Arc<SessionGroup>,
    report: Report,
}

/// Which tracks of the session are taken.
struct Tracks {
    video: usize,
    codec: VideoCodec,
    audio: Option<usize>,
}

impl<'a> Attempt<'a> {
    fn new(options: &'a ProbeOptions, transport: Transport) -> Attempt<'a> {
        let mut url = options.url.clone();
        url.set_query(None);
        let report = Report {
            url: url.into(),
            server: None,
            methods: Vec::new(),
            transport: None,
            tracks: Vec::new(),
            video: None,
            audio: None,
            clock: None,
            steps: StepTimes::default(),
            problems: Vec::new(),
        };
        Attempt { options, transport, group: Arc::new(SessionGroup::default().named("probe".into())), report }
    }

    async fn run(&mut self) -> Result<(), ProbeError> {
        let begun = Instant::now();
        let session_options = options::session_options(self.options.login.as_ref(), &self.group);
        let described = self.step("DESCRIBE", Session::describe(self.options.url.clone(), session_options));
        let mut session = described.await?;
        self.report.steps.describe_ms = ms(begun);
        let Some(tracks) = self.choose(&session) else { return Ok(()) };
        let in_sdp = session.streams()[tracks.video].parameters().is_some();

        let begun = Instant::now();
        for index in [Some(tracks.video), tracks.audio].into_iter().flatten() {
            let setup = options::setup_options(self.transport);
            self.step("SETUP", session.setup(index, setup)).await?;
        }
        self.report.steps.setup_ms = Some(ms(begun));
        self.report.transport = Some(if self.transport == Transport::Tcp { "tcp" } else { "udp" });

        let begun = Instant::now();
        let playing = self.step("PLAY", session.play(options::play_options())).await?;
        let demuxed = playing.demuxed().map_err(|error| self.error("PLAY", &error))?;
        self.report.steps.play_ms = Some(ms(begun));

        let measured = self.watch(demuxed, &tracks, in_sdp).await;
        self.report.take(measured, self.transport, self.options.gop_limit);
        Ok(())
    }

    /// Takes leave of the camera and hands the report over.
    async fn finish(self) -> Report {
        let _ = timeout(TEARDOWN_LIMIT, self.group.await_teardown()).await;
        let mut report = self.report;
        report.problems.sort_by_key(|problem| problem.severity);
        report
    }

    async fn step<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, retina::Error>>,
    ) -> Result<T, ProbeError> {
        let limit = self.options.step_limit;
        let answer = timeout(limit, work).await.map_err(|_| ProbeError::Timeout { step, limit })?;
        answer.map_err(|error| self.error(step, &error))
    }

    fn error(&self, step: &'static str, error: &retina::Error) -> ProbeError {
        match error.status_code() {
            Some(status @ 401) if self.options.login.is_none() => ProbeError::LoginNeeded { step, status },
            Some(status @ (401 | 403)) => ProbeError::LoginRefused { step, status },
            Some(404) => ProbeError::NotFound { step, path: self.options.url.path().to_owned() },
            Some(461) => ProbeError::TransportRefused { step },
            _ => {
                let text = options::words(error);
                if text.contains("No parseable streams (and 0 unparseable") {
                    return ProbeError::NoTracks;
                }
                ProbeError::Protocol { step, text }
            }
        }
    }

    /// Lists the tracks and chooses the first video and audio that can be uploaded.
    fn choose(&mut self, session: &Session<Described>) -> Option<Tracks> {
        let streams = session.streams();
        let codecs = streams.iter().map(options::video_codec).enumerate();
        let video = codecs.filter_map(|(index, codec)| Some((index, codec?))).next();
        let audio = streams.iter().position(|stream| options::audio_format(stream).is_some());
        if self.report.server.is_none() {
            self.report.server = session.tool().map(|tool| tool.to_string());
        }
        for (index, stream) in streams.iter().enumerate() {
            let taken = video.is_some_and(|(video, _)| video == index) || audio == Some(index);
            self.report.tracks.push(TrackReport {
                media: stream.media().to_owned(),
                encoding: stream.encoding_name().to_owned(),
                clock_rate_hz: stream.clock_rate_hz(),
                payload_type: stream.rtp_payload_type(),
                taken,
            });
            if stream.media() == "audio" && !taken && audio.is_none() {
                self.report.problems.push(Problem {
                    severity: Severity::Note,
                    code: "audio_not_taken",
                    text: format!("audio in {} is not uploaded", stream.encoding_name()),
                    fix: "for sound, set the camera to AAC or G.711".into(),
                });
            }
        }
        self.report.audio = audio
            .and_then(|index| options::audio_format(&streams[index]).zip(Some(index)))
            .map(|(format, index)| AudioReport {
                codec: streams[index].encoding_name().to_owned(),
                sample_rate_hz: format.sample_rate,
                channels: format.channels,
                bitrate_bps: None,
            });
        let Some((video, codec)) = video else {
            let others: Vec<_> = (streams.iter().filter(|stream| stream.media() == "video"))
                .map(|stream| stream.encoding_name().to_owned())
                .collect();
            self.report.problems.push(if others.is_empty() {
                Problem {
                    severity: Severity::Error,
                    code: "no_video",
                    text: "the camera offers no video on this path".into(),
                    fix: "check the path: cameras have one for each stream".into(),
                }
            } else {
                Problem {
                    severity: Severity::Error,
                    code: "unsupported_codec",
                    text: format!("video in {}, which KVS does not take", others.join(", ")),
                    fix: "set the camera to H.264 or H.265".into(),
                }
            });
            return None;
        };
        Some(Tracks { video, codec, audio })
    }

    async fn watch(&self, mut demuxed: Demuxed, tracks: &Tracks, in_sdp: bool) -> Measured {
        let stream = &demuxed.streams()[tracks.video];
        let declared = stream.framerate().map(f64::from);
        let mut measured = Measured::new(tracks.codec, stream.clock_rate_hz(), in_sdp, declared);
        read_format(&mut measured, &demuxed, tracks.video);
        while !measured.is_enough(self.options.watch, self.options.gop_limit) {
            match timeout(LOOK, demuxed.next()).await {
                Err(_) => {}
                Ok(None) => {
                    measured.ended = Some("the camera closed the connection".into());
                    break;
                }
                Ok(Some(Err(error))) => {
                    let text = error.to_string();
                    measured.ended = Some(text.split("\n\n").next().unwrap_or_default().replace('\n', " "));
                    break;
                }
                Ok(Some(Ok(CodecItem::VideoFrame(frame)))) if frame.stream_id() == tracks.video => {
                    if frame.has_new_parameters() || measured.format.is_none() {
                        read_format(&mut measured, &demuxed, tracks.video);
                    }
                    measured.picture(frame.timestamp().elapsed(), u64::from(frame.loss()), frame.data());
                }
                Ok(Some(Ok(CodecItem::AudioFrame(frame)))) => {
                    measured.sound(frame.data().len(), frame.timestamp().elapsed_secs());
                }
                Ok(Some(Ok(CodecItem::Rtcp(packet)))) if packet.stream_id() == tracks.video => {
                    for packet_ref in packet.pkts() {
                        if let Ok(Some(report)) = packet_ref.as_sender_report() {
                            measured.sender_report(report.ntp_timestamp().0, packet.ctx().received());
                        }
                    }
                }
                Ok(Some(Ok(_))) => {}
            }
        }
        measured
    }
}

fn read_format(measured: &mut Measured, demuxed: &Demuxed, video: usize) {
    if let Some(ParametersRef::Video(parameters)) = demuxed.streams()[video].parameters() {
        measured.parameters(parameters.extra_data());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_is_read_from_any_server() {
        let answer = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nserver: Cam/1.0\r\nPublic: options, DESCRIBE,GET_PARAMETER\r\n\r\nServer: no\r\n";
        let (server, methods) = read_greeting(answer);
        assert_eq!(server.as_deref(), Some("Cam/1.0"));
        assert_eq!(methods, ["OPTIONS", "DESCRIBE", "GET_PARAMETER"]);
        assert_eq!(read_greeting(b"\xff\xfe no RTSP"), (None, Vec::new()));
        assert_eq!(read_greeting(b""), (None, Vec::new()));
    }

    #[test]
    fn url_is_checked_before_anything_is_sent() {
        let target = |url: &str| target(&url.parse().expect("a URL"));
        assert_eq!(target("rtsp://[::1]/x").expect("good"), ("::1".to_owned(), 554));
        assert_eq!(target("rtsp://cam:8554/x").expect("good"), ("cam".to_owned(), 8554));
        assert!(matches!(target("http://cam/x"), Err(ProbeError::Scheme { .. })));
        assert!(matches!(target("rtsp://u:p@cam/x"), Err(ProbeError::CredentialsInUrl)));
        assert!(matches!(target("rtsp:///x"), Err(ProbeError::NoHost)));
    }
}
