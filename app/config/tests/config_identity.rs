//! What is uploaded and when, who the box is towards AWS, and the way out.

use config::*;

const LEAST: &str = "[aws]\nregion = \"eu-west-1\"\n";
const CAMERA: &str = "[[camera]]\nid = \"gate\"\nurl = \"rtsp://192.0.2.10/a\"\n";
const SPOOL: &str = "[spool]\nfolder = \"/var/lib/kvs-edge/spool\"\n";

fn parse_in(text: &str, environment: &Environment) -> Result<Config, ConfigErrors> {
    Config::parse(text.as_bytes(), environment)
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    parse_in(text, &Environment::default())
}

/// One mistake, with its key and what it says.
#[track_caller]
fn check(text: &str, key: &str, says: &str) {
    let errors = parse(text).expect_err("there is a mistake");
    let [mistake] = &errors.mistakes[..] else { panic!("{errors}") };
    assert_eq!(mistake.key, key, "{mistake}");
    let shown = mistake.to_string();
    assert!(shown.contains(says) && mistake.position.is_some() && !mistake.fix.is_empty(), "{shown}");
}

#[test]
fn what_is_uploaded_needs_a_disk_to_choose_from() {
    let upload = |keys: &str| format!("{LEAST}[upload]\n{keys}\n");
    let on_demand = format!("{}{SPOOL}{CAMERA}", upload("mode = \"on-demand\"\nuplink_max_kbps = 500"));
    let camera = parse(&on_demand).expect("valid").cameras.remove(0);
    assert_eq!(camera.upload.mode, UploadMode::OnDemand);
    assert_eq!(camera.upload.uplink_max_kbps.map(std::num::NonZeroU64::get), Some(500));
    let own = format!("{on_demand}[camera.upload]\nmode = \"continuous\"\nquiet_hours = \"23:30-05:00\"\n");
    let camera = parse(&own).expect("valid").cameras.remove(0);
    assert_eq!(camera.upload.mode, UploadMode::Continuous);
    assert_eq!(camera.upload.quiet_hours, QuietHours::parse("23:30-05:00"));
    check(&format!("{}{CAMERA}", upload("mode = \"on-demand\"")), "upload.mode", "no [spool]");
    let gone = format!("{}{SPOOL}keep_hours = 0\n{CAMERA}", upload("mode = \"on-demand\""));
    check(&gone, "upload.mode", "keep_hours");
    check(
        &format!("{}{SPOOL}{CAMERA}", upload("mode = \"events\"")),
        "camera[0].upload.mode",
        "without detection",
    );
    check(&format!("{}{CAMERA}", upload("mode = \"some\"")), "upload.mode", "on-demand");
    check(&format!("{}{CAMERA}", upload("uplink_max_kbps = 5")), "upload.uplink_max_kbps", "from 256");
    check(
        &format!("{}{CAMERA}", upload("quiet_hours = \"22:00-06:00\"")),
        "upload.quiet_hours",
        "no [spool]",
    );
    for wrong in ["22-6", "24:00-06:00", "22:00-22:00", "22:60-06:00", "2:00-06:00", "22:00"] {
        let text = format!("{}{SPOOL}{CAMERA}", upload(&format!("quiet_hours = \"{wrong}\"")));
        check(&text, "upload.quiet_hours", "HH:MM-HH:MM");
    }
}

#[test]
fn quiet_hours_may_span_midnight() {
    let at = |hours: u64, minutes: u64| ((20_000 * 24 + hours) * 60 + minutes) * 60_000;
    let night = QuietHours::parse("22:30-06:00").expect("hours");
    let day = QuietHours::parse("09:00-17:00").expect("hours");
    for (time, in_night, in_day) in [
        (at(22, 29), false, false),
        (at(22, 30), true, false),
        (at(0, 0), true, false),
        (at(5, 59), true, false),
        (at(6, 0), false, false),
        (at(9, 0), false, true),
        (at(17, 0), false, false),
    ] {
        assert_eq!((night.contain(time), day.contain(time)), (in_night, in_day), "{time}");
    }
}

#[test]
fn credentials_by_the_certificate_of_the_box() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, label: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n"))
            .expect("written");
        path.display().to_string()
    };
    let (cert, key) = (file("box.pem", "CERTIFICATE"), file("box.key", "PRIVATE KEY"));
    let table = |endpoint: &str| {
        format!(
            "{LEAST}[aws.iot]\nendpoint = \"{endpoint}\"\nrole_alias = \"kvs-edge\"\nthing_name = \"box-7\"\n\
             cert_file = \"{cert}\"\nkey_file = \"{key}\"\n{CAMERA}"
        )
    };
    let host = "c0example.credentials.iot.eu-west-1.amazonaws.com";
    let config = parse(&table(host)).expect("valid");
    let Credentials::Iot(iot) = &config.aws.credentials else { panic!("{:?}", config.aws) };
    assert_eq!((&*iot.endpoint, &*iot.role_alias, &*iot.thing_name), (host, "kvs-edge", "box-7"));
    assert!(parse(&table(&format!("{host}:8443"))).is_ok());
    for wrong in ["https://c0example", "c0example/path", "host:0", ""] {
        check(&table(wrong), "aws.iot.endpoint", "HOST or HOST:PORT");
    }
    check(&table(host).replace(&key, &cert), "aws.iot.key_file", "PRIVATE KEY");
    check(
        &table(host).replace("[aws.iot]", "credentials = \"default\"\n[aws.iot]"),
        "aws.credentials",
        "[aws.iot]",
    );
    check(&format!("{LEAST}credentials = \"iot\"\n{CAMERA}"), "aws.iot", "[aws.iot]");
    let missing = parse(&format!("{LEAST}[aws.iot]\n{CAMERA}")).expect_err("nothing is there");
    assert_eq!(missing.mistakes.len(), 5, "{missing}");
}

#[test]
fn a_proxy_comes_from_the_file_else_from_the_environment_and_its_password_never_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "open sesame\n").expect("written");
    let login = format!("username = \"box\"\npassword_file = \"{}\"\n", password.display());
    let with = |url: &str, login: &str| format!("{LEAST}[proxy]\nurl = \"{url}\"\n{login}{CAMERA}");
    let config = parse(&with("https://proxy.example.com:3128", &login)).expect("valid");
    let proxy = config.aws.proxy.clone().expect("there is one");
    assert_eq!(proxy.login.as_ref().map(|login| login.password.expose()), Some("open sesame"));
    assert!(!format!("{config:?}").contains("sesame"));
    let plain = parse(&with("http://proxy.example.com:3128", &login)).expect("valid");
    assert!(plain.warnings.iter().any(|warning| warning.key == "proxy.url"), "{:?}", plain.warnings);
    check(&with("socks5://proxy:1080", ""), "proxy.url", "SOCKS");
    check(&with("http://box:sesame@proxy:3128", ""), "proxy.url", "password_file");
    check(&with("http://proxy:3128", "username = \"box\"\n"), "proxy.password_file", "together");
    check(&format!("{LEAST}[proxy]\n{CAMERA}"), "proxy.url", "http://HOST:PORT");

    let least = format!("{LEAST}{CAMERA}");
    let environment = |proxy: &str| Environment {
        proxy: Some(proxy.to_owned()),
        no_proxy: Some("localhost, .internal".to_owned()),
        ..Environment::default()
    };
    let found = parse_in(&least, &environment("http://b%6fx:s%40me@proxy:3128/")).expect("valid");
    let proxy = found.aws.proxy.expect("there is one");
    let login = proxy.login.expect("with a login");
    assert_eq!((&*login.username, login.password.expose()), ("box", "s@me"));
    assert_eq!(
        (proxy.url.as_str(), proxy.except),
        ("http://proxy:3128/", vec!["localhost".to_owned(), ".internal".to_owned()])
    );
    let bare = parse_in(&least, &environment("proxy:3128")).expect("valid").aws.proxy.expect("there is one");
    assert_eq!(bare.url.as_str(), "http://proxy:3128/");
    let unusable = parse_in(&least, &environment("socks5://box:sesame@proxy:1080")).expect("valid");
    assert_eq!(unusable.aws.proxy, None);
    let [warning] = &unusable.warnings[..] else { panic!("{:?}", unusable.warnings) };
    assert!(!warning.to_string().contains("sesame"), "{warning}");
    assert_eq!(parse(&least).expect("valid").aws.proxy, None);
}

#[test]
fn the_broker_is_told_its_protocol_on_443_and_reached_through_the_proxy_where_the_file_says_so() {
    let mqtt = |keys: &str, tls: &str| {
        let proxy = "[proxy]\nurl = \"http://proxy:3128\"\nexcept = [\".internal\"]\n";
        format!("{LEAST}{proxy}[mqtt]\n{keys}\n[mqtt.tls]\n{tls}\n{CAMERA}")
    };
    let parsed = |keys: &str, tls: &str| parse(&mqtt(keys, tls)).expect("valid").mqtt.expect("there is one");
    let iot = "host = \"a1b2c3-ats.iot.eu-west-1.amazonaws.com\"\nport = 443";
    let alpn = |mqtt: Mqtt| mqtt.tls.and_then(|tls| tls.alpn);
    assert_eq!(alpn(parsed(iot, "")).as_deref(), Some("x-amzn-mqtt-ca"));
    assert_eq!(alpn(parsed(iot, "alpn = \"mqtt\"")).as_deref(), Some("mqtt"));
    assert_eq!(alpn(parsed(&iot.replace("443", "8883"), "")), None);
    assert_eq!(alpn(parsed("host = \"broker.example\"\nport = 443", "")), None);
    for wrong in ["", "two words", "ü"] {
        check(&mqtt(iot, &format!("alpn = \"{wrong}\"")), "mqtt.tls.alpn", "ASCII");
    }
    let by_proxy = |host: &str| parsed(&format!("host = \"{host}\"\nproxy = true"), "").proxy;
    assert_eq!(
        by_proxy("broker.example").map(|way| way.proxy.url.to_string()).as_deref(),
        Some("http://proxy:3128/")
    );
    assert_eq!(by_proxy("broker.internal"), None, "an exception");
    assert_eq!(parsed("host = \"broker.example\"", "").proxy, None, "only where it is asked for");
    let none = format!("{LEAST}[mqtt]\nhost = \"broker\"\nproxy = true\n{CAMERA}");
    check(&none, "mqtt.proxy", "without a proxy");
}
