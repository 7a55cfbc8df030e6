//! Child processes: their output is kept and shown when a test fails, and they never outlive it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::within;

/// Lines printed of a process when a test fails.
const PRINTED: usize = 150;

/// A running child. Dropped, it is killed; dropped by a failing test, it shows its last words.
pub struct Process {
    name: String,
    pid: u32,
    lines: Arc<Mutex<Vec<Line>>>,
    changed: watch::Receiver<usize>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

#[derive(Clone)]
struct Line {
    stdout: bool,
    text: String,
}

impl Process {
    /// `name` is for messages.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (count, changed) = watch::channel(0);
        let count = Arc::new(count);
        let outputs: [(bool, Box<dyn Read + Send>); 2] = [
            (true, Box::new(child.stdout.take().expect("piped"))),
            (false, Box::new(child.stderr.take().expect("piped"))),
        ];
        let mut readers = Vec::new();
        for (stdout, output) in outputs {
            let (lines, count) = (lines.clone(), count.clone());
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    let line = Line { stdout, text: String::from_utf8_lossy(&line).into_owned() };
                    lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    count.send_modify(|count| *count += 1);
                }
            }));
        }
        let (ended, exit) = watch::channel(None);
        let pid = child.id();
        std::thread::spawn(move || {
            let status = child.wait().ok();
            // All that it said is there before its end is known.
            for reader in readers {
                let _ = reader.join();
            }
            ended.send_replace(status);
        });
        Process { name: name.to_owned(), pid, lines, changed, exit }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends `TERM`, `KILL`, `STOP`, ...; nothing once the process has ended.
    pub fn signal(&self, signal: &str) {
        if self.is_running() {
            let _ = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {}", self.pid)]).status();
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not end within the deadline.
    pub async fn ended(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = within(&format!("end of {}", self.name), exit.wait_for(Option::is_some)).await;
        status.ok().and_then(|status| *status).expect("the thread that waits reports a status")
    }

    /// Everything that it wrote so far, both outputs.
    pub fn output(&self) -> Vec<String> {
        self.lines(|_| true)
    }

    /// What it wrote so far to standard output, without the log.
    pub fn stdout(&self) -> Vec<String> {
        self.lines(|line| line.stdout)
    }

    fn lines(&self, wanted: impl Fn(&Line) -> bool) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| wanted(line)).map(|line| line.text.clone()).collect()
    }

    /// The first line, written already or later, that holds `text`.
    ///
    /// # Panics
    /// When there is none within the deadline, or the process ends without it.
    pub async fn line(&self, text: &str) -> String {
        self.line_after(0, text).await
    }

    /// The same, from line number `from` on.
    pub async fn line_after(&self, from: usize, text: &str) -> String {
        let found = async {
            let (mut changed, mut exit) = (self.changed.clone(), self.exit.clone());
            loop {
                changed.borrow_and_update();
                let over = exit.borrow_and_update().is_some();
                let line = self.output().into_iter().skip(from).find(|line| line.contains(text));
                if line.is_some() || over {
                    return line;
                }
                tokio::select! {
                    _ = changed.changed() => {}
                    _ = exit.changed() => {}
                }
            }
        };
        let line = within(&format!("{} saying {text:?}", self.name), found).await;
        line.unwrap_or_else(|| panic!("{} ended without saying {text:?}: {:#?}", self.name, self.output()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("KILL");
        if std::thread::panicking() {
            let lines = self.output();
            eprintln!("---- {} wrote {} lines, the last of them:", self.name, lines.len());
            for line in &lines[lines.len().saturating_sub(PRINTED)..] {
                eprintln!("     {line}");
            }
        }
    }
}

/// One of our own programs, as built beside the test.
///
/// # Panics
/// When it is not there.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let path = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join(name);
    assert!(path.exists(), "{} is missing: run cargo xtask test, or cargo build -p {name}", path.display());
    path
}

/// A program of the system; `None`, and a word to stderr, where it is not installed.
///
/// # Panics
/// When it is not installed and `KVS_EDGE_TEST_REQUIRE_PEERS` is set.
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin"];
    let found = folders.iter().map(|folder| PathBuf::from(folder).join(name)).find(|path| path.exists());
    if found.is_none() {
        skip(&format!("no {name} here; install the Debian package {package}"));
    }
    found
}

/// Says that a test does nothing, and why.
///
/// # Panics
/// When `KVS_EDGE_TEST_REQUIRE_PEERS` is set: a test whose peer is missing has not passed.
pub fn skip(why: &str) {
    let required = std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_some();
    assert!(!required, "required, but missing: {why}");
    eprintln!("skipped: {why}");
}

/// Whether `cargo xtask test` was asked for `--peers` or `--full`; says so when not.
pub fn asked_for(flag: &str) -> bool {
    let name = format!("KVS_EDGE_TEST_{}", flag.trim_start_matches("--").to_uppercase());
    let asked = std::env::var_os(name).is_some();
    if !asked {
        eprintln!("skipped: part of cargo xtask test {flag}");
    }
    asked
}

/// What ffmpeg has to complain about when it decodes `media`; `None` where ffmpeg is not installed.
pub fn decode_errors(media: &[u8]) -> Option<String> {
    use std::io::Write;
    let ffmpeg = program("ffmpeg", "ffmpeg")?;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(media).expect("written");
    let output = Command::new(ffmpeg)
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(file.path())
        // Times as they are: the default rounds them to a frame rate, and complains of the result.
        .args(["-map", "0", "-fps_mode", "passthrough", "-enc_time_base:v", "1:1000", "-f", "null", "-"])
        .output()
        .expect("ffmpeg starts");
    let text = String::from_utf8_lossy(&output.stderr);
    // What ffmpeg says at each further document of a GetMedia answer, whose segments have no known size; it reads on.
    let text: Vec<_> =
        text.lines().filter(|line| !line.contains("unknown-length element with ID 0x18538067")).collect();
    let text = text.join("\n");
    Some(if output.status.success() { text } else { format!("{}\n{text}", output.status) })
}
