//! The configuration: one TOML file, read once at start into the checked [`Config`].
//!
//! `kvs-edge.example.toml` beside this crate explains every key with unit, default and reason; it is [`EXAMPLE`], what
//! `kvs-edge check --print-defaults` prints, and a test holds it to the reader. Times below are already durations, so
//! units are only in the names of the keys.
//!
//! The file is walked by hand, not by serde, because serde stops at the first error and an operator wants all of them.

mod check;
mod detect;
mod document;
mod mistake;
pub mod models;
mod schema;
mod secret;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use detect::{CameraDetect, Detect, DetectBackend, Model};
pub use mistake::{ConfigErrors, Mistake};
#[cfg(any(test, feature = "schema"))]
pub use schema::schema;
pub use secret::{Secret, SecretError};

/// The complete sample file; every default in it is the real one.
pub const EXAMPLE: &str = include_str!("../kvs-edge.example.toml");

/// A configuration that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub device: Device,
    pub aws: Aws,
    /// Absent: no broker, the box reports only in its log.
    pub mqtt: Option<Mqtt>,
    /// For all cameras; each camera has its own copy with its overrides.
    pub upload: Upload,
    /// Absent: footage waits for KVS in memory only.
    pub spool: Option<Spool>,
    /// For all cameras, as `upload`.
    pub verify: Verify,
    pub health: Health,
    /// Absent: no camera is looked at, see [`Camera::detect`]. That is so when every camera is switched off, and where
    /// neither the file nor an installed model asks for it.
    pub detect: Option<Detect>,
    /// In the order of the file; at least one, ids and stream names unique.
    pub cameras: Vec<Camera>,
    /// What someone should look at although the file is valid.
    pub warnings: Vec<Mistake>,
    /// What the box could do besides, and how.
    pub advice: Option<String>,
}

/// `[device]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `[A-Za-z0-9_-]{1,48}`; a level of every topic, and in the tag of every fragment.
    pub id: String,
    /// For people.
    pub name: Option<String>,
}

/// `[aws]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    pub region: String,
    /// Instead of the region's public control-plane endpoint.
    pub endpoint: Option<Url>,
    /// Instead of what GetDataEndpoint answers, for every data-plane operation.
    pub data_endpoint: Option<Url>,
    /// PEM, trusted besides the system's certificate authorities.
    pub ca_file: Option<PathBuf>,
    pub credentials: Credentials,
    /// Absent: AWS is reached directly.
    pub proxy: Option<Proxy>,
}

/// Who we are towards AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The usual chain: environment, profile files, container, instance.
    Default,
    /// Read from files; use [`Secret::reread`] when they expire.
    Files { access_key_id: Secret, secret_access_key: Secret, session_token: Option<Secret> },
    /// From the AWS IoT credentials provider, by the certificate of this box.
    Iot(Iot),
}

/// `[aws.iot]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iot {
    /// `HOST` or `HOST:PORT`.
    pub endpoint: String,
    pub role_alias: String,
    pub thing_name: String,
    pub certificate: ClientCertificate,
    /// PEM, trusted besides the system's certificate authorities.
    pub ca_file: Option<PathBuf>,
}

/// `[proxy]`: every connection to AWS goes through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: Url,
    pub login: Option<Login>,
    /// Hosts that are reached without it, with all names under them.
    pub except: Vec<String>,
}

impl Proxy {
    /// Whether this host is reached without it.
    pub fn excepts(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.except.iter().any(|except| {
            let except = except.trim().trim_start_matches('.').to_ascii_lowercase();
            let under = || host.strip_suffix(&*except).is_some_and(|before| before.ends_with('.'));
            except == "*" || !except.is_empty() && (host == except || under())
        })
    }
}

/// `[mqtt]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    pub host: String,
    pub port: u16,
    /// First level of every topic, `[A-Za-z0-9_-]{1,64}`.
    pub prefix: String,
    /// User name and password; a user may come without one.
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub client_id: String,
    /// Present: TLS.
    pub tls: Option<MqttTls>,
    /// Present: the way to the broker.
    pub proxy: Option<MqttProxy>,
    pub protocol: MqttProtocol,
    pub keep_alive: Duration,
}

/// `[proxy]`, as the connection to the broker takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttProxy {
    pub proxy: Proxy,
    /// PEM, trusted besides the system's certificate authorities where the proxy itself is spoken to by TLS.
    pub ca_file: Option<PathBuf>,
}

/// `[mqtt.tls]`; all files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MqttTls {
    /// Absent: the system's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Certificate (chain) and private key of this box.
    pub client: Option<ClientCertificate>,
    /// Which protocol the connection is for (ALPN): a broker that shares its port with others wants to be told.
    pub alpn: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttProtocol {
    /// MQTT 5, and 3.1.1 once a broker refuses that.
    Auto,
    V5,
    V311,
}

/// `[upload]` and `[camera.upload]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// A fragment ends at the first random access point after this.
    pub fragment: Duration,
    /// A fragment is cut here even without one.
    pub fragment_max: Duration,
    /// Footage kept in memory until it is persisted, per camera.
    pub window_bytes: u64,
    /// How long pictures wait at most, so that a few are written at once.
    pub gather: Duration,
    /// A PutMedia session is replaced after this.
    pub rotate: Duration,
    /// A session without any ack for this long is given up.
    pub ack_timeout: Duration,
    /// A session whose socket takes nothing for this long is given up.
    pub write_timeout: Duration,
    /// How long a stop waits for the last fragments to be persisted.
    pub stop_grace: Duration,
    /// What is uploaded.
    pub mode: UploadMode,
    /// Around an event, with [`UploadMode::Events`].
    pub event_pre: Duration,
    pub event_post: Duration,
    /// Kilobits a second of this camera's upload at most.
    pub uplink_max_kbps: Option<NonZeroU64>,
    /// When nothing is uploaded, and footage waits on disk.
    pub quiet_hours: Option<QuietHours>,
}

/// What of a camera's footage is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadMode {
    Continuous,
    /// Only what lies around events; everything is a local recording.
    Events,
    /// Only what somebody asks for, likewise.
    OnDemand,
}

/// A stretch of each day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// Minutes of the day; the end is not in it, and may lie on the next day.
    pub from_min: u64,
    pub to_min: u64,
}

impl QuietHours {
    /// From `HH:MM-HH:MM`.
    pub fn parse(text: &str) -> Option<QuietHours> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let number = |text: &str, end: u64| {
                let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<u64>().ok().filter(|number| digits && *number < end)
            };
            Some(number(hours, 24)? * 60 + number(minutes, 60)?)
        };
        let (from, to) = text.split_once('-')?;
        let (from_min, to_min) = (minutes(from)?, minutes(to)?);
        (from_min != to_min).then_some(QuietHours { from_min, to_min })
    }

    /// Whether they contain a time, in ms since 1970.
    pub fn contain(&self, wall_ms: u64) -> bool {
        let minute = wall_ms / 60_000 % (24 * 60);
        if self.from_min < self.to_min {
            (self.from_min..self.to_min).contains(&minute)
        } else {
            minute >= self.from_min || minute < self.to_min
        }
    }
}

impl Default for Upload {
    fn default() -> Upload {
        Upload {
            fragment: Duration::from_millis(2000),
            fragment_max: Duration::from_millis(8000),
            window_bytes: 64 << 20,
            gather: Duration::from_millis(200),
            rotate: Duration::from_secs(2400),
            ack_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
            mode: UploadMode::Continuous,
            event_pre: Duration::from_secs(10),
            event_post: Duration::from_secs(20),
            uplink_max_kbps: None,
            quiet_hours: None,
        }
    }
}

/// `[spool]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    pub folder: PathBuf,
    /// Of all footage in it.
    pub bytes: u64,
    /// How long what is in KVS stays as a local recording.
    pub keep: Duration,
    /// How long what is not in KVS waits for it.
    pub backlog: Duration,
    pub policy: SpoolPolicy,
    /// How long records of what was proven stay.
    pub proofs: Duration,
    /// The file with the keys that footage is sealed with; read when the spool is opened. Absent: it is not sealed.
    pub key_file: Option<PathBuf>,
}

impl Spool {
    /// With every default.
    pub fn new(folder: impl Into<PathBuf>) -> Spool {
        Spool {
            folder: folder.into(),
            bytes: 8 << 30,
            keep: Duration::from_secs(24 * 3600),
            backlog: Duration::from_secs(168 * 3600),
            policy: SpoolPolicy::DropOldest,
            proofs: Duration::from_secs(90 * 24 * 3600),
            key_file: None,
        }
    }
}

/// What gives way when the spool is full of footage that is not in KVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolPolicy {
    DropOldest,
    StopRecording,
}

/// `[verify]` and `[camera.verify]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    pub mode: VerifyMode,
    pub sample_every: Duration,
    pub list_every: Duration,
    pub late_after: Duration,
    /// What samples and plays may read back in an hour; `continuous` reads everything.
    pub read_back_bytes_per_hour: u64,
    /// One fragment is read back, parsed and its key picture decoded so often, and after each change of format.
    pub play_every: Duration,
    pub play_by: PlayBy,
    /// A verdict that is bad for so long raises an alarm.
    pub alarm_after: Duration,
}

/// By which way a fragment is fetched to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayBy {
    /// A short GetMedia at the live edge.
    GetMedia,
    /// As a player on the web sees it; needs retention.
    Hls,
}

impl Default for Verify {
    fn default() -> Verify {
        Verify {
            mode: VerifyMode::Sampled,
            sample_every: Duration::from_secs(60),
            list_every: Duration::from_secs(60),
            late_after: Duration::from_secs(30),
            read_back_bytes_per_hour: 256 << 20,
            play_every: Duration::from_secs(600),
            play_by: PlayBy::GetMedia,
            alarm_after: Duration::from_secs(300),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyMode {
    /// One lasting GetMedia reads everything back.
    Continuous,
    /// One fragment each `sample_every` is read back, all are listed.
    Sampled,
    Off,
}

/// `[health]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Between two reports of box and cameras.
    pub interval: Duration,
}

impl Default for Health {
    fn default() -> Health {
        Health { interval: Duration::from_secs(10) }
    }
}

/// `[[camera]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// `[A-Za-z0-9_-]{1,48}`
    pub id: String,
    /// `rtsp://`, without credentials; of a KVS stream `kvs://MODE/STREAM`, which is for people alone.
    pub url: Url,
    /// Present: its pictures come out of its stream. They are looked at, and neither uploaded nor proven.
    pub kvs: Option<KvsSource>,
    /// Both or none.
    pub login: Option<Login>,
    pub transport: Transport,
    pub source: Source,
    pub audio: Audio,
    /// The KVS stream.
    pub stream: String,
    pub enabled: bool,
    /// For each step of the RTSP handshake.
    pub handshake: Duration,
    /// Without a picture for this long the session is given up.
    pub stall: Duration,
    pub upload: Upload,
    pub verify: Verify,
    /// Absent: this camera is only recorded. Never present without [`Config::detect`].
    pub detect: Option<CameraDetect>,
}

impl Camera {
    /// A camera with every default; its stream has its name.
    pub fn new(id: impl Into<String>, url: Url) -> Camera {
        let id = id.into();
        Camera {
            stream: id.clone(),
            id,
            url,
            kvs: None,
            login: None,
            transport: Transport::Tcp,
            source: Source::Camera,
            audio: Audio::Auto,
            enabled: true,
            handshake: Duration::from_secs(10),
            stall: Duration::from_secs(5),
            upload: Upload::default(),
            verify: Verify::default(),
            detect: None,
        }
    }
}

/// How a stream is read, with everything that belongs to it. It never gives up.
#[derive(Clone, Debug, PartialEq)]
pub enum KvsSource {
    /// Live, from the newest fragment on.
    GetMedia(kvs::read::follow::FollowConfig),
    /// What is archived, live or a range of time.
    Hls { config: kvs::read::hls::HlsConfig, play: kvs::read::hls::Play },
    /// What is archived in a range of time.
    FragmentList {
        config: kvs::read::fragment_list::FragmentListConfig,
        wanted: kvs::read::fragment_list::Wanted,
    },
}

impl KvsSource {
    pub fn mode(&self) -> KvsMode {
        match self {
            Self::GetMedia(_) => KvsMode::GetMedia,
            Self::Hls { .. } => KvsMode::Hls,
            Self::FragmentList { .. } => KvsMode::FragmentList,
        }
    }

    /// It has an end, and comes faster than it was filmed.
    pub fn is_range(&self) -> bool {
        match self {
            Self::GetMedia(_) => false,
            Self::Hls { play, .. } => *play != kvs::read::hls::Play::Live,
            Self::FragmentList { .. } => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvsMode {
    GetMedia,
    Hls,
    FragmentList,
}

impl KvsMode {
    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetMedia => "getmedia",
            Self::Hls => "hls",
            Self::FragmentList => "fragment_list",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    /// UDP, and TCP once the camera refuses that.
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Camera,
    /// Tolerates a new session id for each track and no RTP-Info; there is no camera clock.
    Go2rtc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audio {
    /// Taken when the camera offers a codec that KVS takes.
    Auto,
    Off,
}

/// What a file is checked against besides itself.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The file's name in messages.
    pub file: String,
    /// Relative paths in the file start here.
    pub folder: PathBuf,
    /// `$CREDENTIALS_DIRECTORY`, set by systemd.
    pub credentials: Option<PathBuf>,
    /// Content of `/etc/machine-id`.
    pub machine_id: Option<String>,
    pub hostname: Option<String>,
    /// `HTTPS_PROXY` and `NO_PROXY`, in either case: used where the file has no `[proxy]`.
    pub proxy: Option<String>,
    pub no_proxy: Option<String>,
    /// Where an installed detector is looked for.
    pub models: Vec<PathBuf>,
}

impl Environment {
    /// Of this process, for the configuration file at `path`.
    pub fn of(path: &Path) -> Environment {
        let variable = |names: [&str; 2]| {
            names.iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty())
        };
        let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Environment {
            file: path.display().to_string(),
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            machine_id: read("/etc/machine-id"),
            hostname: read("/proc/sys/kernel/hostname"),
            proxy: variable(["HTTPS_PROXY", "https_proxy"]),
            no_proxy: variable(["NO_PROXY", "no_proxy"]),
            models: models::folders(|name| {
                std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
            }),
        }
    }
}

/// Where the configuration is looked for unless told otherwise.
pub fn default_path() -> PathBuf {
    PathBuf::from("/etc/kvs-edge/kvs-edge.toml")
}

impl Config {
    /// Reads and checks the file at `path`; all errors at once.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let environment = Environment::of(path);
        match document::read_file(path) {
            Ok(bytes) => Config::parse(&bytes, &environment),
            Err(error) => Err(ConfigErrors {
                mistakes: vec![Mistake {
                    file: environment.file,
                    position: None,
                    key: String::new(),
                    found: format!("a file that cannot be read ({error})"),
                    expected: "a TOML file of at most 1 MiB".into(),
                    fix: "check path and permissions; `kvs-edge check --print-defaults` prints a complete example".into(),
                }],
                warnings: Vec::new(),
            }),
        }
    }

    /// Checks the bytes of a file. Reads the files that are named in it.
    pub fn parse(bytes: &[u8], environment: &Environment) -> Result<Config, ConfigErrors> {
        check::config(bytes, environment)
    }
}
