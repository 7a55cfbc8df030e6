//! `[[camera]]`

use std::time::Duration;

use kvs::identity::MAX_ID_BYTES;
use url::Url;

use super::values::{ID, STREAM, name_like, redacted, seconds, secret};
use super::{detect, kvs_source, upload, verify};
use crate::document::{At, Report, Section};
use crate::{
    Audio, Camera, KvsMode, Login, Source, Spool, Transport, Upload, UploadMode, Verify, VerifyMode,
};

/// What a camera has where it says nothing else.
pub(super) struct Defaults<'a> {
    pub(super) upload: &'a Upload,
    pub(super) spool: Option<&'a Spool>,
    pub(super) verify: &'a Verify,
    /// Absent: nothing is detected.
    pub(super) detect: Option<&'a detect::Table>,
}

pub(super) fn cameras(report: &mut Report, root: &mut Section, defaults: &Defaults) -> Vec<Camera> {
    let sections = root.sections(report, "camera");
    if sections.is_empty() && !root.has("camera") {
        root.missing(report, "camera", "at least one camera", "add [[camera]] with id and url");
    }
    let mut taken = Taken::default();
    (sections.into_iter()).filter_map(|section| camera(report, section, &mut taken, defaults)).collect()
}

/// Names that earlier cameras have, each with the path of its camera.
#[derive(Default)]
struct Taken {
    ids: Vec<(String, String)>,
    streams: Vec<(String, String)>,
}

impl Taken {
    fn id(&mut self, report: &mut Report, section: &Section, id: &str) {
        if let Some((_, first)) = self.ids.iter().find(|(taken, _)| taken == id) {
            let (at, expected) = (section.at_key("id"), format!("another id than {first} has"));
            let fix = "give each camera its own id";
            report.mistake(
                at.unwrap_or(section.at),
                &section.path("id"),
                format!("{id:?} again"),
                expected,
                fix,
            );
        }
        self.ids.push((id.to_owned(), section.name().to_owned()));
    }

    /// A camera without a stream of its own takes its id, which is then said once, for the id.
    fn stream(&mut self, report: &mut Report, section: &Section, stream: &str) {
        let twice = self.streams.iter().find(|(taken, _)| taken == stream);
        let id_twice = self.ids.iter().filter(|(id, _)| id == stream).count() > 1;
        if let Some((_, first)) = twice
            && (section.has("stream") || !id_twice)
        {
            let (at, expected) = (section.at_key("stream"), format!("another stream than {first} has"));
            let fix = "give each camera its own KVS stream: a stream takes one PutMedia at a time";
            let found = format!("{stream:?} again");
            report.mistake(at.unwrap_or(section.at), &section.path("stream"), found, expected, fix);
        }
        self.streams.push((stream.to_owned(), section.name().to_owned()));
    }
}

fn camera(
    report: &mut Report,
    mut section: Section,
    taken: &mut Taken,
    defaults: &Defaults,
) -> Option<Camera> {
    let id = section.string(report, "id");
    if id.is_none() && !section.has("id") {
        section.missing(report, "id", "a name for the camera", "write id = \"front-door\"");
    }
    let id = id.and_then(|id| name_like(report, &section, "id", id, MAX_ID_BYTES, ID));
    if let Some(id) = &id {
        taken.id(report, &section, id);
    }
    let sources = [
        ("camera", (Source::Camera, None)),
        ("rtsp", (Source::Camera, None)),
        ("go2rtc", (Source::Go2rtc, None)),
        ("getmedia", (Source::Camera, Some(KvsMode::GetMedia))),
        ("hls", (Source::Camera, Some(KvsMode::Hls))),
        ("fragment_list", (Source::Camera, Some(KvsMode::FragmentList))),
    ];
    let (source, mode) = section.choice(report, "source", &sources).unwrap_or((Source::Camera, None));
    let url = section.string(report, "url");
    if let Some(mode) = mode {
        of_kvs_alone(report, &section, mode);
    } else if url.is_none() && !section.has("url") {
        section.missing(report, "url", "rtsp://HOST[:PORT]/PATH", "write url = \"rtsp://...\"");
    }
    let url = url.filter(|_| mode.is_none()).and_then(|url| rtsp_url(report, &section, url));
    let username = section.string(report, "username");
    let password = secret(report, &mut section, "password", "password_file", "password_credential");
    if username.is_some() && password.is_none() {
        section.missing(
            report,
            "password_file",
            "a password beside the user name",
            "write password_file = \"...\"",
        );
    }
    if username.is_none() && password.is_some() && !section.has("username") {
        section.missing(report, "username", "a user name beside the password", "write username = \"...\"");
    }
    let transports = [("tcp", Transport::Tcp), ("udp", Transport::Udp), ("auto", Transport::Auto)];
    let transport = section.choice(report, "transport", &transports).unwrap_or(Transport::Tcp);
    if source == Source::Go2rtc && transport != Transport::Tcp {
        let at = section.at_key("transport").unwrap_or(section.at);
        let fix = "write transport = \"tcp\" or remove it: go2rtc refuses UDP";
        report.mistake(at, &section.path("transport"), "UDP from go2rtc", "\"tcp\"", fix);
    }
    let audio = section.choice(report, "audio", &[("auto", Audio::Auto), ("off", Audio::Off)]);
    let stream = section
        .string(report, "stream")
        .and_then(|name| name_like(report, &section, "stream", name, 256, STREAM));
    let enabled = section.boolean(report, "enabled", true);
    let (handshake, stall) = {
        let mut timeouts = section.section(report, "timeouts");
        let handshake = seconds(report, &mut timeouts, "handshake_s", 1..=120, Duration::from_secs(10));
        // Archived footage comes a fragment at a time.
        let stall = Duration::from_secs(if mode.is_some() { 30 } else { 5 });
        let stall = seconds(report, &mut timeouts, "stall_s", 1..=300, stall);
        timeouts.finish(report);
        (handshake, stall)
    };
    let upload = {
        let mut own = section.section(report, "upload");
        let upload = upload(report, &mut own, defaults.upload, defaults.spool);
        own.finish(report);
        upload
    };
    let verify = {
        let mut own = section.section(report, "verify");
        let verify = verify(report, &mut own, defaults.verify);
        own.finish(report);
        verify
    };
    let own = section.section(report, "detect");
    let detect = detect::for_camera(report, own, defaults.detect);
    let own = section.section(report, "kvs");
    let kvs = kvs_source::kvs_source(report, own, mode);
    if upload.mode == UploadMode::Events && enabled && detect.is_none() {
        let fix = "add [detect], install a model (`kvs-edge check` says how), or write mode = \"on-demand\"";
        let (found, expected) = ("\"events\" without detection", "detection, which finds the events");
        report.mistake(section.at, &section.path("upload.mode"), found, expected, fix);
    }
    let stream = stream.or_else(|| id.clone());
    if let (Some(stream), None) = (&stream, mode) {
        taken.stream(report, &section, stream);
    }
    if mode.is_some() && enabled && detect.is_none() {
        let fix = "switch detection on, or the camera off: enabled = false";
        let at = section.at_key("source").unwrap_or(section.at);
        report.warning(at, &section.path("source"), "a stream that nobody looks at", "detection", fix);
    }
    let url = match (mode, &stream) {
        (Some(mode), Some(stream)) => Url::parse(&format!("kvs://{}/{stream}", mode.name())).ok(),
        _ => url,
    };
    // What is there already is neither uploaded nor proven.
    let verify = if mode.is_some() { Verify { mode: VerifyMode::Off, ..verify } } else { verify };
    section.finish(report);
    let login = match (username, password) {
        (Some(username), Some(Ok(password))) => Some(Login { username: username.value, password }),
        _ => None,
    };
    Some(Camera {
        id: id?,
        stream: stream?,
        url: url?,
        kvs: if mode.is_some() { Some(kvs?) } else { None },
        login,
        transport,
        source,
        audio: audio.unwrap_or(Audio::Auto),
        enabled,
        handshake,
        stall,
        upload,
        verify,
        detect,
    })
}

/// What only a camera of RTSP, or one that records, has.
fn of_kvs_alone(report: &mut Report, section: &Section, mode: KvsMode) {
    let keys = ["url", "username", "password_file", "password_credential", "transport", "audio"];
    for key in keys.into_iter().chain(["upload", "verify"]) {
        if let Some(at) = section.at_key(key) {
            let found = format!("{key} beside source = \"{}\"", mode.name());
            let fix =
                "remove it: such a camera reads its `stream`, and is neither asked by RTSP nor uploaded";
            report.mistake(at, &section.path(key), found, "a camera that is a KVS stream", fix);
        }
    }
}

fn rtsp_url(report: &mut Report, section: &Section, url: At<String>) -> Option<Url> {
    const EXPECTED: &str = "rtsp://HOST[:PORT]/PATH";
    let path = section.path("url");
    let parsed = match Url::parse(&url.value) {
        Ok(parsed) => parsed,
        Err(error) => {
            let found = format!("{} ({error})", redacted(&url.value));
            report.mistake(
                url.at,
                &path,
                found,
                EXPECTED,
                "copy it from the camera's manual, without user and password",
            );
            return None;
        }
    };
    let fix = if parsed.scheme() == "rtsps" {
        "RTSP over TLS is not supported: use rtsp:// in a network you trust"
    } else if parsed.scheme() != "rtsp" {
        "a camera's live feed has an rtsp:// URL; look for RTSP in its settings"
    } else if parsed.host_str().is_none_or(str::is_empty) {
        "add the camera's name or address"
    } else if !parsed.username().is_empty() || parsed.password().is_some() {
        "move user and password out of the URL, because URLs end up in logs: username = \"...\", password_file = \"...\""
    } else if parsed.port() == Some(0) {
        "give the real port, or none for 554"
    } else {
        let secret = |name: &str| ["pass", "pwd", "passwd", "password", "token"].contains(&name);
        if parsed.query_pairs().any(|(name, _)| secret(&name.to_ascii_lowercase())) {
            let fix = "use username and password_file if the camera can; otherwise keep its logs private";
            report.warning(
                url.at,
                &path,
                "what looks like a password in the URL",
                "none, URLs end up in logs",
                fix,
            );
        }
        return Some(parsed);
    };
    report.mistake(url.at, &path, redacted(&url.value), EXPECTED, fix);
    None
}
