//! `kvs-edge probe`: one look at a camera, what it offers and what will be wrong with it.
//!
//! Connects once, takes every video and audio track that can be uploaded, watches for a few seconds and takes leave.
//! An absent or unreachable camera is an error; a camera that answers is a [`Report`], with [`Finding`]s.

mod measure;
mod report;

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use config::{Audio, Login, Transport, Upload};
use health::{Problem, Reason};
use media::VideoFormat;
use retina::client::SessionGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::error::SessionError;
use crate::session::{Clocks, Described, Next, Session, Target, Tracks, audio_format, connect};
use crate::timeline::Kind;
use measure::{LOOK, Measured};
pub use report::{
    AudioReport, ClockReport, Finding, ParameterSets, Report, Severity, StepTimes, TrackReport, VideoReport,
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

/// Looks at one camera. Ends within about `watch` + 2 * `gop_limit` + 6 * `step_limit`, whatever the camera does; later
/// when the box itself stands still meanwhile.
pub async fn run(options: ProbeOptions, clock: Clock) -> Result<Report, SessionError> {
    check_url(&options.url)?;
    let begun = clock.now();
    let socket = connect(&options.url, options.step_limit).await?;
    let connect_ms = ms(clock.since(begun));
    // A courtesy, not a step: some cameras answer OPTIONS only after a login.
    let greeting = timeout(options.step_limit.min(Duration::from_secs(3)), greet(socket, &options.url)).await;
    let (server, methods) = greeting.ok().flatten().unwrap_or_default();
    let new_report = || {
        let mut url = options.url.clone();
        url.set_query(None);
        let steps = StepTimes { connect_ms, ..StepTimes::default() };
        Report {
            url: url.into(),
            server: server.clone(),
            methods: methods.clone(),
            steps,
            ..Report::default()
        }
    };

    let first = match options.transport {
        Transport::Tcp => Transport::Tcp,
        Transport::Udp | Transport::Auto => Transport::Udp,
    };
    let mut report = new_report();
    match look(&options, first, &clock, &mut report).await {
        Err(SessionError::TransportRefused { .. }) if options.transport == Transport::Auto => {
            report = new_report();
            let problem = Problem::new(Reason::UdpRefused, "the camera refuses UDP", clock.wall())
                .fix("TCP is used, which is the default anyway");
            report.findings.push(Finding { severity: Severity::Note, problem });
            look(&options, Transport::Tcp, &clock, &mut report).await?;
        }
        looked => looked?,
    }
    report.findings.sort_by_key(|finding| finding.severity);
    Ok(report)
}

fn check_url(url: &Url) -> Result<(), SessionError> {
    if url.scheme() != "rtsp" {
        return Err(SessionError::Scheme { scheme: url.scheme().to_owned() });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SessionError::CredentialsInUrl);
    }
    match url.host_str() {
        None | Some("") => Err(SessionError::NoHost),
        Some(_) => Ok(()),
    }
}

/// One RTSP session from DESCRIBE to TEARDOWN.
async fn look(
    options: &ProbeOptions,
    transport: Transport,
    clock: &Clock,
    report: &mut Report,
) -> Result<(), SessionError> {
    let group = Arc::new(SessionGroup::default().named("probe".into()));
    let target = Target {
        url: &options.url,
        login: options.login.as_ref(),
        transport,
        step_limit: options.step_limit,
        group: &group,
    };
    let looked = look_into(&target, options, clock, report).await;
    let _ = timeout(TEARDOWN_LIMIT, group.await_teardown()).await;
    looked
}

async fn look_into(
    target: &Target<'_>,
    options: &ProbeOptions,
    clock: &Clock,
    report: &mut Report,
) -> Result<(), SessionError> {
    let begun = clock.now();
    let mut described = Described::ask(target).await?;
    report.steps.describe_ms = ms(clock.since(begun));
    let tracks = match described.choose(Audio::Auto) {
        Err(error @ SessionError::NoTracks) => return Err(error),
        chosen => chosen,
    };
    report.offers(&described, tracks.as_ref().ok(), clock);
    let tracks = match tracks {
        Ok(tracks) => tracks,
        Err(error) => {
            // The camera answers, so there is something to report.
            report.findings.push(Finding { severity: Severity::Error, problem: error.problem(clock.wall()) });
            return Ok(());
        }
    };
    let in_sdp = described.streams()[tracks.video].parameters().is_some();
    let declared = described.streams()[tracks.video].framerate().map(f64::from);

    let begun = clock.now();
    described.set_up(tracks).await?;
    report.steps.setup_ms = Some(ms(clock.since(begun)));
    report.transport = Some(if target.transport == Transport::Tcp { "tcp" } else { "udp" });

    let begun = clock.now();
    let mut session = described.play(tracks, LOOK, &Clocks::new(clock.clone(), clock.now())).await?;
    report.steps.play_ms = Some(ms(clock.since(begun)));

    let mut measured = Measured::new(session.rates_hz(), in_sdp, declared, clock.now());
    watch(&mut session, options, clock, &mut measured).await;
    report.take(measured, target.transport, options.gop_limit, clock.wall());
    Ok(())
}

async fn watch(session: &mut Session, options: &ProbeOptions, clock: &Clock, measured: &mut Measured) {
    read_format(measured, session);
    while !measured.is_enough(options.watch, options.gop_limit) {
        match session.next().await {
            Ok(Next::Tick) => measured.tick(),
            Ok(Next::Picture(picture)) => {
                read_format(measured, session);
                measured.picture(&picture, clock.now());
            }
            Ok(Next::Sound(sound)) => measured.sound(sound.data.len(), sound.rtp),
            Ok(Next::SenderReport(report)) if report.kind == Kind::Video => {
                measured.sender_report(report.rtp, report.ntp, report.arrival);
            }
            Ok(Next::SenderReport(_)) => {}
            Err(error) => {
                measured.ended = Some(error.to_string());
                break;
            }
        }
    }
}

fn read_format(measured: &mut Measured, session: &Session) {
    match session.format() {
        Ok(format) => {
            (measured.format, measured.parameter_problem) = (format.map(|f| VideoFormat::clone(f)), None);
        }
        Err(error) => measured.parameter_problem = Some(error.to_string()),
    }
}

impl Report {
    /// Lists the tracks that the camera offers, and which of them are taken.
    fn offers(&mut self, described: &Described<'_>, tracks: Option<&Tracks>, clock: &Clock) {
        if self.server.is_none() {
            self.server = described.tool();
        }
        let streams = described.streams();
        let sound = streams.iter().position(|stream| audio_format(stream).is_some());
        for (index, stream) in streams.iter().enumerate() {
            let taken = tracks.is_some_and(|tracks| tracks.video == index) || sound == Some(index);
            self.tracks.push(TrackReport {
                media: stream.media().to_owned(),
                encoding: stream.encoding_name().to_owned(),
                clock_rate_hz: stream.clock_rate_hz(),
                payload_type: stream.rtp_payload_type(),
                taken,
            });
            if stream.media() == "audio" && sound.is_none() {
                let found = format!("audio in {} is not uploaded", stream.encoding_name());
                let problem = Problem::new(Reason::AudioNotTaken, found, clock.wall())
                    .fix("for sound, set the camera to AAC or G.711");
                self.findings.push(Finding { severity: Severity::Note, problem });
            }
        }
        self.audio =
            sound.and_then(|index| audio_format(&streams[index]).zip(Some(index))).map(|(format, index)| {
                AudioReport {
                    codec: streams[index].encoding_name().to_owned(),
                    sample_rate_hz: format.sample_rate,
                    channels: format.channels,
                    bitrate_bps: None,
                }
            });
    }
}

/// Server name and methods from an OPTIONS request of our own: retina keeps its answer to itself.
async fn greet(mut socket: TcpStream, url: &Url) -> Option<(Option<String>, Vec<String>)> {
    let agent = crate::USER_AGENT;
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

fn ms(passed: Duration) -> u64 {
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
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
        let target = |url: &str| check_url(&url.parse().expect("a URL"));
        target("rtsp://[::1]/x").expect("good");
        target("rtsp://cam:8554/x").expect("good");
        assert!(matches!(target("http://cam/x"), Err(SessionError::Scheme { .. })));
        assert!(matches!(target("rtsp://u:p@cam/x"), Err(SessionError::CredentialsInUrl)));
        assert!(matches!(target("rtsp:///x"), Err(SessionError::NoHost)));
    }
}
