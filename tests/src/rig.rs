//! All peers of one daemon, and the daemon.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use camera_sim::{AuthKind, CameraSim, CameraStats, Clip, ClipSpec, Codec, FaultPlan, Faults};
use kvs_local::{Credentials, KvsLocal, Options};
use messages::{CameraState, OFFLINE, ONLINE, Status, Topics, Upload, UploadState};

use crate::broker::Mosquitto;
use crate::cloud::{Kvs, KvsProcess, REGION, documents};
use crate::observer::Observer;
use crate::process::{Process, binary, decode_errors};
use crate::within;

const DEVICE: &str = "box";

/// One `[[camera]]` of the configuration, simulated unless it has a URL of its own.
#[derive(Clone)]
pub struct Camera {
    id: String,
    clip: ClipSpec,
    plan: FaultPlan,
    auth: Option<(String, String, AuthKind)>,
    url: Option<String>,
    query: String,
    settings: Vec<(String, String)>,
}

impl Camera {
    /// A simulated camera with [`small_clip`].
    pub fn new(id: &str) -> Camera {
        Camera {
            id: id.to_owned(),
            clip: small_clip(),
            plan: FaultPlan::default(),
            auth: None,
            url: None,
            query: String::new(),
            settings: Vec::new(),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// A camera that is not simulated here.
    pub fn at(id: &str, url: impl Into<String>) -> Camera {
        Camera { url: Some(url.into()), ..Camera::new(id) }
    }

    /// A camera that is the stream of another one, read by `source`: `getmedia`, `hls`.
    pub fn of_stream(id: &str, source: &str, stream: &str) -> Camera {
        let quoted = |text: &str| format!("{text:?}");
        Camera::at(id, "").set("source", &quoted(source)).set("stream", &quoted(stream))
    }

    #[must_use]
    pub fn clip(mut self, change: impl FnOnce(&mut ClipSpec)) -> Camera {
        change(&mut self.clip);
        self
    }

    #[must_use]
    pub fn h265(self) -> Camera {
        self.clip(|clip| clip.codec = Codec::H265)
    }

    /// Faults from the start; they can be changed by [`Rig::faults`].
    #[must_use]
    pub fn faults(mut self, change: impl FnOnce(&mut FaultPlan)) -> Camera {
        change(&mut self.plan);
        self
    }

    /// Faults in the URL, for good: `no_sr&drop=0.01`.
    #[must_use]
    pub fn query(mut self, query: &str) -> Camera {
        self.query = query.to_owned();
        self
    }

    /// The camera demands this login. The configuration has its own, by [`Camera::set`].
    #[must_use]
    pub fn login(mut self, user: &str, password: &str, kind: AuthKind) -> Camera {
        self.auth = Some((user.to_owned(), password.to_owned(), kind));
        self
    }

    /// A key of `[[camera]]`, dotted for its tables, with a TOML value: `set("timeouts.stall_s", "1")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Camera {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// 320x180, 10 fps, a random access point each second, loop of 4 s.
pub fn small_clip() -> ClipSpec {
    ClipSpec { height: 180, bitrate_kbps: 300, ..ClipSpec::small() }
}

/// Encoded clips of all tests, kept from run to run.
pub fn clip_cache() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    test.ancestors().nth(3).expect("target/PROFILE/deps/TEST").join("tmp").join("clips")
}

type ChangeOptions = Box<dyn FnOnce(&mut Options) + Send>;

#[must_use]
pub struct RigBuilder {
    cameras: Vec<Camera>,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    shell: Option<String>,
    files: Vec<(String, String)>,
    kvs: KvsKind,
    daemon: bool,
}

enum KvsKind {
    Local(Vec<ChangeOptions>),
    Process(Vec<String>),
}

impl RigBuilder {
    pub fn camera(mut self, camera: Camera) -> Self {
        self.cameras.push(camera);
        self
    }

    /// A key of the configuration, dotted, with a TOML value; the last word counts: `set("aws.region", "\"x\"")`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A file with mode 0600 beside the configuration, for passwords and keys.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Options of the kvs-local in this process. It has one stream for each camera, named like it.
    pub fn kvs(mut self, change: impl FnOnce(&mut Options) + Send + 'static) -> Self {
        match &mut self.kvs {
            KvsKind::Local(changes) => changes.push(Box::new(change)),
            KvsKind::Process(_) => self.kvs = KvsKind::Local(vec![Box::new(change)]),
        }
        self
    }

    /// kvs-local as a process of its own, with further arguments.
    pub fn kvs_process(mut self, arguments: &[&str]) -> Self {
        self.kvs = KvsKind::Process(arguments.iter().map(|&text| text.to_owned()).collect());
        self
    }

    /// A variable in the daemon's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The daemon is started by this script of a shell: `$0` is the program, `$@` are its arguments.
    pub fn through_a_shell(mut self, script: &str) -> Self {
        self.shell = Some(script.to_owned());
        self
    }

    /// Further arguments of the daemon's command line; it runs in [`Rig::folder`].
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&text| text.to_owned()));
        self
    }

    /// The daemon is started by the test, with [`Rig::start_daemon`].
    pub fn without_daemon(mut self) -> Self {
        self.daemon = false;
        self
    }

    /// Starts everything. `None`, and a word to stderr, where Mosquitto is not installed.
    pub async fn start(self) -> Option<Rig> {
        let folder = tempfile::Builder::new().prefix("kvs-edge-test-").tempdir().expect("a temporary folder");
        let broker = Mosquitto::start(folder.path()).await?;
        let mqtt = Observer::start(broker.port, Topics::new("kvs-edge", DEVICE)).await;
        let mut cameras = Vec::new();
        for camera in self.cameras {
            let sim = match camera.url {
                Some(_) => None,
                None => Some(simulate(&camera).await),
            };
            cameras.push(Placed { camera, sim });
        }
        let names = cameras.iter().map(|placed| placed.camera.id.clone());
        let data = folder.path().join("kvs");
        let kvs = match self.kvs {
            KvsKind::Local(changes) => {
                let mut options = names.fold(Options::new(data), |options, name| options.stream(name, 24));
                REGION.clone_into(&mut options.region);
                changes.into_iter().for_each(|change| change(&mut options));
                Kvs::Local(KvsLocal::start(options).await.expect("kvs-local starts"))
            }
            KvsKind::Process(mut arguments) => {
                arguments.extend(names.flat_map(|name| ["--create".to_owned(), name]));
                Kvs::Process(KvsProcess::start(&data, arguments).await)
            }
        };
        for (name, text) in &self.files {
            write_secret(&folder.path().join(name), text);
        }
        let (settings, environment, arguments) = (self.settings, self.environment, self.arguments);
        let (daemon, shell) = (None, self.shell);
        let mut rig =
            Rig { mqtt, daemon, cameras, kvs, broker, folder, settings, environment, arguments, shell };
        rig.write_config();
        if self.daemon {
            rig.start_daemon().await;
        }
        Some(rig)
    }
}

async fn simulate(camera: &Camera) -> CameraSim {
    let builder = CameraSim::builder().clip(camera.clip.clone()).cache_dir(clip_cache());
    let mut builder = builder.faults(camera.plan.clone());
    if let Some((user, password, kind)) = &camera.auth {
        builder = builder.auth(user, password, *kind);
    }
    builder.start().await.unwrap_or_else(|error| panic!("camera {}: {error}", camera.id))
}

struct Placed {
    camera: Camera,
    sim: Option<CameraSim>,
}

/// A daemon and its surroundings. Dropped, everything is gone.
pub struct Rig {
    pub mqtt: Observer,
    /// `None` before its start.
    pub daemon: Option<Process>,
    cameras: Vec<Placed>,
    pub kvs: Kvs,
    pub broker: Mosquitto,
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    shell: Option<String>,
}

/// Methods that take a camera's id panic when there is no such camera.
impl Rig {
    /// Continuous verification, health each second, fragments of one second.
    pub fn builder() -> RigBuilder {
        RigBuilder {
            cameras: Vec::new(),
            settings: Vec::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            shell: None,
            files: Vec::new(),
            kvs: KvsKind::Local(Vec::new()),
            daemon: true,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("kvs-edge.toml")
    }

    /// The simulator of a camera; `None` for one that is not simulated.
    pub fn sim(&self, camera: &str) -> Option<&CameraSim> {
        self.placed(camera).sim.as_ref()
    }

    /// The faults of a simulated camera.
    pub fn faults(&self, camera: &str) -> Faults {
        self.sim(camera).expect("a simulated camera").faults(0)
    }

    pub(crate) fn stream_of(&self, camera: &str) -> String {
        let settings = &self.placed(camera).camera.settings;
        let stream = settings.iter().rfind(|(key, _)| key == "stream");
        stream.map_or_else(|| camera.to_owned(), |(_, value)| value.trim_matches('"').to_owned())
    }

    /// The clip that a simulated camera plays after [`camera_sim::Fault::SwitchParameters`], when it ever did.
    pub(crate) async fn other_clip(&self, camera: &str) -> Option<Arc<Clip>> {
        let sim = self.sim(camera)?;
        if !sim.stats(0).sent.iter().any(|sent| sent.switched) {
            return None;
        }
        Some(sim.preload(&sim.clip(0).spec().switched()).await.expect("it was made before"))
    }

    fn placed(&self, camera: &str) -> &Placed {
        let found = self.cameras.iter().find(|placed| placed.camera.id == camera);
        found.unwrap_or_else(|| panic!("this rig has no camera {camera}"))
    }

    /// Changes a key of the configuration file; the daemon reads it at its next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
        self.write_config();
    }

    fn write_config(&self) {
        let keys = Credentials::local();
        write_secret(&self.folder.path().join("aws-key-id"), &keys.access_key);
        write_secret(&self.folder.path().join("aws-secret"), &keys.secret_key);
        let quoted = |text: &str| format!("{text:?}");
        let mut settings: Vec<(String, String)> = [
            ("device.id", quoted(DEVICE)),
            ("aws.region", quoted(REGION)),
            ("aws.endpoint", quoted(&self.kvs.endpoint())),
            ("aws.access_key_id_file", quoted("aws-key-id")),
            ("aws.secret_access_key_file", quoted("aws-secret")),
            ("mqtt.host", quoted("127.0.0.1")),
            ("mqtt.port", self.broker.port.to_string()),
            ("upload.fragment_ms", "1000".to_owned()),
            // A stop waits only as long as it has to: on a busy machine, longer.
            ("upload.stop_grace_s", "60".to_owned()),
            ("verify.mode", quoted("continuous")),
            ("health.interval_s", "1".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        settings.extend(self.settings.iter().cloned());
        // The one that knows what the simulated cameras show.
        let detects = settings.iter().any(|(key, _)| key.starts_with("detect."));
        if detects && !settings.iter().any(|(key, _)| key.starts_with("detect.model")) {
            settings.push(("detect.model".to_owned(), quoted("scene")));
        }
        let mut text = lines(&settings);
        for Placed { camera, sim } in &self.cameras {
            let url = sim.as_ref().map(|sim| sim.url(0)).or(camera.url.clone()).unwrap_or_default();
            let query = if camera.query.is_empty() { String::new() } else { format!("?{}", camera.query) };
            let _ = write!(text, "\n[[camera]]\nid = {:?}\n", camera.id);
            if !url.is_empty() {
                let _ = writeln!(text, "url = \"{url}{query}\"");
            }
            text.push_str(&lines(&camera.settings));
        }
        std::fs::write(self.config_file(), text).expect("the rig's folder can be written to");
    }

    /// Starts the daemon and waits until it is on MQTT (if it is to be there).
    pub async fn start_daemon(&mut self) {
        let mark = self.mqtt.mark();
        self.spawn_daemon();
        let daemon = self.daemon.as_ref().expect("just started");
        let topic = self.mqtt.topics.availability();
        tokio::select! {
            () = self.mqtt.wait_text(mark, &topic, ONLINE) => {}
            status = daemon.ended() => panic!("the daemon ended at once: {status}: {:#?}", daemon.output()),
        }
    }

    /// A variable for the daemon that is started next.
    pub fn in_daemons_environment(&mut self, name: &str, value: impl Into<std::ffi::OsString>) {
        let value = value.into().into_string().expect("what tests set is text");
        self.environment.push((name.to_owned(), value));
    }

    /// Starts the daemon and does not wait for anything.
    pub fn spawn_daemon(&mut self) {
        let program = binary("kvs-edge");
        let mut command = match &self.shell {
            Some(script) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(script).arg(program);
                shell
            }
            None => Command::new(program),
        };
        command.arg("run").arg("--config").arg(self.config_file()).args(&self.arguments);
        command.current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("AWS_")
                || ["NOTIFY_SOCKET", "JOURNAL_STREAM", "RUST_LOG", "ORT_DYLIB_PATH"].contains(&&*name)
            {
                command.env_remove(&*name);
            }
        }
        command.env("RUST_LOG", "info").env("RUST_BACKTRACE", "1");
        // What is installed on this machine is no part of a test.
        command.env("KVS_EDGE_MODELS", self.folder.path().join("models"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.daemon = Some(Process::spawn("kvs-edge", &mut command));
    }

    /// # Panics
    /// Before the daemon's start.
    pub fn daemon(&self) -> &Process {
        self.daemon.as_ref().expect("the daemon was started")
    }

    /// The first status of a camera after `mark` that pleases.
    pub async fn status(&self, mark: usize, camera: &str, pleases: impl FnMut(&Status) -> bool) -> Status {
        self.mqtt.wait_after(mark, &self.mqtt.topics.status(camera), pleases).await
    }

    /// Waits until a camera is online.
    pub async fn online(&self, camera: &str) -> Status {
        self.status(0, camera, |status| status.state == CameraState::Online).await
    }

    /// Waits until so many fragments of a camera are stored, all in all. In-process kvs-local only.
    pub async fn fragments(&self, camera: &str, count: usize) {
        let local = self.kvs.local();
        let stream = self.stream_of(camera);
        let mut changes = local.changes(&stream).expect("the rig made the stream");
        let enough = async {
            loop {
                changes.borrow_and_update();
                if local.fragments(&stream).await.expect("it can be read").len() >= count {
                    return;
                }
                changes.changed().await.expect("the server lives");
            }
        };
        within(&format!("{count} stored fragments of {camera}"), enough).await;
    }

    /// Waits until a simulated camera has just sent a random access point, so that the next one is a whole GOP away.
    pub async fn key_picture(&self, camera: &str) {
        let sim = self.sim(camera).expect("a simulated camera");
        let mut seen = sim.stats(0).pictures;
        let is_key = |stats: &CameraStats| {
            let new = stats.pictures > std::mem::replace(&mut seen, stats.pictures);
            new && stats.sent.back().is_some_and(|sent| sim.clip(0).access_unit(sent.index).random_access)
        };
        within(&format!("random access point of {camera}"), sim.wait_stats(0, is_key)).await;
    }

    /// What ffmpeg says against what GetMedia gives back; nothing where there is no ffmpeg.
    pub async fn decode_errors(&self, camera: &str) -> String {
        let media = self.kvs.get_media(&self.stream_of(camera)).await;
        documents(&media).iter().filter_map(|document| decode_errors(document)).collect()
    }

    /// Waits for so many more fragments than there are now.
    pub async fn more_fragments(&self, camera: &str, count: usize) {
        let now = self.kvs.local().fragments(&self.stream_of(camera)).await.expect("it can be read").len();
        self.fragments(camera, now + count).await;
    }

    /// Waits until a camera's backlog is sent: KVS takes 5 fragments a second, and a stop waits for its grace only.
    pub async fn caught_up(&self, camera: &str) {
        let sent = |upload: &Upload| upload.state == UploadState::Sending && upload.backlog_s < 3.0;
        let _: Upload = self.mqtt.wait_after(self.mqtt.mark(), &self.mqtt.topics.upload(camera), sent).await;
    }

    /// SIGTERM; the daemon says `offline` and exits with 0.
    pub async fn stop(&self) {
        let mark = self.mqtt.mark();
        self.daemon().signal("TERM");
        let status = self.daemon().ended().await;
        assert!(status.success(), "the daemon ended with {status}");
        self.mqtt.wait_text(mark, &self.mqtt.topics.availability(), OFFLINE).await;
    }
}

/// TOML lines; a later value of a key replaces an earlier one.
fn lines(settings: &[(String, String)]) -> String {
    let mut text = String::new();
    for (place, (key, value)) in settings.iter().enumerate() {
        let again = settings.iter().skip(place + 1).any(|(later, _)| later == key);
        if !again {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    text
}

fn write_secret(path: &Path, secret: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(secret.as_bytes())).expect("the rig's folder can be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_a_key_counts() {
        let settings = [("a.b", "1"), ("c", "2"), ("a.b", "3")];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(lines(&settings), "c = 2\na.b = 3\n");
    }
}
