//! retina, wrapped for the tests.

use std::num::NonZeroU32;

use futures_util::StreamExt;
use retina::client::{
    Credentials, Demuxed, InitialTimestampPolicy, PlayOptions, Session, SessionIdPolicy, SessionOptions,
    SetupOptions, Transport,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoFrame};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Via {
    Tcp,
    Udp,
}

pub(crate) struct Options {
    pub(crate) via: Via,
    pub(crate) credentials: Option<(&'static str, &'static str)>,
    /// Take what servers do that retina refuses by default.
    pub(crate) lenient: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { via: Via::Tcp, credentials: None, lenient: false }
    }
}

/// DESCRIBE, SETUP of all tracks, PLAY.
pub(crate) async fn play(url: &str, options: &Options) -> Result<Demuxed, retina::Error> {
    let mut session = describe(url, options).await?;
    for track in 0..session.streams().len() {
        let transport = match options.via {
            Via::Tcp => Transport::Tcp(Default::default()),
            Via::Udp => Transport::Udp(Default::default()),
        };
        session
            .setup(track, SetupOptions::default().transport(transport).frame_format(FrameFormat::MP4))
            .await?;
    }
    let mut play = PlayOptions::default();
    if options.lenient {
        play = play.initial_timestamp(InitialTimestampPolicy::Permissive);
    }
    session.play(play).await?.demuxed()
}

pub(crate) async fn describe(
    url: &str,
    options: &Options,
) -> Result<Session<retina::client::Described>, retina::Error> {
    let credentials = options
        .credentials
        .map(|(user, password)| Credentials { username: user.to_owned(), password: password.to_owned() });
    let mut session = SessionOptions::default().creds(credentials);
    if options.lenient {
        session = session.session_id(SessionIdPolicy::UseFirst);
    }
    Session::describe(url.parse().expect("a URL"), session).await
}

/// A sender report's claim: at this RTP time (on the track's own timeline) it is so many seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) rtp: i64,
    pub(crate) utc_s: f64,
}

pub(crate) struct Received {
    pub(crate) frame: VideoFrame,
    /// Of the last report before the frame.
    pub(crate) report: Option<Report>,
}

impl Received {
    /// Seconds since 1970 as the sender reports have it.
    pub(crate) fn capture_utc_s(&self) -> f64 {
        let report = self.report.expect("a sender report came first");
        report.utc_s + (self.frame.timestamp().timestamp() - report.rtp) as f64 / 90_000.0
    }

    pub(crate) fn nal_units(&self) -> Vec<&[u8]> {
        let mut rest = self.frame.data();
        let mut nals = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (nal, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            nals.push(nal);
            rest = tail;
        }
        nals
    }
}

/// Reads from a session and keeps what is asked about.
pub(crate) struct Reader {
    pub(crate) session: Demuxed,
    pub(crate) report: Option<Report>,
    pub(crate) reports: usize,
    pub(crate) sound: Vec<(i64, Vec<u8>)>,
}

impl Reader {
    pub(crate) fn new(session: Demuxed) -> Reader {
        Reader { session, report: None, reports: 0, sound: Vec::new() }
    }

    /// The next picture; `None` at the end of the stream.
    pub(crate) async fn picture(&mut self) -> Option<Result<Received, retina::Error>> {
        loop {
            match self.session.next().await? {
                Ok(CodecItem::VideoFrame(frame)) => return Some(Ok(Received { frame, report: self.report })),
                Ok(CodecItem::AudioFrame(frame)) => {
                    self.sound.push((frame.timestamp().timestamp(), frame.data().to_vec()));
                }
                Ok(CodecItem::Rtcp(packet)) => self.rtcp(&packet),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn rtcp(&mut self, packet: &retina::rtcp::ReceivedCompoundPacket) {
        let video = self.session.streams()[packet.stream_id()].media() == "video";
        for part in packet.pkts() {
            let Ok(Some(report)) = part.as_sender_report() else { continue };
            self.reports += 1;
            if let (true, Some(rtp)) = (video, packet.rtp_timestamp()) {
                let since_1970 = report.ntp_timestamp().0.wrapping_sub(retina::UNIX_EPOCH.0);
                assert_eq!(rtp.clock_rate(), NonZeroU32::new(90_000).unwrap());
                self.report =
                    Some(Report { rtp: rtp.timestamp(), utc_s: since_1970 as f64 / 4_294_967_296.0 });
            }
        }
    }

    pub(crate) async fn pictures(&mut self, count: usize) -> Vec<Received> {
        let mut pictures = Vec::with_capacity(count);
        while pictures.len() < count {
            pictures.push(self.picture().await.expect("the stream goes on").expect("no error"));
        }
        pictures
    }

    /// How the stream ends: `None` for a plain end, else the error's text.
    pub(crate) async fn end(&mut self) -> Option<String> {
        loop {
            match self.picture().await {
                None => return None,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(error.to_string()),
            }
        }
    }

    pub(crate) fn dimensions(&self) -> Option<(u32, u32)> {
        self.session.streams().iter().find_map(|stream| match stream.parameters() {
            Some(ParametersRef::Video(video)) => Some(video.pixel_dimensions()),
            _ => None,
        })
    }
}
