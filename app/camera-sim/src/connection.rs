//! One RTSP connection: requests, answers, and the media of its session.
//!
//! ```text
//! connected --DESCRIBE--> described --SETUP (once per track)--> ready --PLAY--> playing --TEARDOWN--> connected
//! ```
//! One task owns the socket, so an answer never lands inside a packet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::clip::{Clip, ClipError};
use crate::faults::{Fault, FaultPlan, HandshakeStep};
use crate::player::{Output, Player, Setting, Source};
use crate::rtsp::message::{Incoming, Request, Response, path_and_query};
use crate::rtsp::{sdp, transport};
use crate::server::Shared;

const PUBLIC: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, SET_PARAMETER, TEARDOWN";
const DEFAULT_TIMEOUT_S: u32 = 60;
/// A client that takes no bytes for so long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Packets per write: few system calls on TCP, short bursts on UDP (a receive buffer holds about 100 packets).
const TCP_SLICE: usize = 32;
const UDP_SLICE: usize = 8;

pub(crate) struct Connection {
    shared: Arc<Shared>,
    stream: TcpStream,
    local: SocketAddr,
    peer: SocketAddr,
    target: Option<Target>,
    /// go2rtc gives a new one with each SETUP.
    session_ids: Vec<String>,
    tracks: Vec<Track>,
    playing: Option<Playing>,
    other_clip: JoinSet<Result<Arc<Clip>, ClipError>>,
    /// After a step that hangs, nothing more is answered.
    hanging: bool,
    heard: Instant,
}

/// What the connection is about, as of the last URL with a camera in it.
struct Target {
    camera: usize,
    url_plan: FaultPlan,
    clip: Option<Arc<Clip>>,
}

struct Track {
    number: usize,
    source: Source,
    udp: Option<UdpTrack>,
}

struct UdpTrack {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    client: IpAddr,
    ports: (u16, u16),
}

struct Playing {
    player: Player,
    /// By track, in order of SETUP.
    udp: Vec<(u8, UdpTrack)>,
    plan: watch::Receiver<Arc<FaultPlan>>,
    events: broadcast::Receiver<Fault>,
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.player.recorder().record(|stats| stats.playing -= 1);
    }
}

/// What to do after a request.
enum Reply {
    Answer(Response),
    Silence,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> std::io::Result<Connection> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let heard = shared.clock.now();
        Ok(Connection {
            shared,
            stream,
            local,
            peer,
            target: None,
            session_ids: Vec::new(),
            tracks: Vec::new(),
            playing: None,
            other_clip: JoinSet::new(),
            hanging: false,
            heard,
        })
    }

    /// Serves until the client leaves, falls silent, or a fault closes the connection.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        let mut input = BytesMut::with_capacity(4096);
        let mut output = Output::default();
        loop {
            let due = match &self.playing {
                Some(playing) => self.shared.clock.instant(playing.player.next_due_ns()),
                None => None,
            };
            let due = due.unwrap_or_else(|| self.shared.clock.now() + Duration::from_secs(3600));
            let expires = self.heard + self.patience();
            tokio::select! {
                read = self.stream.read_buf(&mut input) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    self.heard = self.shared.clock.now();
                    while let Some(incoming) = Request::parse(&mut input).map_err(std::io::Error::other)? {
                        // Receiver reports are taken as a sign of life and nothing else.
                        let Incoming::Request(request) = incoming else { continue };
                        if let Reply::Answer(response) = self.handle(&request).await? {
                            write(&mut self.stream, &response.into_bytes()).await?;
                        }
                    }
                }
                () = sleep_until(due.into()), if self.playing.is_some() => {}
                () = sleep_until(expires.into()), if self.playing.is_some() => {
                    tracing::debug!(peer = %self.peer, "session expired");
                    return Ok(());
                }
                Some(event) = fault(&mut self.playing) => {
                    if let Some(playing) = &mut self.playing {
                        playing.player.apply(event, &mut output);
                    }
                }
                Some(loaded) = self.other_clip.join_next() => {
                    match (loaded, &mut self.playing) {
                        (Ok(Ok(clip)), Some(playing)) => playing.player.set_other_clip(clip),
                        (Ok(Err(error)), _) => tracing::warn!(%error, "no clip for the parameter switch"),
                        _ => {}
                    }
                }
            }
            if self.media(&mut output).await? {
                return Ok(());
            }
        }
    }

    /// Sends what is due; true when the connection shall close.
    async fn media(&mut self, output: &mut Output) -> std::io::Result<bool> {
        let Some(playing) = &mut self.playing else { return Ok(false) };
        if playing.plan.has_changed().unwrap_or(false)
            && let Some(target) = &self.target
        {
            let plan = target.url_plan.over(&playing.plan.borrow_and_update());
            playing.player.set_plan(plan);
        }
        playing.player.poll(self.shared.clock.now_ns(), output);
        if std::mem::take(&mut playing.player.wants_other_clip)
            && let Some(target) = &self.target
            && let Some(clip) = &target.clip
        {
            let (shared, spec) = (self.shared.clone(), clip.spec().switched());
            self.other_clip.spawn(async move { shared.clips.get(&spec).await });
        }
        if playing.udp.is_empty() {
            if !output.bytes.is_empty() {
                write(&mut self.stream, &output.bytes).await?;
            }
        } else {
            for (channel, datagram) in output.datagrams() {
                if let Some((first, track)) = playing.udp.iter().find(|(first, _)| channel & !1 == *first) {
                    let (socket, port) = if channel == *first {
                        (&track.rtp, track.ports.0)
                    } else {
                        (&track.rtcp, track.ports.1)
                    };
                    // A client whose port is closed is no reason to stop; the RTSP connection tells.
                    let _ = socket.send_to(datagram, (track.client, port)).await;
                }
            }
        }
        output.clear();
        Ok(playing.player.hang_up)
    }

    /// How long a client may be silent: the announced timeout and a quarter more.
    fn patience(&self) -> Duration {
        let plan = self.target.as_ref().map(|target| self.plan(target));
        let timeout_s = plan.and_then(|plan| plan.session_timeout_s).unwrap_or(DEFAULT_TIMEOUT_S);
        Duration::from_secs(u64::from(timeout_s)) * 5 / 4
    }

    fn plan(&self, target: &Target) -> FaultPlan {
        target.url_plan.over(&self.shared.cameras[target.camera].faults.watch().borrow())
    }

    async fn handle(&mut self, request: &Request) -> std::io::Result<Reply> {
        tracing::debug!(peer = %self.peer, method = request.method, uri = request.uri, "request");
        let answer = |status| Ok(Reply::Answer(Response::new(status, request)));
        let keepalive = matches!(&*request.method, "OPTIONS" | "GET_PARAMETER" | "SET_PARAMETER");
        if let Some(playing) = &self.playing {
            if keepalive {
                playing.player.recorder().record(|stats| stats.keepalives += 1);
            }
            if !playing.player.answers(keepalive) {
                return Ok(Reply::Silence);
            }
        }
        let (path, query) = path_and_query(&request.uri);
        let (path, track) = match path.rsplit_once("trackID=") {
            Some((path, track)) => (path.trim_end_matches('/'), track.parse::<usize>().ok()),
            None => (path, None),
        };
        let camera = self.shared.cameras.iter().position(|camera| camera.path == path);
        if let Some(camera) = camera {
            let known = self.target.as_ref().is_some_and(|target| target.camera == camera);
            if !known || !query.is_empty() {
                match FaultPlan::from_query(query) {
                    Ok(url_plan) => self.target = Some(Target { camera, url_plan, clip: None }),
                    Err(error) => {
                        let response = Response::new(400, request).header("X-Error", &error);
                        return Ok(Reply::Answer(response));
                    }
                }
            }
        }
        let plan = self.target.as_ref().map(|target| self.plan(target)).unwrap_or_default();
        let hang = match plan.hang {
            Some(HandshakeStep::Connect) => true,
            Some(HandshakeStep::Describe) => request.method == "DESCRIBE",
            Some(HandshakeStep::Setup) => request.method == "SETUP",
            Some(HandshakeStep::Play) => request.method == "PLAY",
            None => false,
        };
        self.hanging |= hang;
        if self.hanging {
            return Ok(Reply::Silence);
        }
        if request.method == "OPTIONS" {
            let response = Response::new(200, request);
            return Ok(Reply::Answer(if plan.go2rtc { response } else { response.header("Public", PUBLIC) }));
        }
        if let Some(auth) = &self.shared.auth
            && !auth.accepts(request.header("Authorization"), &request.method)
        {
            if let Some(target) = &self.target {
                self.shared.cameras[target.camera].recorder.record(|stats| stats.unauthorized += 1);
            }
            return Ok(Reply::Answer(
                Response::new(401, request).header("WWW-Authenticate", auth.challenge()),
            ));
        }
        if camera.is_none() && request.uri != "*" || plan.not_found {
            return answer(404);
        }
        if let Some(session) = request.header("Session") {
            let id = session.split(';').next().unwrap_or_default().trim();
            if !self.session_ids.iter().any(|known| known == id) {
                return answer(454);
            }
        }
        match &*request.method {
            "DESCRIBE" => self.describe(request, &plan).await,
            "SETUP" => self.set_up(request, track.unwrap_or(0), &plan).await,
            "PLAY" => self.play(request, &plan).await,
            "GET_PARAMETER" | "SET_PARAMETER" => {
                Ok(Reply::Answer(self.with_session(Response::new(200, request))))
            }
            "TEARDOWN" => {
                if let Some(target) = &self.target {
                    self.shared.cameras[target.camera].recorder.record(|stats| stats.teardowns += 1);
                }
                self.playing = None;
                self.tracks.clear();
                self.session_ids.clear();
                answer(200)
            }
            _ => Ok(Reply::Answer(Response::new(405, request).header("Allow", PUBLIC))),
        }
    }

    fn with_session(&self, response: Response) -> Response {
        match self.session_ids.last() {
            Some(id) => response.header("Session", id),
            None => response,
        }
    }

    /// The clip for this client, which may have to be encoded first.
    async fn clip(&mut self, plan: &FaultPlan) -> Result<Arc<Clip>, ClipError> {
        let target = self.target.as_mut().expect("a camera was found");
        let camera = &self.shared.cameras[target.camera];
        let spec = camera.clip.spec().coded(plan.b_frames, plan.gop);
        let clip = match &target.clip {
            Some(clip) if *clip.spec() == spec => clip.clone(),
            _ if *camera.clip.spec() == spec => camera.clip.clone(),
            _ => self.shared.clips.get(&spec).await?,
        };
        target.clip = Some(clip.clone());
        Ok(clip)
    }

    async fn describe(&mut self, request: &Request, plan: &FaultPlan) -> std::io::Result<Reply> {
        let clip = match self.clip(plan).await {
            Ok(clip) => clip,
            Err(error) => return Ok(no_clip(request, &error)),
        };
        let shape =
            sdp::Shape { no_sprop: plan.no_sprop, audio_only: plan.audio_only, foreign: plan.foreign };
        let base = request.uri.split('?').next().unwrap_or_default().trim_end_matches('/');
        let response = Response::new(200, request).header("Content-Base", format!("{base}/"));
        Ok(Reply::Answer(response.body("application/sdp", sdp::describe(&clip, shape))))
    }

    async fn set_up(&mut self, request: &Request, number: usize, plan: &FaultPlan) -> std::io::Result<Reply> {
        let clip = match self.clip(plan).await {
            Ok(clip) => clip,
            Err(error) => return Ok(no_clip(request, &error)),
        };
        let rate = match (number, clip.audio()) {
            (0, _) if !plan.audio_only => 90_000,
            (1, Some(audio)) => audio.sample_rate,
            _ => return Ok(Reply::Answer(Response::new(404, request))),
        };
        if self.playing.is_some() || self.tracks.iter().any(|track| track.number == number) {
            return Ok(Reply::Answer(Response::new(455, request)));
        }
        let default_channel = u8::try_from(self.tracks.len() * 2).unwrap_or(0);
        let (header, source, udp);
        match request.header("Transport").and_then(transport::parse) {
            Some(transport::Wanted::Interleaved(channel)) if self.tracks.iter().all(|t| t.udp.is_none()) => {
                source = Source::new(channel.unwrap_or(default_channel), rate);
                let (first, second) = (source.channel, source.channel + 1);
                header = format!("RTP/AVP/TCP;unicast;interleaved={first}-{second};ssrc={:08X}", source.ssrc);
                udp = None;
            }
            Some(transport::Wanted::Udp(rtp_port, rtcp_port))
                if !plan.refuse_udp && !plan.go2rtc && self.tracks.iter().all(|t| t.udp.is_some()) =>
            {
                source = Source::new(default_channel, rate);
                let (rtp, rtcp) = port_pair(self.local.ip()).await?;
                let (first, second) = (rtp.local_addr()?.port(), rtcp.local_addr()?.port());
                header = format!(
                    "RTP/AVP;unicast;client_port={rtp_port}-{rtcp_port};server_port={first}-{second};ssrc={:08X}",
                    source.ssrc
                );
                udp = Some(UdpTrack { rtp, rtcp, client: self.peer.ip(), ports: (rtp_port, rtcp_port) });
            }
            _ => return Ok(Reply::Answer(Response::new(461, request))),
        }
        if self.session_ids.is_empty() || plan.go2rtc {
            self.session_ids.push(format!("{:016x}", rand::random::<u64>()));
        }
        self.tracks.push(Track { number, source, udp });
        let timeout_s = plan.session_timeout_s.unwrap_or(DEFAULT_TIMEOUT_S);
        let session = format!("{};timeout={timeout_s}", self.session_ids.last().expect("just filled"));
        let response = Response::new(200, request).header("Transport", header).header("Session", session);
        Ok(Reply::Answer(response))
    }

    async fn play(&mut self, request: &Request, plan: &FaultPlan) -> std::io::Result<Reply> {
        if self.playing.is_some() {
            // A second PLAY is a keepalive for some clients.
            return Ok(Reply::Answer(self.with_session(Response::new(200, request))));
        }
        if self.tracks.is_empty() {
            return Ok(Reply::Answer(Response::new(455, request)));
        }
        let clip = match self.clip(plan).await {
            Ok(clip) => clip,
            Err(error) => return Ok(no_clip(request, &error)),
        };
        let camera_number = self.target.as_ref().map_or(0, |target| target.camera);
        let camera = &self.shared.cameras[camera_number];
        // Both subscriptions begin before the session counts as playing, so that nothing injected after that is lost.
        let (mut changes, events) = (camera.faults.watch(), camera.faults.subscribe());
        changes.mark_unchanged();
        let mut session = 0;
        camera.recorder.record(|stats| {
            stats.sessions += 1;
            stats.playing += 1;
            session = stats.sessions;
        });
        let (mut video, mut audio, mut udp) = (None, None, Vec::new());
        for track in self.tracks.drain(..) {
            udp.extend(track.udp.map(|udp| (track.source.channel, udp)));
            *(if track.number == 0 { &mut video } else { &mut audio }) = Some(track.source);
        }
        let setting = Setting {
            clip,
            plan: plan.clone(),
            session,
            camera: camera_number,
            recorder: camera.recorder.clone(),
            slice: if udp.is_empty() { TCP_SLICE } else { UDP_SLICE },
        };
        let player = Player::new(setting, video, audio, self.shared.clock.now_ns());

        let mut response = self.with_session(Response::new(200, request)).header("Range", "npt=now-");
        if !plan.no_rtp_info && !plan.go2rtc {
            let base = request.uri.split('?').next().unwrap_or_default().trim_end_matches('/');
            let (video, audio) = player.sources();
            let (video_time, audio_time) = player.first_rtp_times();
            let info: Vec<String> = [(0, video, video_time), (1, audio, audio_time)]
                .into_iter()
                .filter_map(|(number, source, time)| Some((number, source?, time?)))
                .map(|(number, source, time)| {
                    format!("url={base}/trackID={number};seq={};rtptime={time}", source.sequence)
                })
                .collect();
            response = response.header("RTP-Info", info.join(","));
        }
        self.playing = Some(Playing { player, udp, plan: changes, events });
        Ok(Reply::Answer(response))
    }
}

fn no_clip(request: &Request, error: &ClipError) -> Reply {
    tracing::warn!(%error, "no clip for a client");
    let text = error.to_string().replace(['\r', '\n'], " ");
    Reply::Answer(Response::new(500, request).header("X-Error", text))
}

/// The next fault that was injected; never without a session that plays.
async fn fault(playing: &mut Option<Playing>) -> Option<Fault> {
    let Some(playing) = playing else { return std::future::pending().await };
    tokio::select! {
        changed = playing.plan.changed() => match changed {
            // Left marked as changed for the next look.
            Ok(()) => {
                playing.plan.mark_changed();
                None
            }
            Err(_) => std::future::pending().await,
        },
        event = playing.events.recv() => event.ok(),
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    timeout(WRITE_LIMIT, stream.write_all(bytes)).await?
}

/// An even port for RTP and the next one for RTCP (RFC 3550 11).
async fn port_pair(ip: IpAddr) -> std::io::Result<(UdpSocket, UdpSocket)> {
    for _ in 0..64 {
        let rtp = UdpSocket::bind((ip, 0)).await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind((ip, port + 1)).await
        {
            return Ok((rtp, rtcp));
        }
    }
    Err(std::io::Error::other("no pair of free UDP ports in 64 tries"))
}
