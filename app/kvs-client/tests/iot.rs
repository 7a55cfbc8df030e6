//! A stand-in of the AWS IoT credentials provider, with mutual TLS and tokens that expire, and kvs-local behind them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use kvs::api::StreamId;
use kvs_client::{Client, Clock, Config, Endpoints, IotProvider, SharedDialler};
use kvs_local::{Credentials, KvsLocal, Options};
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio_rustls::TlsAcceptor;

const START_S: u64 = 1_795_186_073;
const LIFE: Duration = Duration::from_secs(360);

/// Certificates, and what the stand-in has seen.
struct StandIn {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    clock: Clock,
    asked: AtomicU64,
    is_away: AtomicBool,
    /// Requests, and the certificate that each came with.
    seen: Mutex<Vec<(String, Vec<u8>)>>,
}

impl StandIn {
    fn new(clock: Clock) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("signed");
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).expect("written");
        let stand_in = Self {
            folder,
            issuer: Issuer::new(params, key),
            clock,
            asked: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            seen: Mutex::default(),
        };
        stand_in.renew_device();
        Arc::new(stand_in)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.issuer).expect("signed"), key)
    }

    /// The device has another certificate from now on.
    fn renew_device(&self) {
        let (certificate, key) = self.issue("thing");
        std::fs::write(self.path("device.pem"), certificate.pem()).expect("written");
        std::fs::write(self.path("device.key"), key.serialize_pem()).expect("written");
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(self.path("ca.pem")).expect("it is there");
        let ca = <rustls_pki_types::CertificateDer as rustls_pki_types::pem::PemObject>::from_pem_slice(&pem);
        roots.add(ca.expect("a certificate")).expect("it can be used");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let (certificate, key) = self.issue("iot.invalid");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate");
        TlsAcceptor::from(Arc::new(config))
    }

    async fn serve(self: Arc<Self>, socket: DuplexStream) {
        let Ok(tls) = self.acceptor().accept(socket).await else { return };
        let certificate = tls.get_ref().1.peer_certificates().expect("demanded")[0].to_vec();
        let mut tls = BufReader::new(tls);
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            tls.read_line(&mut request).await.expect("a line");
        }
        let (status, body) = if request.starts_with("GET /role-aliases/alias/credentials HTTP/1.1\r\n") {
            let past = self.clock.wall().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() - START_S;
            let n = past / LIFE.as_secs();
            let end = kvs_time(START_S + (n + 1) * LIFE.as_secs());
            let body = format!(
                r#"{{"credentials":{{"accessKeyId":"key{n}","secretAccessKey":"secret","sessionToken":"token{n}","expiration":"{end}"}}}}"#
            );
            ("200 OK", body)
        } else {
            ("404 Not Found", r#"{"message":"no such alias"}"#.to_owned())
        };
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().expect("free").push((request, certificate));
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        tls.write_all(answer.as_bytes()).await.expect("written");
        let _ = tls.shutdown().await;
    }

    fn provider(self: &Arc<Self>, alias: &str) -> IotProvider {
        let own = self.clone();
        IotProvider {
            endpoint: "iot.invalid".to_owned(),
            role_alias: alias.to_owned(),
            thing_name: "box-7".to_owned(),
            cert_file: self.path("device.pem"),
            key_file: self.path("device.key"),
            extra_ca_pem: Some(self.path("ca.pem")),
            dialler: SharedDialler::from_fn(move |host, port| {
                assert_eq!((host, port), ("iot.invalid", 443));
                let own = own.clone();
                async move {
                    if own.is_away.load(Ordering::Relaxed) {
                        return Err(std::io::ErrorKind::ConnectionRefused.into());
                    }
                    let (ours, theirs) = tokio::io::duplex(16 << 10);
                    tokio::spawn(own.serve(theirs));
                    Ok(ours)
                }
            }),
        }
    }
}

/// As the provider writes it.
fn kvs_time(seconds: u64) -> String {
    let time = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    // Mon, 30 Nov 2026 12:34:56 GMT
    let (day, month, year, clock) = (&time[5..7], &time[8..11], &time[12..16], &time[17..25]);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|known| *known == month).expect("a month") + 1;
    format!("{year}-{month:02}-{day}T{clock}Z")
}

#[tokio::test(start_paused = true)]
async fn keys_are_renewed_before_they_end_and_no_call_is_refused() {
    let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(START_S));
    let stand_in = StandIn::new(clock.clone());
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = Options::new(folder.path()).stream("cam", 24);
    options.clock = clock.clone();
    options.credentials = (0..20)
        .map(|n| {
            let end_ms = (START_S + (n + 1) * LIFE.as_secs()) * 1000;
            Credentials::new(format!("key{n}"), "secret").with_token(format!("token{n}")).until(end_ms)
        })
        .collect();
    let kvs = KvsLocal::start_in_memory(options).await.expect("a server");
    let mut config = Config::new(kvs.region(), stand_in.provider("alias").shared());
    let endpoint = kvs.endpoint().parse().ok();
    config.endpoints = Endpoints { control: endpoint.clone(), media: endpoint.clone(), archived: endpoint };
    let connector = kvs.connector();
    config.dialler = SharedDialler::from_fn(move |_, _| {
        let opened = connector.connect(16 << 10);
        async move { opened }
    });
    config.clock = clock.clone();
    let client = Client::new(config).expect("a client");
    let call = async |what: &str| {
        client
            .describe_stream(&StreamId::name("cam"))
            .await
            .map(drop)
            .map_err(|error| format!("{what}: {error:?}"))
    };
    for minute in 0..30 {
        call(&format!("minute {minute}")).await.expect("taken");
        clock.sleep(Duration::from_secs(60)).await;
    }
    let asked = stand_in.asked.load(Ordering::Relaxed);
    assert!((5..=30).contains(&asked), "{asked}");
    let (request, first) = stand_in.seen.lock().expect("free")[0].clone();
    assert!(request.contains("\r\nx-amzn-iot-thingname: box-7\r\n"), "{request}");
    assert!(request.contains("\r\nhost: iot.invalid\r\n"), "{request}");
    // The certificate is replaced on disk: the next request comes with the new one.
    stand_in.renew_device();
    for _ in 0..7 {
        call("renewed").await.expect("taken");
        clock.sleep(Duration::from_secs(60)).await;
    }
    let last = stand_in.seen.lock().expect("free").last().expect("some").1.clone();
    assert_ne!(first, last);
    // Away: what there is lasts up to its end, and then the reason is told; back again, it works again.
    stand_in.is_away.store(true, Ordering::Relaxed);
    let mut refused = None;
    for _ in 0..8 {
        clock.sleep(Duration::from_secs(60)).await;
        if let Err(error) = call("away").await {
            refused = Some(error);
        }
    }
    let refused = refused.expect("they ended");
    assert!(refused.contains("iot.invalid") && refused.contains("Connect"), "{refused}");
    assert!(!refused.contains("secret") && !refused.contains("token3"), "{refused}");
    stand_in.is_away.store(false, Ordering::Relaxed);
    call("back").await.expect("taken");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_alias_thing_and_what_to_change() {
    use aws_credential_types::provider::ProvideCredentials as _;
    let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(START_S));
    let stand_in = StandIn::new(clock);
    let refused = async |provider: IotProvider| {
        let error = provider.shared().provide_credentials().await.expect_err("refused");
        std::error::Error::source(&error).expect("a reason").to_string()
    };
    let error = refused(stand_in.provider("other")).await;
    assert!(
        error.contains("`other`") && error.contains("`box-7`") && error.contains("404 no such alias"),
        "{error}"
    );
    std::fs::write(stand_in.path("device.key"), "no key").expect("written");
    let error = refused(stand_in.provider("alias")).await;
    assert!(error.contains("device.key"), "{error}");
    // A certificate of somebody else.
    let other = StandIn::new(Clock::simulated(UNIX_EPOCH));
    for name in ["device.pem", "device.key"] {
        std::fs::copy(other.path(name), stand_in.path(name)).expect("copied");
    }
    let error = refused(stand_in.provider("alias")).await;
    assert!(error.contains("iot.invalid"), "{error}");
}
