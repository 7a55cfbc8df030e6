//! From the document to the checked [`Config`]: one function per table, in the order of the file.

mod camera;
mod detect;
mod identity;
mod kvs_source;
mod mqtt;
mod shapes;
mod values;

use std::num::NonZeroU64;
use std::time::Duration;

use kvs::identity::MAX_ID_BYTES;
use sha2::{Digest, Sha256};

use self::values::{ID, https_url, key_file, ms, name_like, own_folder, pem_file, seconds, secret};
use super::document::{Report, Section, brief};
use super::*;

pub(super) fn config(bytes: &[u8], environment: &Environment) -> Result<Config, ConfigErrors> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let mut report = Report::new(good, environment);
            let fix = "save the file as UTF-8, without a byte order mark";
            report.mistake(good.len(), "encoding", "bytes that are not UTF-8", "UTF-8 text", fix);
            let (mistakes, warnings) = report.into_parts();
            return Err(ConfigErrors { mistakes, warnings });
        }
    };
    let mut report = Report::new(text, environment);
    let document = report.parse();
    let config = root(&mut report, Section::root(&document));
    let (mistakes, warnings) = report.into_parts();
    match config {
        Some(config) if mistakes.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(ConfigErrors { mistakes, warnings }),
    }
}

/// `None` only together with a mistake in the report.
fn root(report: &mut Report, mut root: Section) -> Option<Config> {
    let section = root.section(report, "device");
    let device = device(report, section);
    let section = root.section(report, "aws");
    let aws = aws(report, section);
    let section = root.section(report, "proxy");
    let proxy = identity::proxy(report, section);
    let section = root.section(report, "mqtt");
    let mqtt = match section.is_present() {
        true => mqtt::mqtt(report, section, &device.id, (proxy.as_ref(), aws.as_ref())).map(Some),
        false => Some(None),
    };
    let section = root.section(report, "spool");
    let spool = spool(report, section);
    let upload = {
        let mut section = root.section(report, "upload");
        let mut upload = upload(report, &mut section, &Upload::default(), spool.as_ref());
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
    let section = root.section(report, "detect");
    let (detect, detect_base, advice) = detect::for_all(report, section);
    let defaults = camera::Defaults {
        upload: &upload,
        spool: spool.as_ref(),
        verify: &verify,
        detect: detect_base.as_ref(),
    };
    let cameras = camera::cameras(report, &mut root, &defaults);
    let detect = detect.filter(|_| cameras.iter().any(|camera| camera.detect.is_some()));
    root.finish(report);
    Some(Config {
        device,
        aws: Aws { proxy, ..aws? },
        mqtt: mqtt?,
        upload,
        spool,
        verify,
        health,
        detect,
        cameras,
        warnings: Vec::new(),
        advice,
    })
}

fn device(report: &mut Report, mut section: Section) -> Device {
    let id =
        section.string(report, "id").and_then(|id| name_like(report, &section, "id", id, MAX_ID_BYTES, ID));
    let name = section.string(report, "name").map(|name| name.value);
    section.finish(report);
    Device { id: id.unwrap_or_else(|| default_device_id(report.environment)), name }
}

/// Stable over restarts and updates, and unlike the machine id itself fit to be shown (machine-id(5)).
fn default_device_id(environment: &Environment) -> String {
    if let Some(machine_id) = environment.machine_id.as_deref().filter(|id| !id.is_empty()) {
        let digest = Sha256::digest(format!("kvs-edge device id of {machine_id}"));
        let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        return format!("edge-{hex}");
    }
    let name: String = (environment.hostname.as_deref().unwrap_or_default().chars())
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
        Iot,
    }
    let kinds = [("default", Kind::Default), ("files", Kind::Files), ("iot", Kind::Iot)];
    let kind = section.choice(report, "credentials", &kinds);
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
    let own = section.section(report, "iot");
    let iot = if own.is_present() { Some(identity::iot(report, own)) } else { None };
    let given = access_key_id.is_some() || secret_access_key.is_some() || session_token.is_some();
    let credentials = match (kind, iot) {
        (Some(Kind::Iot), None) => {
            let fix = "add [aws.iot] with endpoint, role_alias, thing_name, cert_file and key_file";
            section.missing(report, "iot", "the table [aws.iot]", fix);
            None
        }
        (Some(Kind::Default | Kind::Files), Some(_)) => {
            let fix = "write credentials = \"iot\", or remove [aws.iot]";
            let (found, expected) = ("[aws.iot] beside other credentials", "one of both");
            report.mistake(section.at, &section.path("credentials"), found, expected, fix);
            None
        }
        (Some(Kind::Iot) | None, Some(_)) if given => {
            let fix = "remove the key files, or [aws.iot]";
            let (found, expected) = ("[aws.iot] beside key files", "one of both");
            report.mistake(section.at, &section.path("credentials"), found, expected, fix);
            None
        }
        (Some(Kind::Iot) | None, Some(iot)) => iot.map(Credentials::Iot),
        (Some(Kind::Default), None) if given => {
            let fix = "remove the files, or write credentials = \"files\"";
            report.mistake(
                section.at,
                &section.path("credentials"),
                "\"default\" beside key files",
                "one of both",
                fix,
            );
            None
        }
        (Some(Kind::Default), None) => Some(Credentials::Default),
        (None, None) if !given => Some(Credentials::Default),
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
    Some(Aws { region: region?, endpoint, data_endpoint, ca_file, credentials: credentials?, proxy: None })
}

/// The keys of `[upload]` that a camera may override.
fn upload(report: &mut Report, section: &mut Section, base: &Upload, spool: Option<&Spool>) -> Upload {
    let fragment_ms = section.integer(report, "fragment_ms", 1000..=9000, ms(base.fragment));
    let fragment_max_ms = section.integer(report, "fragment_max_ms", 1000..=9999, ms(base.fragment_max));
    if fragment_max_ms < fragment_ms {
        let at = section.at_key("fragment_max_ms").or_else(|| section.at_key("fragment_ms"));
        report.mistake(
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
        gather: Duration::from_millis(section.integer(report, "gather_ms", 0..=1000, ms(base.gather))),
        rotate: seconds(report, section, "rotate_s", 60..=2640, base.rotate),
        ack_timeout: seconds(report, section, "ack_timeout_s", 5..=600, base.ack_timeout),
        write_timeout: seconds(report, section, "write_timeout_s", 5..=600, base.write_timeout),
        stop_grace: base.stop_grace,
        mode: upload_mode(report, section, base.mode, spool),
        event_pre: seconds(report, section, "event_pre_s", 0..=3600, base.event_pre),
        event_post: seconds(report, section, "event_post_s", 0..=3600, base.event_post),
        uplink_max_kbps: match section.integer_if(report, "uplink_max_kbps", 256..=10_000_000, 4000) {
            Some(kbps) => NonZeroU64::new(kbps.value),
            None => base.uplink_max_kbps,
        },
        quiet_hours: quiet_hours(report, section, base.quiet_hours, spool),
    }
}

fn upload_mode(
    report: &mut Report,
    section: &mut Section,
    base: UploadMode,
    spool: Option<&Spool>,
) -> UploadMode {
    let modes = [
        ("continuous", UploadMode::Continuous),
        ("events", UploadMode::Events),
        ("on-demand", UploadMode::OnDemand),
    ];
    let Some(mode) = section.choice(report, "mode", &modes) else { return base };
    let at = section.at_key("mode").unwrap_or(section.at);
    if mode != UploadMode::Continuous && spool.is_none_or(|spool| spool.keep.is_zero()) {
        let found = if spool.is_some() { "keep_hours = 0 in [spool]" } else { "no [spool]" };
        let expected = "local recordings to choose from";
        let fix = "add [spool] with a folder and keep_hours above 0, or write mode = \"continuous\"";
        report.mistake(at, &section.path("mode"), found, expected, fix);
    }
    mode
}

fn quiet_hours(
    report: &mut Report,
    section: &mut Section,
    base: Option<QuietHours>,
    spool: Option<&Spool>,
) -> Option<QuietHours> {
    let Some(text) = section.string(report, "quiet_hours") else { return base };
    if text.value.is_empty() {
        return None;
    }
    let path = section.path("quiet_hours");
    let Some(hours) = QuietHours::parse(&text.value) else {
        let found = format!("{:?}", brief(&text.value));
        let fix = "write quiet_hours = \"22:00-06:00\", or remove it";
        report.mistake(text.at, &path, found, "HH:MM-HH:MM, in UTC, not the whole day", fix);
        return base;
    };
    if spool.is_none() {
        let fix = "add [spool] with a folder, or remove quiet_hours";
        report.mistake(text.at, &path, "no [spool]", "a disk on which footage waits", fix);
    }
    Some(hours)
}

/// On where it has a folder.
fn spool(report: &mut Report, mut section: Section) -> Option<Spool> {
    let folder = own_folder(report, &mut section, "folder");
    if folder.is_none() && section.is_present() && !section.has("folder") {
        let fix = "write folder = \"/var/lib/kvs-edge/spool\", or remove [spool]";
        section.missing(report, "folder", "where footage is to wait on disk", fix);
    }
    let base = Spool::new(folder.clone().unwrap_or_default());
    let hours = |report: &mut Report, section: &mut Section, key, range, default: Duration| {
        Duration::from_secs(section.integer(report, key, range, default.as_secs() / 3600) * 3600)
    };
    let policies = [("drop-oldest", SpoolPolicy::DropOldest), ("stop-recording", SpoolPolicy::StopRecording)];
    let spool = Spool {
        folder: PathBuf::new(),
        bytes: section.integer(report, "bytes", 64 << 20..=64 << 40, base.bytes),
        keep: hours(report, &mut section, "keep_hours", 0..=8760, base.keep),
        backlog: hours(report, &mut section, "backlog_hours", 1..=8760, base.backlog),
        policy: section.choice(report, "policy", &policies).unwrap_or(base.policy),
        proofs: Duration::from_secs(
            section.integer(report, "proof_days", 1..=3650, base.proofs.as_secs() / 86_400) * 86_400,
        ),
        key_file: key_file(report, &mut section, "key_file", "key_credential"),
    };
    section.finish(report);
    folder.map(|_| Spool { folder: base.folder, ..spool })
}

fn verify(report: &mut Report, section: &mut Section, base: &Verify) -> Verify {
    let modes =
        [("continuous", VerifyMode::Continuous), ("sampled", VerifyMode::Sampled), ("off", VerifyMode::Off)];
    let plays = [("get-media", PlayBy::GetMedia), ("hls", PlayBy::Hls)];
    Verify {
        mode: section.choice(report, "mode", &modes).unwrap_or(base.mode),
        sample_every: seconds(report, section, "sample_every_s", 1..=86_400, base.sample_every),
        list_every: seconds(report, section, "list_every_s", 1..=86_400, base.list_every),
        late_after: seconds(report, section, "late_after_s", 1..=3600, base.late_after),
        read_back_bytes_per_hour: section.integer(
            report,
            "read_back_mib_per_hour",
            1..=1 << 20,
            base.read_back_bytes_per_hour >> 20,
        ) << 20,
        play_every: seconds(report, section, "play_every_s", 60..=86_400, base.play_every),
        play_by: section.choice(report, "play_by", &plays).unwrap_or(base.play_by),
        alarm_after: seconds(report, section, "alarm_after_s", 0..=86_400, base.alarm_after),
    }
}

/// Every key that is asked for where the sample file has all its tables in use.
#[cfg(any(test, feature = "schema"))]
pub(super) fn keys() -> std::collections::BTreeMap<String, crate::schema::Kind> {
    let table = |line: &'static str| {
        line.strip_prefix("# ").filter(|line| line.starts_with('[') && line.ends_with(']'))
    };
    let text = EXAMPLE.lines().map(|line| table(line).unwrap_or(line)).collect::<Vec<_>>().join("\n");
    let environment = Environment::default();
    let mut report = Report::new(&text, &environment);
    let document = report.parse();
    root(&mut report, Section::root(&document));
    report.asked
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every key of the reader stands in the sample file, behind `#` or not, and every key there is one of the reader.
    #[test]
    fn sample_file_and_reader_know_the_same_keys() {
        let keys = keys();
        let mut written = BTreeSet::new();
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
        // A camera's overrides are explained at the tables for all cameras. That tables of labels have names of the
        // operator's choice is why neither side has them as keys.
        let explained = |key: &&String| {
            let name = key.strip_prefix("camera.").unwrap_or(key);
            let inherited = ["upload.", "verify.", "detect."].iter().any(|table| name.starts_with(table));
            let named = ["detect.label", "detect.label.person"].contains(&name);
            let twice = inherited && name != *key && keys.contains_key(name);
            !named && !twice
        };
        let asked: Vec<_> = keys.keys().filter(explained).collect();
        let written: Vec<_> = written.iter().filter(explained).collect();
        assert_eq!(asked, written);
    }
}
