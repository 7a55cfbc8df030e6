//! From the document to the checked [`Config`]: one function per table, in the order of the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kvs::identity::MAX_ID_BYTES;
use sha2::{Digest, Sha256};
use url::Url;

use super::document::{At, Report, Section, brief};
use super::*;

pub(super) fn config(bytes: &[u8], surroundings: &Surroundings) -> Result<Config, ConfigErrors> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let mut report = Report::new(good, surroundings);
            let fix = "save the file as UTF-8, without a byte order mark";
            report.problem(good.len(), "encoding", "bytes that are not UTF-8", "UTF-8 text", fix);
            let (problems, warnings) = report.into_parts();
            return Err(ConfigErrors { problems, warnings });
        }
    };
    let mut report = Report::new(text, surroundings);
    let document = report.parse();
    let config = root(&mut report, Section::root(&document));
    let (problems, warnings) = report.into_parts();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(ConfigErrors { problems, warnings }),
    }
}

/// `None` only together with a problem in the report.
fn root(report: &mut Report, mut root: Section) -> Option<Config> {
    let section = root.section(report, "device");
    let device = device(report, section);
    let section = root.section(report, "aws");
    let aws = aws(report, section);
    let section = root.section(report, "mqtt");
    let mqtt = if section.is_present() { mqtt(report, section, &device.id).map(Some) } else { Some(None) };
    let upload = {
        let mut section = root.section(report, "upload");
        let mut upload = upload(report, &mut section, &Upload::default());
        upload.stop_grace = seconds(report, &mut section, "stop_grace_s", 1..=300, upload.stop_grace);
        section.finish(report);
        upload
    };
    let verify = {
        let mut section = root.section(report, "verify");
        let verify = verify(report, &mut section, &Verify::default());
        section.finish(report);
        verify
    };
    let health = {
        let mut section = root.section(report, "health");
        let interval = seconds(report, &mut section, "interval_s", 1..=3600, Health::default().interval);
        section.finish(report);
        Health { interval }
    };
    let cameras = cameras(report, &mut root, &upload, &verify);
    root.finish(report);
    Some(Config {
        device,
        aws: aws?,
        mqtt: mqtt?,
        upload,
        verify,
        health,
        detect: None,
        cameras,
        warnings: Vec::new(),
    })
}

fn device(report: &mut Report, mut section: Section) -> Device {
    let id =
        section.string(report, "id").and_then(|id| name_like(report, &section, "id", id, MAX_ID_BYTES, ID));
    let name = section.string(report, "name").map(|name| name.value);
    section.finish(report);
    Device { id: id.unwrap_or_else(|| default_device_id(report.surroundings)), name }
}

/// Stable over restarts and updates, and unlike the machine id itself fit to be shown (machine-id(5)).
fn default_device_id(surroundings: &Surroundings) -> String {
    if let Some(machine_id) = surroundings.machine_id.as_deref().filter(|id| !id.is_empty()) {
        let digest = Sha256::digest(format!("kvs-edge device id of {machine_id}"));
        let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        return format!("edge-{hex}");
    }
    let name: String = (surroundings.hostname.as_deref().unwrap_or_default().chars())
        .map(|c| if ID.allows(c) { c } else { '-' })
        .take(MAX_ID_BYTES)
        .collect();
    if name.is_empty() { "kvs-edge".to_owned() } else { name }
}

fn aws(report: &mut Report, mut section: Section) -> Option<Aws> {
    let region = section.string(report, "region");
    if region.is_none() && !section.has("region") {
        section.missing(
            report,
            "region",
            "an AWS region",
            "write region = \"eu-west-1\" or the one you use below [aws]",
        );
    }
    let region = region.and_then(|region| name_like(report, &section, "region", region, 64, ID));
    let endpoint = https_url(report, &mut section, "endpoint");
    let data_endpoint = https_url(report, &mut section, "data_endpoint");
    let ca_file = pem_file(report, &mut section, "ca_file", "CERTIFICATE", false);

    #[derive(Clone, Copy)]
    enum Kind {
        Default,
        Files,
    }
    let kind = section.choice(report, "credentials", &[("default", Kind::Default), ("files", Kind::Files)]);
    let access_key_id =
        secret(report, &mut section, "access_key_id", "access_key_id_file", "access_key_id_credential");
    let secret_access_key = secret(
        report,
        &mut section,
        "secret_access_key",
        "secret_access_key_file",
        "secret_access_key_credential",
    );
    let session_token =
        secret(report, &mut section, "session_token", "session_token_file", "session_token_credential");
    let given = access_key_id.is_some() || secret_access_key.is_some() || session_token.is_some();
    let credentials = match kind {
        Some(Kind::Default) if given => {
            let fix = "remove the files, or write credentials = \"files\"";
            report.problem(
                section.at,
                &section.path("credentials"),
                "\"default\" beside key files",
                "one of both",
                fix,
            );
            None
        }
        Some(Kind::Default) => Some(Credentials::Default),
        None if !given => Some(Credentials::Default),
        _ => {
            for (missing, key) in [
                (access_key_id.is_none(), "access_key_id_file"),
                (secret_access_key.is_none(), "secret_access_key_file"),
            ] {
                if missing {
                    section.missing(
                        report,
                        key,
                        "a file with that part of the key",
                        "give both files, or neither",
                    );
                }
            }
            match (access_key_id, secret_access_key, session_token) {
                (Some(Ok(access_key_id)), Some(Ok(secret_access_key)), None) => {
                    Some(Credentials::Files { access_key_id, secret_access_key, session_token: None })
                }
                (Some(Ok(access_key_id)), Some(Ok(secret_access_key)), Some(Ok(token))) => {
                    Some(Credentials::Files { access_key_id, secret_access_key, session_token: Some(token) })
                }
                _ => None,
            }
        }
    };
    section.finish(report);
    Some(Aws { region: region?, endpoint, data_endpoint, ca_file, credentials: credentials? })
}

fn mqtt(report: &mut Report, mut section: Section, device: &str) -> Option<Mqtt> {
    let host = section.string(report, "host");
    if host.is_none() && !section.has("host") {
        section.missing(
            report,
            "host",
            "name or address of the broker",
            "write host = \"...\", or remove [mqtt] for none",
        );
    }
    let host = host.and_then(|host| {
        let good =
            !host.value.is_empty() && !host.value.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
        let bare =
            host.value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host.value);
        let colons = host.value.parse::<std::net::SocketAddr>().is_ok()
            || (bare.parse::<std::net::Ipv6Addr>().is_err() && bare.contains(':'));
        if good && !colons {
            return Some(bare.to_owned());
        }
        let fix =
            "write host = \"broker.example\" and, where it differs, port = 8883; TLS is the table [mqtt.tls]";
        report.problem(
            host.at,
            &section.path("host"),
            redacted(&host.value),
            "a host name or address alone",
            fix,
        );
        None
    });
    let tls_section = section.section(report, "tls");
    let tls = tls_section.is_present();
    let port = section.integer(report, "port", 1..=65535, if tls { 8883 } else { 1883 });
    let prefix = section
        .string(report, "prefix")
        .and_then(|prefix| name_like(report, &section, "prefix", prefix, 64, ID));
    let username = section.string(report, "username");
    let password = secret(report, &mut section, "password", "password_file", "password_credential");
    if password.is_some() && username.is_none() {
        section.missing(report, "username", "a user name beside the password", "write username = \"...\"");
    }
    let client_id = section.string(report, "client_id").and_then(|id| {
        if !id.value.is_empty() && id.value.len() <= 128 && !id.value.chars().any(char::is_control) {
            return Some(id.value);
        }
        let fix = "shorten it, or remove it for kvs-edge-DEVICE";
        report.problem(
            id.at,
            &section.path("client_id"),
            format!("{:?}", brief(&id.value)),
            "1 to 128 bytes",
            fix,
        );
        None
    });
    let protocol = section.choice(
        report,
        "protocol",
        &[("auto", MqttProtocol::Auto), ("5", MqttProtocol::V5), ("3.1.1", MqttProtocol::V311)],
    );
    let keep_alive = seconds(report, &mut section, "keep_alive_s", 5..=3600, Duration::from_secs(30));
    let tls = tls.then(|| mqtt_tls(report, tls_section));
    if tls.is_some() && host.as_ref().is_some_and(|host| host.contains(':')) {
        let at = section.at_key("host").unwrap_or(section.at);
        let fix = "give the broker a name, in DNS or in /etc/hosts";
        report.problem(at, &section.path("host"), "an IPv6 address with [mqtt.tls]", "a name", fix);
    }
    if let (Some(host), Some(_), None) = (&host, &password, &tls)
        && !is_local(host)
    {
        let fix = "add [mqtt.tls], or accept that everybody on the way can read it";
        report.warning(section.at, &section.path("tls"), "a password without TLS", "[mqtt.tls]", fix);
    }
    section.finish(report);
    Some(Mqtt {
        host: host?,
        port: u16::try_from(port).ok()?,
        prefix: prefix.unwrap_or_else(|| "kvs-edge".to_owned()),
        username: username.map(|username| username.value),
        password: match password {
            Some(password) => Some(password.ok()?),
            None => None,
        },
        client_id: client_id.unwrap_or_else(|| format!("kvs-edge-{device}")),
        tls,
        protocol: protocol.unwrap_or(MqttProtocol::Auto),
        keep_alive,
    })
}

fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn mqtt_tls(report: &mut Report, mut section: Section) -> MqttTls {
    let ca_file = pem_file(report, &mut section, "ca_file", "CERTIFICATE", false);
    let cert_file = pem_file(report, &mut section, "cert_file", "CERTIFICATE", false);
    let key_file = pem_file(report, &mut section, "key_file", "PRIVATE KEY", true);
    for (one, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if section.has(one) && !section.has(other) {
            section.missing(report, other, &format!("a file beside {one}"), "give both, or neither");
        }
    }
    section.finish(report);
    let client =
        cert_file.zip(key_file).map(|(cert_file, key_file)| ClientCertificate { cert_file, key_file });
    MqttTls { ca_file, client }
}

/// The keys of `[upload]` that a camera may override.
fn upload(report: &mut Report, section: &mut Section, base: &Upload) -> Upload {
    let fragment_ms = section.integer(report, "fragment_ms", 1000..=9000, ms(base.fragment));
    let fragment_max_ms = section.integer(report, "fragment_max_ms", 1000..=9999, ms(base.fragment_max));
    if fragment_max_ms < fragment_ms {
        let at = section.at_key("fragment_max_ms").or_else(|| section.at_key("fragment_ms"));
        report.problem(
            at.unwrap_or(section.at),
            &section.path("fragment_max_ms"),
            format!("{fragment_max_ms}, below fragment_ms = {fragment_ms}"),
            "at least fragment_ms",
            format!("write fragment_max_ms = {}", (fragment_ms * 2).min(9999).max(fragment_ms)),
        );
    }
    Upload {
        fragment: Duration::from_millis(fragment_ms),
        fragment_max: Duration::from_millis(fragment_max_ms),
        window_bytes: section.integer(report, "window_bytes", 1 << 20..=64 << 30, base.window_bytes),
        rotate: seconds(report, section, "rotate_s", 60..=2640, base.rotate),
        ack_timeout: seconds(report, section, "ack_timeout_s", 5..=600, base.ack_timeout),
        write_timeout: seconds(report, section, "write_timeout_s", 5..=600, base.write_timeout),
        stop_grace: base.stop_grace,
    }
}

fn verify(report: &mut Report, section: &mut Section, base: &Verify) -> Verify {
    let modes =
        [("continuous", VerifyMode::Continuous), ("sampled", VerifyMode::Sampled), ("off", VerifyMode::Off)];
    Verify {
        mode: section.choice(report, "mode", &modes).unwrap_or(base.mode),
        sample_every: seconds(report, section, "sample_every_s", 1..=86_400, base.sample_every),
        list_every: seconds(report, section, "list_every_s", 1..=86_400, base.list_every),
        late_after: seconds(report, section, "late_after_s", 1..=3600, base.late_after),
    }
}

fn cameras(report: &mut Report, root: &mut Section, upload: &Upload, verify: &Verify) -> Vec<Camera> {
    let sections = root.sections(report, "camera");
    if sections.is_empty() && !root.has("camera") {
        root.missing(report, "camera", "at least one camera", "add [[camera]] with id and url");
    }
    let mut taken = Taken::default();
    (sections.into_iter()).filter_map(|section| camera(report, section, &mut taken, upload, verify)).collect()
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
            report.problem(
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
            report.problem(at.unwrap_or(section.at), &section.path("stream"), found, expected, fix);
        }
        self.streams.push((stream.to_owned(), section.name().to_owned()));
    }
}

fn camera(
    report: &mut Report,
    mut section: Section,
    taken: &mut Taken,
    upload_base: &Upload,
    verify_base: &Verify,
) -> Option<Camera> {
    let id = section.string(report, "id");
    if id.is_none() && !section.has("id") {
        section.missing(report, "id", "a name for the camera", "write id = \"front-door\"");
    }
    let id = id.and_then(|id| name_like(report, &section, "id", id, MAX_ID_BYTES, ID));
    if let Some(id) = &id {
        taken.id(report, &section, id);
    }
    let url = section.string(report, "url");
    if url.is_none() && !section.has("url") {
        section.missing(report, "url", "rtsp://HOST[:PORT]/PATH", "write url = \"rtsp://...\"");
    }
    let url = url.and_then(|url| rtsp_url(report, &section, url));
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
    let sources = [("camera", Source::Camera), ("go2rtc", Source::Go2rtc)];
    let source = section.choice(report, "source", &sources).unwrap_or(Source::Camera);
    if source == Source::Go2rtc && transport != Transport::Tcp {
        let at = section.at_key("transport").unwrap_or(section.at);
        let fix = "write transport = \"tcp\" or remove it: go2rtc refuses UDP";
        report.problem(at, &section.path("transport"), "UDP from go2rtc", "\"tcp\"", fix);
    }
    let audio = section.choice(report, "audio", &[("auto", Audio::Auto), ("off", Audio::Off)]);
    let stream = section
        .string(report, "stream")
        .and_then(|name| name_like(report, &section, "stream", name, 256, STREAM));
    let enabled = section.boolean(report, "enabled", true);
    let (handshake, stall) = {
        let mut timeouts = section.section(report, "timeouts");
        let handshake = seconds(report, &mut timeouts, "handshake_s", 1..=120, Duration::from_secs(10));
        let stall = seconds(report, &mut timeouts, "stall_s", 1..=300, Duration::from_secs(5));
        timeouts.finish(report);
        (handshake, stall)
    };
    let upload = {
        let mut own = section.section(report, "upload");
        let upload = upload(report, &mut own, upload_base);
        own.finish(report);
        upload
    };
    let verify = {
        let mut own = section.section(report, "verify");
        let verify = verify(report, &mut own, verify_base);
        own.finish(report);
        verify
    };
    let stream = stream.or_else(|| id.clone());
    if let Some(stream) = &stream {
        taken.stream(report, &section, stream);
    }
    section.finish(report);
    let login = match (username, password) {
        (Some(username), Some(Ok(password))) => Some(Login { username: username.value, password }),
        _ => None,
    };
    Some(Camera {
        id: id?,
        stream: stream?,
        url: url?,
        login,
        transport,
        source,
        audio: audio.unwrap_or(Audio::Auto),
        enabled,
        handshake,
        stall,
        upload,
        verify,
        detect: None,
    })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(
    report: &mut Report,
    section: &mut Section,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    default: Duration,
) -> Duration {
    Duration::from_secs(section.integer(report, key, range, default.as_secs()))
}

/// Which characters a name may have.
#[derive(Clone, Copy)]
struct Alphabet {
    text: &'static str,
    dot: bool,
}

/// Fits MQTT levels, Home Assistant ids and file names.
const ID: Alphabet = Alphabet { text: "A-Z a-z 0-9 _ -", dot: false };
/// KVS CreateStream: `[a-zA-Z0-9_.-]+`, 1 to 256.
const STREAM: Alphabet = Alphabet { text: "A-Z a-z 0-9 _ . -", dot: true };

impl Alphabet {
    fn allows(self, c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_' || c == '-' || (self.dot && c == '.')
    }
}

fn name_like(
    report: &mut Report,
    section: &Section,
    key: &str,
    name: At<String>,
    limit: usize,
    alphabet: Alphabet,
) -> Option<String> {
    let length = name.value.chars().count();
    if (1..=limit).contains(&length) && name.value.chars().all(|c| alphabet.allows(c)) {
        return Some(name.value);
    }
    let fix = if length == 0 {
        "write a name, or remove the key where it has a default".to_owned()
    } else {
        let clean: String =
            name.value.chars().map(|c| if alphabet.allows(c) { c } else { '-' }).take(limit).collect();
        format!("for example {clean:?}")
    };
    let expected = format!("1 to {limit} characters of {}", alphabet.text);
    report.problem(name.at, &section.path(key), format!("{:?}", brief(&name.value)), expected, fix);
    None
}

/// A URL fit for a message: without user, password and query.
fn redacted(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let shown = match url.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://***@{after}")
        }
        None => url.to_owned(),
    };
    format!("{:?}", brief(&shown))
}

fn rtsp_url(report: &mut Report, section: &Section, url: At<String>) -> Option<Url> {
    const EXPECTED: &str = "rtsp://HOST[:PORT]/PATH";
    let path = section.path("url");
    let parsed = match Url::parse(&url.value) {
        Ok(parsed) => parsed,
        Err(error) => {
            let found = format!("{} ({error})", redacted(&url.value));
            report.problem(
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
    report.problem(url.at, &path, redacted(&url.value), EXPECTED, fix);
    None
}

fn https_url(report: &mut Report, section: &mut Section, key: &'static str) -> Option<Url> {
    const EXPECTED: &str = "https://HOST[:PORT]";
    let text = section.string(report, key)?;
    let path = section.path(key);
    let fix = match Url::parse(&text.value) {
        Err(error) => format!("correct it ({error}), or remove it for the public endpoint"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            "use https://, or http:// on loopback".to_owned()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "remove user and password: requests are signed with the keys of [aws]".to_owned()
        }
        Ok(url) if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() => {
            "remove what follows the host: the operations add their own paths".to_owned()
        }
        Ok(url) => {
            if url.scheme() == "http" && !url.host_str().is_some_and(is_local) {
                let fix = "use https:// outside of tests";
                report.warning(text.at, &path, "footage without TLS", "https://", fix);
            }
            return Some(url);
        }
    };
    report.problem(text.at, &path, redacted(&text.value), EXPECTED, fix);
    None
}

/// The secret of `KEY_file` or `KEY_credential`. `None`: neither is there; `Some(Err)`: reported.
fn secret(
    report: &mut Report,
    section: &mut Section,
    name: &str,
    file_key: &'static str,
    credential_key: &'static str,
) -> Option<Result<Secret, ()>> {
    let present = section.has(file_key) || section.has(credential_key);
    let file = section.string(report, file_key);
    let credential = section.string(report, credential_key);
    let (key, at, path) = match (file, credential) {
        (Some(_), Some(credential)) => {
            let fix = format!("remove {file_key} or {credential_key}");
            report.problem(credential.at, &section.path(credential_key), "two sources", "one source", fix);
            return Some(Err(()));
        }
        (Some(file), None) => (file_key, file.at, report.surroundings.folder.join(&file.value)),
        (None, Some(credential)) => match credential_path(report, section, credential_key, &credential) {
            Some(path) => (credential_key, credential.at, path),
            None => return Some(Err(())),
        },
        (None, None) => return present.then_some(Err(())),
    };
    let found = match Secret::read(&path) {
        Ok(secret) => {
            warn_if_readable_by_all(report, &section.path(key), at, &path);
            return Some(Ok(secret));
        }
        Err(error) => format!("{} ({error})", file_name(&path, &report.surroundings.folder)),
    };
    let expected = format!("a readable file with the {} on one line", name.replace('_', " "));
    let fix = if name == "password" {
        "create it for the user of the daemon alone (chmod 600); the key takes a path, never the password itself"
    } else {
        "create it for the user of the daemon alone (chmod 600)"
    };
    report.problem(at, &section.path(key), found, expected, fix);
    Some(Err(()))
}

fn credential_path(report: &mut Report, section: &Section, key: &str, name: &At<String>) -> Option<PathBuf> {
    let key = section.path(key);
    let value = &name.value;
    if value.is_empty() || value.contains(['/', '\0']) || value == "." || value == ".." {
        let fix = "write the name that LoadCredential= gives it, without a path";
        report.problem(name.at, &key, format!("{:?}", brief(value)), "the name of a systemd credential", fix);
        return None;
    }
    if report.surroundings.credentials.is_none() {
        let fix = format!("add LoadCredential={value}:FILE to the unit, or use the _file key");
        report.problem(
            name.at,
            &key,
            "no $CREDENTIALS_DIRECTORY",
            "a start by systemd with credentials",
            fix,
        );
        return None;
    }
    report.surroundings.credentials.as_ref().map(|folder| folder.join(value))
}

/// The path as an operator knows it. A bare name is not repeated: it may be a password in the wrong place.
fn file_name(path: &Path, folder: &Path) -> String {
    match path.parent() {
        Some(parent) if parent == folder => {
            format!("a file in {}", brief(&folder.join("").display().to_string()))
        }
        _ => brief(&path.display().to_string()),
    }
}

#[cfg(unix)]
fn warn_if_readable_by_all(report: &mut Report, key: &str, at: usize, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        let fix = format!("chmod 600 {}", path.display());
        report.warning(at, key, format!("mode {mode:03o}"), "a secret that only its owner can read", fix);
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_all(_: &mut Report, _: &str, _: usize, _: &Path) {}

/// A PEM file that holds at least one block whose label ends in `label`. Its content is checked where it is used.
fn pem_file(
    report: &mut Report,
    section: &mut Section,
    key: &'static str,
    label: &str,
    is_secret: bool,
) -> Option<PathBuf> {
    let file = section.string(report, key)?;
    let path = report.surroundings.folder.join(&file.value);
    let found = match super::document::read_file(&path) {
        Ok(bytes) => {
            let marker = format!("{label}-----");
            let begins = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&marker);
            if String::from_utf8_lossy(&bytes).lines().any(begins) {
                if is_secret {
                    warn_if_readable_by_all(report, &section.path(key), file.at, &path);
                }
                return Some(path);
            }
            format!("{} without such a block", brief(&path.display().to_string()))
        }
        Err(error) => format!("{} ({error})", brief(&path.display().to_string())),
    };
    let expected = format!("a PEM file with -----BEGIN {label}-----");
    report.problem(file.at, &section.path(key), found, expected, "check path, permissions and format");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of the reader stands in the sample file, behind `#` or not, and every key there is one of the reader.
    #[test]
    fn sample_file_and_reader_know_the_same_keys() {
        let surroundings = Surroundings::default();
        let with_tls = EXAMPLE.replace("# [mqtt.tls]", "[mqtt.tls]");
        let mut report = Report::new(&with_tls, &surroundings);
        let document = report.parse();
        root(&mut report, Section::root(&document));
        let mut written = std::collections::BTreeSet::new();
        let mut table = String::new();
        for line in EXAMPLE.lines() {
            let line = line.strip_prefix("# ").unwrap_or(line);
            if let Some(header) = line.strip_prefix('[') {
                table = header.trim_matches(['[', ']']).to_owned();
                written.insert(table.clone());
            } else if let Some((key, _)) = line.split_once(" = ")
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            {
                written.insert(format!("{table}.{key}"));
            }
        }
        // A camera's overrides are explained at the tables for all cameras.
        let overrides = |key: &String| key.starts_with("camera.upload.") || key.starts_with("camera.verify.");
        let asked: Vec<_> = report.asked.iter().filter(|key| !overrides(key)).collect();
        let written: Vec<_> = written.iter().filter(|key| !overrides(key)).collect();
        assert_eq!(asked, written);
    }
}
