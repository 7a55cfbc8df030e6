//! The configuration file: defaults, every kind of mistake, and any bytes at all.

use std::path::Path;
use std::time::Duration;

use config::*;
use proptest::prelude::*;

fn environment() -> Environment {
    Environment {
        file: "kvs-edge.toml".into(),
        machine_id: Some("4d0a1b2c3d4e5f60718293a4b5c6d7e8".into()),
        ..Default::default()
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text.as_bytes(), &environment())
}

/// The lines of all errors, without file name.
fn errors(text: &str) -> Vec<String> {
    let errors = parse(text).expect_err("the file has mistakes");
    errors.to_string().lines().map(|line| line.replace("kvs-edge.toml:", "")).collect()
}

const LEAST: &str = "[aws]\nregion = \"eu-west-1\"\n";
const CAMERA: &str = "[[camera]]\nid = \"front-door\"\nurl = \"rtsp://192.0.2.10/stream1\"\n";

/// One mistake in a file that is otherwise good.
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(errors(text), [expected]);
}

#[track_caller]
fn check_camera(line: &str, expected: &str) {
    check(&format!("{LEAST}{CAMERA}{line}\n"), expected);
}

#[test]
fn sample_file_holds_the_defaults() {
    let sample = parse(EXAMPLE).expect("the sample is valid");
    let least =
        parse(&format!("{LEAST}[mqtt]\nhost = \"127.0.0.1\"\n{CAMERA}")).expect("so is the least file");
    assert_eq!(sample, least);
    assert_eq!(sample.warnings, []);
    assert_eq!(sample.upload, Upload::default());
    assert_eq!(sample.verify, Verify::default());
    assert_eq!(sample.health, Health::default());
    let url = "rtsp://192.0.2.10/stream1".parse().expect("a URL");
    assert_eq!(sample.cameras, [Camera::new("front-door", url)]);
}

#[test]
fn a_spool_is_on_where_it_has_a_folder() {
    let with = |keys: &str| format!("{LEAST}[spool]\n{keys}\n{CAMERA}");
    assert_eq!(parse(&format!("{LEAST}{CAMERA}")).expect("valid").spool, None);
    let folder = "folder = \"/var/lib/kvs-edge/spool\"";
    let spool = parse(&with(folder)).expect("valid").spool;
    assert_eq!(spool, Some(config::Spool::new("/var/lib/kvs-edge/spool")));
    // The table of the sample, with every key in use that has a default, says the same.
    let start = EXAMPLE.find("# [spool]\n").expect("the sample has it");
    let table: Vec<_> = EXAMPLE[start..]
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with('[') || line.contains(" = ") && !line.starts_with("key_"))
        .collect();
    assert!(table.len() == 7, "{table:?}");
    assert_eq!(parse(&format!("{LEAST}{}\n{CAMERA}", table.join("\n"))).expect("valid").spool, spool);
    let keys = format!(
        "{folder}\nbytes = 100000000\nkeep_hours = 0\nbacklog_hours = 5\npolicy = \"stop-recording\""
    );
    let spool = parse(&with(&keys)).expect("valid").spool.expect("on");
    assert_eq!(
        (spool.bytes, spool.keep, spool.backlog),
        (100_000_000, Duration::ZERO, Duration::from_secs(18_000))
    );
    assert_eq!(spool.policy, config::SpoolPolicy::StopRecording);
    let missing = errors(&with("keep_hours = 1"));
    assert!(missing.len() == 1 && missing[0].contains("spool.folder"), "{missing:?}");
    let small = errors(&with(&format!("{folder}\nbytes = 5")));
    assert!(small.len() == 1 && small[0].contains("from 67108864"), "{small:?}");
}

#[test]
fn device_id_comes_from_the_machine_and_stays() {
    let config = |environment: &Environment| {
        Config::parse(format!("{LEAST}{CAMERA}").as_bytes(), environment).expect("valid").device.id
    };
    assert_eq!(config(&environment()), "edge-1d936b571505");
    let named = Environment { hostname: Some("gate.example".into()), ..Default::default() };
    assert_eq!(config(&named), "gate-example");
    assert_eq!(config(&Environment::default()), "kvs-edge");
}

#[test]
fn camera_inherits_and_overrides() {
    let text = format!(
        "{LEAST}[upload]\nfragment_ms = 3000\nrotate_s = 600\n[verify]\nlate_after_s = 7\n{CAMERA}\
         [camera.upload]\nfragment_ms = 4000\n[camera.verify]\nmode = \"off\"\n[camera.timeouts]\nstall_s = 3\n"
    );
    let config = parse(&text).expect("valid");
    let camera = &config.cameras[0];
    assert_eq!(camera.upload.fragment, Duration::from_secs(4));
    assert_eq!(camera.upload.rotate, Duration::from_secs(600));
    assert_eq!(camera.verify.mode, VerifyMode::Off);
    assert_eq!(camera.verify.late_after, Duration::from_secs(7));
    assert_eq!(camera.stall, Duration::from_secs(3));
    assert_eq!(config.upload.fragment, Duration::from_secs(3));
}

#[test]
fn every_mistake_of_a_file_is_reported_at_once() {
    let text = "\
[device]
id = \"box 1\"
[aws]
regoin = \"eu-west-1\"
[upload]
fragment_ms = \"2s\"
fragment_max_ms = 10000
[verify]
mode = \"continous\"
[[camera]]
id = \"a\"
url = \"http://x\"
[[camera]]
id = \"a\"
url = \"rtsp://admin:hunter2@10.0.0.2/1\"
password = \"hunter2\"
[[camera]]
url = 7
stream = \"a\"
";
    let errors = errors(text);
    let expected = [
        "2:6: device.id: found \"box 1\", expected 1 to 48 characters of A-Z a-z 0-9 _ -; fix: for example \"box-1\"",
        "3:1: aws.region: found nothing, expected an AWS region; fix: write region = \"eu-west-1\" or the one you use below [aws]",
        "4:1: aws.regoin: found an unknown key, expected a known one; fix: did you mean region?",
        "6:15: upload.fragment_ms: found a string, expected an integer from 1000 to 9000; fix: write fragment_ms = 2000",
        "7:19: upload.fragment_max_ms: found 10000, expected an integer from 1000 to 9999; fix: choose a value in the range; the default is 8000",
        "9:8: verify.mode: found \"continous\", expected \"continuous\" or \"sampled\" or \"off\"; fix: did you mean \"continuous\"?",
        "12:7: camera[0].url: found \"http://x\", expected rtsp://HOST[:PORT]/PATH; fix: a camera's live feed has an rtsp:// URL; look for RTSP in its settings",
        "14:6: camera[1].id: found \"a\" again, expected another id than camera[0] has; fix: give each camera its own id",
        "15:7: camera[1].url: found \"rtsp://***@10.0.0.2/1\", expected rtsp://HOST[:PORT]/PATH; fix: move user and password out of the URL, because URLs end up in logs: username = \"...\", password_file = \"...\"",
        "16:1: camera[1].password: found an unknown key, expected a known one; fix: secrets do not stand in this file: put it into a file of its own and give password_file",
        "17:1: camera[2].id: found nothing, expected a name for the camera; fix: write id = \"front-door\"",
        "18:7: camera[2].url: found an integer, expected a string; fix: write url = \"...\"",
        "19:10: camera[2].stream: found \"a\" again, expected another stream than camera[0] has; fix: give each camera its own KVS stream: a stream takes one PutMedia at a time",
    ];
    assert_eq!(errors, expected);
    assert!(!errors.join("").contains("hunter2"));
}

#[test]
fn what_is_not_toml_is_reported_with_what_is() {
    let text = format!("{LEAST}{CAMERA}username = viewer\ntransport = \"tpc\"\n[upload\nrotate_s = 1\n");
    let errors = errors(&text);
    assert!(errors[0].starts_with("6:12: syntax: found "), "{errors:?}");
    assert!(
        errors.iter().any(|line| line.contains("7:13: camera[0].transport: found \"tpc\"")),
        "{errors:?}"
    );
    assert!(errors.iter().any(|line| line.starts_with("8:") && line.contains("syntax")), "{errors:?}");
    assert!(!errors.iter().any(|line| line.contains("password_file")), "{errors:?}");
}

#[test]
fn no_camera_is_a_mistake() {
    check(
        LEAST,
        "1:1: camera: found nothing, expected at least one camera; fix: add [[camera]] with id and url",
    );
    check(
        &format!("{LEAST}[camera]\nid = \"a\"\n"),
        "3:1: camera: found a table, expected an array of tables; fix: write [[camera]] with two brackets before each one",
    );
}

#[test]
fn urls_that_no_camera_has() {
    let url = |url: &str| {
        let text = format!("{LEAST}[[camera]]\nid = \"a\"\nurl = \"{url}\"\n");
        errors(&text).join("\n").rsplit_once("; fix: ").expect("a fix").1.to_owned()
    };
    assert!(url("rtsps://10.0.0.1/").contains("TLS is not supported"));
    assert!(url("10.0.0.1/stream").contains("copy it from the camera's manual"));
    assert!(url("rtsp:///stream").contains("name or address"));
    assert!(url("rtsp://user@10.0.0.1/").contains("username"));
    assert!(url("rtsp://10.0.0.1:0/").contains("real port"));
    assert!(url("rtsp://10.0.0.1:70000/").contains("copy it"));
}

#[test]
fn password_in_a_query_is_only_warned_about() {
    let text =
        format!("{LEAST}[[camera]]\nid = \"a\"\nurl = \"rtsp://10.0.0.1/h264?user=x&password=hunter2\"\n");
    let config = parse(&text).expect("some cameras know no other way");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].to_string().contains("camera[0].url"));
    assert!(!config.warnings[0].to_string().contains("hunter2"));
}

#[test]
fn combinations_that_do_not_fit() {
    check_camera(
        "source = \"go2rtc\"\ntransport = \"udp\"",
        "7:13: camera[0].transport: found UDP from go2rtc, expected \"tcp\"; fix: write transport = \"tcp\" or remove it: go2rtc refuses UDP",
    );
    check_camera(
        "upload = { fragment_ms = 5000, fragment_max_ms = 3000 }",
        "6:50: camera[0].upload.fragment_max_ms: found 3000, below fragment_ms = 5000, expected at least fragment_ms; fix: write fragment_max_ms = 9999",
    );
    check_camera(
        "username = \"viewer\"",
        "3:1: camera[0].password_file: found nothing, expected a password beside the user name; fix: write password_file = \"...\"",
    );
    check_camera(
        "upload = { stop_grace_s = 5 }",
        "6:12: camera[0].upload.stop_grace_s: found an unknown key, expected a known one; fix: remove it; known here: ack_timeout_s, event_post_s, event_pre_s, fragment_max_ms, fragment_ms, gather_ms, mode, quiet_hours, rotate_s, uplink_max_kbps, window_bytes, write_timeout_s",
    );
    check(
        &format!("{LEAST}credentials = \"files\"\n{CAMERA}")
            .replace("credentials = \"files\"\n", "credentials = \"fles\"\n"),
        "3:15: aws.credentials: found \"fles\", expected \"default\" or \"files\" or \"iot\"; fix: did you mean \"files\"?",
    );
    check(
        &format!("{LEAST}[mqtt]\nhost = \"mqtt://broker:1883\"\n{CAMERA}"),
        "4:8: mqtt.host: found \"mqtt://broker:1883\", expected a host name or address alone; fix: write host = \"broker.example\" and, where it differs, port = 8883; TLS is the table [mqtt.tls]",
    );
    check(
        &format!("{LEAST}[mqtt]\nhost = \"broker\"\nprefix = \"a/b\"\n{CAMERA}"),
        "5:10: mqtt.prefix: found \"a/b\", expected 1 to 64 characters of A-Z a-z 0-9 _ -; fix: for example \"a-b\"",
    );
}

#[test]
fn files_credentials_need_both_halves() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "id", b"AKID\n", 0o600);
    let text = format!("{LEAST}access_key_id_file = \"id\"\n{CAMERA}");
    let found =
        Config::parse(text.as_bytes(), &in_folder(folder.path())).expect_err("half a key").to_string();
    assert!(found.contains("aws.secret_access_key_file: found nothing"), "{found}");
    write(folder.path(), "secret", b"hunter2\r\n", 0o600);
    let text = format!("{LEAST}access_key_id_file = \"id\"\nsecret_access_key_file = \"secret\"\n{CAMERA}");
    let config = Config::parse(text.as_bytes(), &in_folder(folder.path())).expect("a whole key");
    let Credentials::Files { access_key_id, secret_access_key, session_token } = &config.aws.credentials
    else {
        panic!("files")
    };
    assert_eq!((access_key_id.expose(), secret_access_key.expose()), ("AKID", "hunter2"));
    assert_eq!(*session_token, None);
    assert!(!format!("{config:?}").contains("hunter2"));
    write(folder.path(), "secret", b"hunter3", 0o600);
    assert_eq!(secret_access_key.reread().expect("rotated").expose(), "hunter3");
}

fn in_folder(folder: &Path) -> Environment {
    Environment { folder: folder.to_owned(), ..environment() }
}

fn write(folder: &Path, name: &str, bytes: &[u8], mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode set");
}

#[test]
fn secret_files_are_checked_and_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("folder")).expect("made");
    for (name, bytes) in [
        ("good", &b"hunter2\n"[..]),
        ("empty", b""),
        ("lines", b"hunter2\nhunter3\n"),
        ("binary", b"\xffhunter2"),
    ] {
        write(folder.path(), name, bytes, 0o600);
    }
    write(folder.path(), "open", b"hunter2", 0o644);
    let with = |line: &str| {
        let text = format!("{LEAST}{CAMERA}username = \"viewer\"\n{line}\n");
        let environment =
            Environment { credentials: Some(folder.path().to_owned()), ..in_folder(folder.path()) };
        Config::parse(text.as_bytes(), &environment)
    };
    for (line, expected) in [
        ("password_file = \"hunter2\"", "No such file"),
        ("password_file = \"empty\"", "(empty)"),
        ("password_file = \"lines\"", "(more than one line)"),
        ("password_file = \"binary\"", "(not UTF-8 text)"),
        ("password_file = \"folder\"", "(not a regular file)"),
        ("password_credential = \"../good\"", "the name of a systemd credential"),
        ("password_credential = \"good\"\npassword_file = \"good\"", "two sources"),
    ] {
        let found = with(line).expect_err(line).to_string();
        assert_eq!(found.lines().count(), 1, "{found}");
        assert!(found.contains(expected) && found.contains("camera[0].password_"), "{found}");
        assert!(!found.contains("hunter"), "{found}");
    }
    let config = with("password_credential = \"good\"").expect("a credential");
    assert_eq!(config.cameras[0].login.as_ref().map(|login| login.password.expose()), Some("hunter2"));
    assert_eq!(config.warnings, []);
    let config = with("password_file = \"open\"").expect("valid, but");
    assert!(config.warnings[0].to_string().contains("7:17: camera[0].password_file: found mode 644"));
    assert!(!format!("{config:?}").contains("hunter"));
}

#[test]
fn the_key_of_the_spool_is_a_path_and_one_that_is_not_there_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "key", &[b'a'; 64], 0o600);
    write(folder.path(), "open", &[b'a'; 64], 0o644);
    let with = |line: &str, credentials: bool| {
        let text = format!("{LEAST}[spool]\nfolder = \"spool\"\n{line}\n{CAMERA}");
        let credentials = credentials.then(|| folder.path().to_owned());
        Config::parse(text.as_bytes(), &Environment { credentials, ..in_folder(folder.path()) })
    };
    for (line, warning) in [
        ("key_file = \"key\"", None),
        ("key_credential = \"key\"", None),
        ("key_file = \"open\"", Some("mode 644")),
        ("key_file = \"none\"", Some("No such file")),
        ("key_credential = \"none\"", Some("No such file")),
    ] {
        let config = with(line, true).expect(line);
        let name = line.rsplit(' ').next().expect("a value").trim_matches('"');
        assert_eq!(config.spool.expect("on").key_file, Some(folder.path().join(name)), "{line}");
        match warning {
            None => assert_eq!(config.warnings, [], "{line}"),
            Some(found) => {
                let told = config.warnings[0].to_string();
                assert!(
                    config.warnings.len() == 1 && told.contains(found) && told.contains("spool.key_"),
                    "{told}"
                );
            }
        }
    }
    for (line, credentials, expected) in [
        ("key_file = \"key\"\nkey_credential = \"key\"", true, "two sources"),
        ("key_credential = \"../key\"", true, "the name of a systemd credential"),
        ("key_credential = \"key\"", false, "no $CREDENTIALS_DIRECTORY"),
        ("key_file = 5", true, "spool.key_file"),
    ] {
        let found = with(line, credentials).expect_err(line).to_string();
        assert!(found.lines().count() == 1 && found.contains(expected), "{found}");
    }
}

#[test]
fn credential_without_systemd_says_so() {
    check_camera(
        "username = \"viewer\"\npassword_credential = \"door\"",
        "7:23: camera[0].password_credential: found no $CREDENTIALS_DIRECTORY, expected a start by systemd with credentials; fix: add LoadCredential=door:FILE to the unit, or use the _file key",
    );
}

#[test]
fn tls_files_must_be_pem() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "ca.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o644);
    write(folder.path(), "der", b"\x30\x82", 0o600);
    let with = |lines: &str| {
        let text = format!("{LEAST}[mqtt]\nhost = \"broker\"\n[mqtt.tls]\n{lines}\n{CAMERA}");
        Config::parse(text.as_bytes(), &in_folder(folder.path()))
    };
    let mqtt = with("ca_file = \"ca.pem\"").expect("valid").mqtt.expect("present");
    assert_eq!((mqtt.port, mqtt.tls.expect("TLS").ca_file), (8883, Some(folder.path().join("ca.pem"))));
    let found = with("ca_file = \"der\"").expect_err("not PEM").to_string();
    assert!(found.contains("mqtt.tls.ca_file") && found.contains("BEGIN CERTIFICATE"), "{found}");
    let found = with("cert_file = \"ca.pem\"").expect_err("no key").to_string();
    assert!(found.contains("mqtt.tls.key_file: found nothing, expected a file beside cert_file"), "{found}");
    let text = format!("{LEAST}[mqtt]\nhost = \"::1\"\n[mqtt.tls]\n{CAMERA}");
    assert!(errors(&text)[0].starts_with("4:8: mqtt.host: found an IPv6 address with [mqtt.tls]"));
}

#[test]
fn absent_file_is_an_error_with_its_name() {
    let found = Config::load(Path::new("/nonexistent/kvs-edge.toml")).expect_err("absent").to_string();
    assert!(found.starts_with("/nonexistent/kvs-edge.toml: found a file that cannot be read"), "{found}");
}

#[test]
fn text_that_is_not_utf8_is_an_error_with_its_line() {
    let found = Config::parse(b"[aws]\n# Z\xfcrich\n", &environment()).expect_err("Latin-1").to_string();
    assert!(found.starts_with("kvs-edge.toml:2:4: encoding: "), "{found}");
}

/// A regression would be a stack overflow, which no test harness survives.
#[test]
fn deep_nesting_is_an_error() {
    for text in [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
    ] {
        assert!(parse(&text).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Config::parse(&bytes, &environment());
    }

    /// Damage to a real file: every position, replaced by anything.
    #[test]
    fn damaged_sample_gives_an_answer(at in 0..EXAMPLE.len(), length in 0..40_usize, text in "[\\[\\]{}=\".,#\n a-z0-9_é-]{0,12}") {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, text.into_bytes());
        if let Err(errors) = Config::parse(&bytes, &environment()) {
            prop_assert!(!errors.mistakes.is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }
}

/// A camera that is a KVS stream, with these lines in its table and in `[camera.kvs]`.
fn of_kvs(source: &str, lines: &str, kvs: &str) -> Result<config::Config, config::ConfigErrors> {
    let text = format!(
        "[aws]\nregion = \"eu-west-1\"\n[[camera]]\nid = \"gate\"\nsource = \"{source}\"\n{lines}\n[camera.kvs]\n{kvs}\n"
    );
    config::Config::parse(text.as_bytes(), &config::Environment::default())
}

#[test]
fn a_camera_can_be_a_stream_that_somebody_else_uploads() {
    use config::{KvsMode, KvsSource};
    use kvs::read::hls::Play;
    let live = of_kvs("getmedia", "stream = \"yard\"", "max_fragment_age_s = 10\nreconnect_delay_s = 1")
        .expect("good");
    let camera = &live.cameras[0];
    assert_eq!((camera.stream.as_str(), camera.url.as_str()), ("yard", "kvs://getmedia/yard"));
    assert_eq!((camera.verify.mode, camera.stall.as_secs()), (config::VerifyMode::Off, 30));
    let Some(KvsSource::GetMedia(follow)) = &camera.kvs else { panic!("{:?}", camera.kvs) };
    assert_eq!(follow.max_fragment_age.map(|age| age.as_secs()), Some(10));
    assert_eq!(
        (follow.reconnect_delay.as_secs(), follow.max_reconnect_attempts),
        (1, None),
        "it never gives up"
    );
    assert!(
        live.warnings.iter().any(|warning| warning.found == "a stream that nobody looks at"),
        "{:?}",
        live.warnings
    );

    let hls = of_kvs("hls", "", "hls_session_s = 60\nurl_refresh_margin_s = 10").expect("good");
    let Some(KvsSource::Hls { config, play: Play::Live }) = &hls.cameras[0].kvs else { panic!("{hls:?}") };
    assert_eq!((config.hls_session_seconds, config.max_consecutive_errors), (60, None));
    assert_eq!((config.reconnect_delay.as_secs(), hls.cameras[0].stream.as_str()), (5, "gate"));

    let range = "from = \"2026-11-20T10:00:00Z\"\nto = \"2026-11-20T11:00:00+00:00\"";
    for source in ["hls", "fragment_list"] {
        let config = of_kvs(source, "", range).expect("good");
        let kvs = config.cameras[0].kvs.as_ref().expect("of KVS");
        assert!(kvs.is_range() && kvs.mode() != KvsMode::GetMedia, "{kvs:?}");
    }
    // Two may look at one stream, and one of them may record it.
    let text = "[aws]\nregion = \"eu-west-1\"\n[[camera]]\nid = \"a\"\nurl = \"rtsp://192.0.2.1/\"\nstream = \"yard\"\n\
                [[camera]]\nid = \"b\"\nsource = \"getmedia\"\nstream = \"yard\"\n";
    config::Config::parse(text.as_bytes(), &config::Environment::default()).expect("good");
}

#[test]
fn what_does_not_fit_a_kvs_stream_is_told_with_its_line_and_what_to_change() {
    #[track_caller]
    fn check(source: &str, lines: &str, kvs: &str, key: &str, found: &str, line: usize) {
        let errors = of_kvs(source, lines, kvs).expect_err("a mistake");
        let mistakes: Vec<_> = errors.mistakes.iter().map(ToString::to_string).collect();
        let mistake = errors.mistakes.iter().find(|mistake| mistake.key == format!("camera[0].{key}"));
        let mistake = mistake.unwrap_or_else(|| panic!("no {key}: {mistakes:?}"));
        assert!(mistake.found.contains(found) && !mistake.fix.is_empty(), "{mistakes:?}");
        assert_eq!(mistake.position.map(|(line, _)| line), Some(line), "{mistakes:?}");
    }
    check("getmedia", "url = \"rtsp://192.0.2.1/\"", "", "url", "url beside source = \"getmedia\"", 6);
    check("hls", "transport = \"udp\"", "", "transport", "transport beside", 6);
    check("fragment_list", "", "", "kvs.from", "nothing", 7);
    check("hls", "", "to = \"2026-11-20T10:00:00Z\"", "kvs.from", "nothing", 7);
    check("hls", "", "from = \"yesterday\"\nto = \"2026-11-20T10:00:00Z\"", "kvs.from", "yesterday", 8);
    check(
        "fragment_list",
        "",
        "from = \"2026-11-20T10:00:00Z\"\nto = \"2026-11-20T09:00:00Z\"",
        "kvs.to",
        "not behind",
        9,
    );
    check(
        "fragment_list",
        "",
        "from = \"2026-11-20T10:00:00Z\"\nto = \"2026-11-29T09:00:00Z\"",
        "kvs.to",
        "215 hours",
        9,
    );
    check("getmedia", "", "from = \"2026-11-20T10:00:00Z\"", "kvs.from", "from beside", 8);
    check(
        "getmedia",
        "",
        "hls_session_s = 300",
        "kvs.hls_session_s",
        "hls_session_s beside source = \"getmedia\"",
        8,
    );
    check("hls", "", "hls_session_s = 60\nurl_refresh_margin_s = 60", "kvs.url_refresh_margin_s", "60 s", 9);
    check("hls", "", "reconnect_delay_s = 90", "kvs.max_reconnect_delay_s", "60 s", 8);
    check("camera", "url = \"rtsp://192.0.2.1/\"", "", "kvs", "a table for KVS streams", 7);
}
