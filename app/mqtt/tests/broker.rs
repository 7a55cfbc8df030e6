//! The MQTT actor against a real Mosquitto, and against listeners that play brokers which Mosquitto cannot be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use clock::Clock;
use messages::Topics;
use mqtt::{Mqtt, MqttHandle, MqttState, Protocol, Qos};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Far beyond what any event takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(8);

/// A child process whose output lines arrive in a channel; killed when dropped.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn spawn(command: &mut Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned");
        let (sender, lines) = mpsc::channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Process { child, lines }
    }

    /// The next line that `wanted` accepts; others are skipped.
    #[track_caller]
    fn wait_for(&self, wanted: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with {wanted:?} in {seen:#?}"),
            }
        }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mosquitto() -> Option<PathBuf> {
    let found = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    if found.is_none() {
        let required = std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_some();
        assert!(!required, "mosquitto is not installed, and is required");
        eprintln!("skipped: mosquitto is not installed (apt install mosquitto mosquitto-clients)");
    }
    found
}

struct Broker {
    process: Process,
    folder: tempfile::TempDir,
    port: u16,
}

impl Broker {
    /// `None`, and a word on stderr, where Mosquitto is not installed.
    fn start(extra: &str) -> Option<Broker> {
        Broker::start_in(tempfile::tempdir().expect("a folder"), free_port(), extra)
    }

    fn start_in(folder: tempfile::TempDir, port: u16, extra: &str) -> Option<Broker> {
        let binary = mosquitto()?;
        let file = folder.path().join("mosquitto.conf");
        let anonymous = if extra.contains("password_file") { "false" } else { "true" };
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous {anonymous}\nuser root\nlog_dest stderr\nlog_type all\n{extra}"
        );
        std::fs::write(&file, config).expect("written");
        let process = Process::spawn(Command::new(binary).arg("-c").arg(&file));
        process.wait_for("running");
        Some(Broker { process, folder, port })
    }

    fn config(&self) -> config::Mqtt {
        config_for(self.port)
    }

    /// Prints `RETAINED QOS TOPIC PAYLOAD` for each message.
    fn subscribe(&self) -> Process {
        let port = self.port.to_string();
        let arguments =
            ["-V", "5", "-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "#", "-F", "%r %q %t %p"];
        Process::spawn(Command::new("mosquitto_sub").args(arguments))
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port()
}

fn config_for(port: u16) -> config::Mqtt {
    config::Mqtt {
        host: "127.0.0.1".into(),
        port,
        prefix: "kvs-edge".into(),
        username: None,
        password: None,
        client_id: "kvs-edge-box".into(),
        tls: None,
        proxy: None,
        protocol: config::MqttProtocol::Auto,
        keep_alive: Duration::from_secs(5),
    }
}

struct Running {
    handle: MqttHandle,
    task: tokio::task::JoinHandle<()>,
    cancel: CancellationToken,
}

fn start(config: config::Mqtt) -> Running {
    let cancel = CancellationToken::new();
    let (handle, task) =
        Mqtt::start(config, &Topics::new("kvs-edge", "box"), Clock::system(), cancel.clone());
    Running { handle, task, cancel }
}

impl Running {
    async fn state(&self, wanted: impl Fn(&MqttState) -> bool) -> MqttState {
        let mut watch = self.handle.watch();
        match tokio::time::timeout(DEADLINE, watch.wait_for(wanted)).await {
            Ok(state) => state.expect("running").clone(),
            Err(_) => panic!("still {:?}", self.handle.state()),
        }
    }

    async fn connected(&self) -> MqttState {
        self.state(|state| matches!(state, MqttState::Connected { .. })).await
    }

    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("in time").expect("no panic");
        assert_eq!(self.handle.state(), MqttState::Stopped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_retained_and_a_clean_stop_says_offline() {
    let Some(broker) = Broker::start("") else { return };
    let running = start(broker.config());
    running.handle.publish_retained("kvs-edge/box/info".into(), &json!({"v": 1}), Qos::AtLeastOnce);
    running.handle.publish_retained("kvs-edge/box/info".into(), &json!({"v": 2}), Qos::AtLeastOnce);
    assert_eq!(running.connected().await, MqttState::Connected { protocol: Protocol::V5 });
    // Retained by the broker: a subscriber that comes later sees them.
    broker.process.wait_for("Sending PUBACK");
    broker.process.wait_for("Sending PUBACK");
    let subscriber = broker.subscribe();
    let mut first = [subscriber.next(), subscriber.next()];
    first.sort();
    assert_eq!(first, ["1 1 kvs-edge/box/availability online", "1 1 kvs-edge/box/info {\"v\":2}"]);
    running.handle.publish("kvs-edge/box/cam/a/events".into(), &json!({"seq": 1}), Qos::AtLeastOnce);
    running.handle.publish("kvs-edge/box/cam/a/stats".into(), &json!({"v": 1}), Qos::AtMostOnce);
    assert_eq!(subscriber.next(), "0 1 kvs-edge/box/cam/a/events {\"seq\":1}");
    assert_eq!(subscriber.next(), "0 0 kvs-edge/box/cam/a/stats {\"v\":1}");
    // The last word before the stop still goes out, and in this order.
    running.handle.publish_retained("kvs-edge/box/info".into(), &json!({"stop": 1}), Qos::AtLeastOnce);
    running.stop().await;
    assert_eq!(subscriber.next(), "0 1 kvs-edge/box/info {\"stop\":1}");
    assert_eq!(subscriber.next(), "0 1 kvs-edge/box/availability offline");
    drop(subscriber);
    let later = broker.subscribe();
    later.wait_for("1 1 kvs-edge/box/availability offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_says_offline_for_a_box_that_vanishes() {
    let Some(broker) = Broker::start("") else { return };
    let running = start(broker.config());
    let subscriber = broker.subscribe();
    subscriber.wait_for("kvs-edge/box/availability online");
    // The connection is dropped without DISCONNECT, as by a power cut.
    running.task.abort();
    assert_eq!(subscriber.next(), "0 1 kvs-edge/box/availability offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_away_and_back_gets_every_state_and_what_waited() {
    let port = free_port();
    // The box works without a broker from the start.
    let running = start(config_for(port));
    let state = running.state(|state| matches!(state, MqttState::Disconnected(_))).await;
    assert!(format!("{state:?}").contains("refused"), "{state:?}");
    let topic = |name: &str| format!("kvs-edge/box/{name}");
    running.handle.publish_retained(topic("info"), &json!(1), Qos::AtLeastOnce);
    let Some(broker) = Broker::start_in(tempfile::tempdir().expect("a folder"), port, "") else { return };
    running.connected().await;
    let subscriber = broker.subscribe();
    subscriber.wait_for("kvs-edge/box/availability online");
    drop(subscriber);

    let Broker { process, folder, .. } = broker;
    drop(process);
    running.state(|state| matches!(state, MqttState::Disconnected(_))).await;
    running.handle.publish_retained(topic("health"), &json!(1), Qos::AtMostOnce);
    running.handle.publish_retained(topic("health"), &json!(2), Qos::AtMostOnce);
    running.handle.publish(topic("cam/a/events"), &json!("late"), Qos::AtLeastOnce);
    // Persistence is off: this broker remembers nothing, and everybody gets everything anew.
    let broker = Broker::start_in(folder, port, "").expect("was there before");
    running.connected().await;
    broker.process.wait_for("'kvs-edge/box/health'");
    broker.process.wait_for("'kvs-edge/box/info'");
    broker.process.wait_for("'kvs-edge/box/availability'");
    broker.process.wait_for("'kvs-edge/box/cam/a/events'");
    let subscriber = broker.subscribe();
    let mut states = [subscriber.next(), subscriber.next(), subscriber.next()];
    states.sort();
    let expected =
        ["1 0 kvs-edge/box/health 2", "1 1 kvs-edge/box/availability online", "1 1 kvs-edge/box/info 1"];
    assert_eq!(states, expected);
    assert_eq!(running.handle.health().reconnects, 1);
    assert_eq!(running.handle.health().dropped, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_without_a_broker_does_not_wait() {
    let running = start(config_for(free_port()));
    running.state(|state| matches!(state, MqttState::Disconnected(_))).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_password_is_a_clear_state_without_spinning() {
    if mosquitto().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users");
    let made =
        Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(&users).args(["box", "right"]).status();
    assert!(made.expect("mosquitto_passwd runs").success());
    let extra = format!("password_file {}\n", users.display());
    let broker = Broker::start_in(folder, free_port(), &extra).expect("checked above");
    for protocol in [config::MqttProtocol::Auto, config::MqttProtocol::V311] {
        let login = |password: &str| config::Mqtt {
            username: Some("box".into()),
            password: Some(config::Secret::new(password)),
            protocol,
            ..broker.config()
        };
        let running = start(login("hunter2"));
        let state = running.state(|state| matches!(state, MqttState::Refused(_))).await;
        let MqttState::Refused(problem) = &state else { unreachable!("waited for") };
        let fix = problem.fix.as_deref().unwrap_or_default();
        assert!(problem.found.contains("refused") && fix.contains("mqtt.password_file"), "{state:?}");
        assert!(!format!("{state:?}").contains("hunter2"));
        // One attempt, and no other version tried: the answer was clear.
        broker.process.wait_for("not authori");
        let since: Vec<_> = broker.process.lines.try_iter().collect();
        assert!(!since.iter().any(|line| line.contains("New connection")), "{since:?}");
        running.stop().await;

        let running = start(login("right"));
        running.connected().await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_box_with_the_same_client_id_is_told_so() {
    let Some(broker) = Broker::start("") else { return };
    let first = start(broker.config());
    first.connected().await;
    let second = start(broker.config());
    second.connected().await;
    // They take the place of each other until one of them has seen enough.
    let refused = |state: &MqttState| matches!(state, MqttState::Refused(_));
    let state = tokio::select! {
        state = first.state(refused) => state,
        state = second.state(refused) => state,
    };
    assert!(format!("{state:?}").contains("uses the same mqtt.client_id"), "{state:?}");
    first.stop().await;
    second.stop().await;
}

/// Makes `NAME.pem` and `NAME.key`, signed by `ca`, or by itself.
fn certificate(folder: &Path, name: &str, subject: &str, ca: Option<&str>) {
    let file = |name: &str, extension: &str| folder.join(format!("{name}.{extension}"));
    std::fs::write(folder.join("openssl.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").expect("written");
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", subject, "-config"]).arg(folder.join("openssl.cnf"));
    command.arg("-keyout").arg(file(name, "key")).arg("-out").arg(file(name, "pem"));
    match ca {
        None => command.args(["-addext", "basicConstraints=critical,CA:TRUE"]),
        Some(ca) => command.arg("-CA").arg(file(ca, "pem")).arg("-CAkey").arg(file(ca, "key")).args([
            "-addext",
            "basicConstraints=CA:FALSE",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ]),
    };
    let output = command.output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_client_certificate() {
    if mosquitto().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    certificate(&path, "ca", "/CN=test authority", None);
    certificate(&path, "broker", "/CN=broker", Some("ca"));
    certificate(&path, "box", "/CN=box", Some("ca"));
    certificate(&path, "stranger-ca", "/CN=another authority", None);
    certificate(&path, "stranger", "/CN=box", Some("stranger-ca"));
    let file = |name: &str| path.join(name);
    let extra = format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n",
        file("ca.pem").display(),
        file("broker.pem").display(),
        file("broker.key").display(),
    );
    let broker = Broker::start_in(folder, free_port(), &extra).expect("checked above");
    let with = |ca: &str, client: Option<&str>| config::Mqtt {
        tls: Some(config::MqttTls {
            ca_file: Some(file(ca)),
            client: client.map(|name| config::ClientCertificate {
                cert_file: file(&format!("{name}.pem")),
                key_file: file(&format!("{name}.key")),
            }),
            alpn: None,
        }),
        ..broker.config()
    };
    for protocol in [config::MqttProtocol::V5, config::MqttProtocol::V311] {
        let running = start(config::Mqtt { protocol, ..with("ca.pem", Some("box")) });
        running.connected().await;
        broker.process.wait_for("u'box'");
        running.stop().await;
    }
    let name = config::Mqtt { host: "localhost".into(), ..with("ca.pem", Some("box")) };
    let plain_fix = "mqtt.tls.ca_file";
    for (config, expected) in [
        (with("stranger-ca.pem", Some("box")), plain_fix),
        (name, "mqtt.host against the names"),
        (with("ca.pem", None), "mqtt.tls.cert_file"),
        (with("ca.pem", Some("stranger")), "mqtt.tls.cert_file"),
        (with("absent.pem", None), "mqtt.tls.ca_file"),
    ] {
        let running = start(config);
        let state = running.state(|state| matches!(state, MqttState::Refused(_))).await;
        assert!(format!("{state:?}").contains(expected), "{state:?}");
        running.stop().await;
    }
}

/// Plays a broker that knows only MQTT 3.1.1: refuses level 5 with `refusal`, accepts level 4 and acknowledges.
fn old_broker(refusal: &'static [u8]) -> (u16, mpsc::Receiver<u8>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (levels, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            while let Some((first, body)) = read_packet(&mut socket) {
                let answer: Vec<u8> = match first >> 4 {
                    1 => {
                        // CONNECT: length and "MQTT", then the level (MQTT 3.1.1, 3.1.2).
                        let level = body[6];
                        let _ = levels.send(level);
                        if level != 4 {
                            let _ = socket.write_all(refusal);
                            break;
                        }
                        vec![0x20, 2, 0, 0]
                    }
                    // PUBLISH with QoS 1: the packet id follows the topic.
                    3 if first & 0b110 != 0 => {
                        let id = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                        vec![0x40, 2, body[id], body[id + 1]]
                    }
                    12 => vec![0xd0, 0],
                    _ => continue,
                };
                if socket.write_all(&answer).is_err() {
                    break;
                }
            }
        }
    });
    (port, receiver)
}

/// First byte and body of one packet.
fn read_packet(socket: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut byte = || {
        let mut one = [0];
        socket.read_exact(&mut one).ok().map(|()| one[0])
    };
    let first = byte()?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let next = byte()?;
        length |= usize::from(next & 0x7f) << shift;
        shift += 7;
        if next & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some((first, body))
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_that_refuses_mqtt_5_gets_3_1_1() {
    let refusals: [&[u8]; 4] = [
        &[0x20, 2, 0, 1],       // as MQTT 3.1.1 says it
        &[0x20, 3, 0, 0x84, 0], // as MQTT 5 says it
        &[0x20, 3, 0, 0x01, 0], // a mixture
        &[],                    // no word at all
    ];
    for refusal in refusals {
        let (port, levels) = old_broker(refusal);
        let running = start(config_for(port));
        assert_eq!(running.connected().await, MqttState::Connected { protocol: Protocol::V311 });
        assert_eq!(levels.try_iter().collect::<Vec<_>>(), [5, 4], "{refusal:02x?}");
        running.stop().await;
    }
    let (port, _) = old_broker(refusals[1]);
    let running = start(config::Mqtt { protocol: config::MqttProtocol::V5, ..config_for(port) });
    let state = running.state(|state| matches!(state, MqttState::Refused(_))).await;
    assert!(format!("{state:?}").contains("mqtt.protocol"), "{state:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_that_was_not_acknowledged_is_sent_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, events) = mpsc::channel();
    std::thread::spawn(move || {
        // Twice a broker that accepts, takes everything until the event, acknowledges nothing and hangs up.
        for socket in listener.incoming().take(2) {
            let Ok(mut socket) = socket else { return };
            while let Some((first, body)) = read_packet(&mut socket) {
                if first >> 4 == 1 {
                    let _ = socket.write_all(&[0x20, 2, 0, 0]);
                }
                if first >> 4 == 3 && body.windows(5).any(|five| five == b"event") {
                    let _ = sender.send(String::from_utf8_lossy(&body[2..]).into_owned());
                    break;
                }
            }
        }
    });
    let running = start(config::Mqtt { protocol: config::MqttProtocol::V311, ..config_for(port) });
    running.handle.publish("kvs-edge/box/event".into(), &json!(7), Qos::AtLeastOnce);
    for _ in 0..2 {
        let event = tokio::task::block_in_place(|| events.recv_timeout(DEADLINE)).expect("sent");
        assert!(event.starts_with("kvs-edge/box/event") && event.ends_with('7'), "{event:?}");
    }
    running.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn body_that_is_too_long_is_counted_not_sent() {
    let running = start(config_for(free_port()));
    running.handle.publish("kvs-edge/box/info".into(), &"x".repeat(200_000), Qos::AtLeastOnce);
    assert_eq!((running.handle.health().dropped, running.handle.health().queue), (1, 0));
    running.stop().await;
}
