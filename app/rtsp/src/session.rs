//! How the box speaks RTSP through retina, the same for the daemon and for `probe`: what works there works here.

use std::sync::Arc;

use bytes::Bytes;
use media::{AudioFormat, VideoCodec};
use retina::client::{
    Credentials, InitialTimestampPolicy, PlayOptions, SessionGroup, SessionIdPolicy, SessionOptions,
    SetupOptions, Stream, TcpTransportOptions, Transport, UdpTransportOptions,
};
use retina::codec::{FrameFormat, ParametersRef};

use config::Login;

/// UseFirst, because go2rtc answers each SETUP with another session id.
pub(crate) fn session_options(login: Option<&Login>, group: &Arc<SessionGroup>) -> SessionOptions {
    let creds = login.map(|login| Credentials {
        username: login.username.clone(),
        password: login.password.expose().to_owned(),
    });
    SessionOptions::default()
        .creds(creds)
        .user_agent(concat!("kvs-edge/", env!("CARGO_PKG_VERSION")).to_owned())
        .session_group(group.clone())
        .session_id(SessionIdPolicy::UseFirst)
}

/// Length-prefixed access units without inserted parameter sets: the camera's bytes as they are.
pub(crate) fn setup_options(transport: config::Transport) -> SetupOptions {
    SetupOptions::default().frame_format(FrameFormat::MP4).transport(match transport {
        config::Transport::Tcp => Transport::Tcp(TcpTransportOptions::default()),
        config::Transport::Udp | config::Transport::Auto => Transport::Udp(UdpTransportOptions::default()),
    })
}

/// Permissive, because go2rtc and some cameras send no RTP-Info.
pub(crate) fn play_options() -> PlayOptions {
    PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive)
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

/// The first paragraph of a retina error on one line; it appends some for its authors.
pub(crate) fn words(error: &retina::Error) -> String {
    let text = error.to_string();
    text.split("\n\n").next().unwrap_or_default().replace('\n', " ")
}
