//! Brokers that share port 443 with others, and sites that let nothing out but a proxy. What stands behind is a broker that
//! answers one CONNECT and each PUBLISH.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::Clock;
use messages::Topics;
use mqtt::{Mqtt, MqttState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

/// Far beyond what any event takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(20);
const ALPN: &str = "x-amzn-mqtt-ca";
/// `box` and `open sesame`, RFC 4648.
const LOGIN: &str = "Ym94Om9wZW4gc2VzYW1l";

/// Makes `broker.pem` and `broker.key`, its own authority, for localhost.
fn certificate(folder: &Path) {
    let file = |name: &str| folder.join(name);
    std::fs::write(file("openssl.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").expect("written");
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-config"]).arg(file("openssl.cnf"));
    command.arg("-keyout").arg(file("broker.key")).arg("-out").arg(file("broker.pem"));
    let output = command.output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A broker that hangs up on whoever does not name the protocol, as AWS IoT Core does on port 443.
async fn broker(folder: &Path, wants: Option<&'static str>) -> u16 {
    let chain = CertificateDer::pem_file_iter(folder.join("broker.pem")).expect("a file");
    let chain: Vec<_> = chain.map(|one| one.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("broker.key")).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.expect("of one pair");
    config.alpn_protocols = wants.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else { return };
                if wants.is_none_or(|alpn| socket.get_ref().1.alpn_protocol() == Some(alpn.as_bytes())) {
                    let _ = serve(socket).await;
                }
            });
        }
    });
    port
}

/// CONNECT (byte 6 is the version), PUBLISH with QoS 1 and PING of either version.
async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    loop {
        let first = socket.read_u8().await?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = socket.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await?;
        let answer = match first >> 4 {
            1 => {
                if body[6] == 5 {
                    vec![0x20, 3, 0, 0, 0]
                } else {
                    vec![0x20, 2, 0, 0]
                }
            }
            3 if first & 0b110 != 0 => {
                let id = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                vec![0x40, 2, body[id], body[id + 1]]
            }
            12 => vec![0xd0, 0],
            14 => return Ok(()),
            _ => continue,
        };
        socket.write_all(&answer).await?;
    }
}

/// What a proxy was asked, and its port. It lets in who has the login, to the one port, by whatever name.
async fn proxy(to: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await?);
                }
                let head = String::from_utf8(head).expect("text");
                seen.lock().expect("free").push(head.lines().next().unwrap_or_default().to_owned());
                if !head.contains(LOGIN) {
                    return socket.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
                }
                let mut broker = TcpStream::connect(("127.0.0.1", to)).await?;
                socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                tokio::io::copy_bidirectional(&mut socket, &mut broker).await.map(drop)
            });
        }
    });
    (port, asked)
}

fn config_for(folder: &Path, port: u16, alpn: Option<&str>) -> config::Mqtt {
    config::Mqtt {
        host: "localhost".into(),
        port,
        prefix: "kvs-edge".into(),
        username: None,
        password: None,
        client_id: "kvs-edge-box".into(),
        tls: Some(config::MqttTls {
            ca_file: Some(folder.join("broker.pem")),
            client: None,
            alpn: alpn.map(str::to_owned),
        }),
        proxy: None,
        protocol: config::MqttProtocol::V5,
        keep_alive: Duration::from_secs(5),
    }
}

/// The first state that is no attempt.
async fn outcome(config: config::Mqtt) -> MqttState {
    let cancel = CancellationToken::new();
    let topics = Topics::new("kvs-edge", "box");
    let (handle, task) = Mqtt::start(config, &topics, Clock::system(), cancel.clone());
    let mut watch = handle.watch();
    let settled = |state: &MqttState| !matches!(state, MqttState::Connecting);
    let state = tokio::time::timeout(DEADLINE, watch.wait_for(settled)).await;
    let state = state.expect("in time").expect("running").clone();
    cancel.cancel();
    task.await.expect("it ends");
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_shares_its_port_is_told_the_protocol() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path());
    let port = broker(folder.path(), Some(ALPN)).await;
    for protocol in [config::MqttProtocol::V5, config::MqttProtocol::V311] {
        let state = outcome(config::Mqtt { protocol, ..config_for(folder.path(), port, Some(ALPN)) }).await;
        assert!(matches!(state, MqttState::Connected { .. }), "{state:?}");
    }
    let state = outcome(config_for(folder.path(), port, None)).await;
    assert!(matches!(state, MqttState::Disconnected(_)), "it wants to be told: {state:?}");
    let state = outcome(config_for(folder.path(), port, Some("mqtt"))).await;
    assert!(format!("{state:?}").contains("mqtt.tls.alpn"), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_reached_through_a_proxy_with_a_login() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path());
    let port = broker(folder.path(), Some(ALPN)).await;
    let (proxy_port, asked) = proxy(port).await;
    let way = |password: &str| config::MqttProxy {
        proxy: config::Proxy {
            url: format!("http://127.0.0.1:{proxy_port}").parse().expect("a URL"),
            login: Some(config::Login {
                username: "box".to_owned(),
                password: config::Secret::new(password.to_owned()),
            }),
            except: Vec::new(),
        },
        ca_file: None,
    };
    for protocol in [config::MqttProtocol::V5, config::MqttProtocol::V311] {
        // The broker listens on another port: only the proxy knows the way to this one.
        let config = config_for(folder.path(), 443, Some(ALPN));
        let state = outcome(config::Mqtt { proxy: Some(way("open sesame")), protocol, ..config }).await;
        assert!(matches!(state, MqttState::Connected { .. }), "{state:?}");
    }
    let first = asked.lock().expect("free").first().cloned();
    assert_eq!(first.as_deref(), Some("CONNECT localhost:443 HTTP/1.1"));
    let config = config_for(folder.path(), 443, Some(ALPN));
    let state = outcome(config::Mqtt { proxy: Some(way("wrong")), ..config }).await;
    let said = format!("{state:?}");
    assert!(matches!(state, MqttState::Refused(_)) && said.contains("in [proxy]"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
}
