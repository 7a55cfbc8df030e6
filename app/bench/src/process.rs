//! The daemon from outside: which process it is, and what it takes of the machine. Linux only, from /proc.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One life of the daemon. A number may be given to another process later, number and start together are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) pid: u32,
    /// In clock ticks after the boot.
    start: u64,
}

/// Why there is no daemon to look at.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("no process {pid}; find the daemon's with `pgrep -a kvs-edge`, or leave --pid out")]
    NoSuchPid { pid: u32 },
    #[error("process {pid} is `{found}`, not `kvs-edge run`; correct --pid, or leave it out")]
    NotADaemon { pid: u32, found: String },
    #[error(
        "no process `kvs-edge run --config {}` found{}; start the daemon, or give its number with --pid",
        config.display(),
        others(other)
    )]
    None { config: PathBuf, other: Vec<u32> },
    #[error(
        "{} processes run with {}: {}; say which one with --pid, and stop the others: they share topics and streams",
        found.len(),
        config.display(),
        list(found)
    )]
    Several { config: PathBuf, found: Vec<u32> },
}

fn list(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn others(pids: &[u32]) -> String {
    if pids.is_empty() {
        return String::new();
    }
    format!(" (kvs-edge runs with another or an unreadable configuration as {})", list(pids))
}

/// What a command line says.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// The daemon with this configuration file, as it was written.
    Runs(PathBuf),
    Other,
}

/// The words of `/proc/PID/cmdline`, each ended by a zero byte.
fn role(command_line: &[u8]) -> Role {
    let mut words = command_line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let program = words.next().map(|word| Path::new(OsStr::from_bytes(word)));
    if program.and_then(Path::file_name) != Some(OsStr::new("kvs-edge")) {
        return Role::Other;
    }
    let (mut runs, mut config) = (false, None);
    while let Some(word) = words.next() {
        if word == b"run" {
            runs = true;
        } else if word == b"--config" {
            config = words.next();
        } else if let Some(value) = word.strip_prefix(b"--config=") {
            config = Some(value);
        }
    }
    if !runs {
        return Role::Other;
    }
    Role::Runs(config.map_or_else(config::default_path, |path| PathBuf::from(OsStr::from_bytes(path))))
}

/// The start of a process that lives, in clock ticks after the boot; proc_pid_stat(5): field 3 is the state (Z and X
/// are dead), field 22 the start; field 2, the name, may hold spaces and brackets.
fn start(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let state = fields.first()?;
    if ["Z", "X", "x"].contains(state) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn life(proc: &Path, pid: u32) -> Option<Daemon> {
    let stat = host::read(proc.join(pid.to_string()).join("stat"))?;
    Some(Daemon { pid, start: start(&stat)? })
}

/// Finds the daemon that runs with `config`. `proc` is `/proc`.
pub(crate) fn find(proc: &Path, config: &Path) -> Result<Daemon, FindError> {
    let wanted = config.canonicalize().unwrap_or_else(|_| config.to_owned());
    let (mut found, mut other) = (Vec::new(), Vec::new());
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let folder = proc.join(pid.to_string());
        let Ok(command_line) = std::fs::read(folder.join("cmdline")) else { continue };
        let Role::Runs(path) = role(&command_line) else { continue };
        let Some(daemon) = life(proc, pid) else { continue };
        // The folder of another user's process cannot be read; an absolute path does not need it.
        let folder = std::fs::read_link(folder.join("cwd")).unwrap_or_default();
        let path = folder.join(path);
        if path.canonicalize().unwrap_or(path) == wanted { found.push(daemon) } else { other.push(pid) }
    }
    found.sort_by_key(|daemon| daemon.pid);
    other.sort_unstable();
    match found[..] {
        [daemon] => Ok(daemon),
        [] => Err(FindError::None { config: config.to_owned(), other }),
        _ => Err(FindError::Several {
            config: config.to_owned(),
            found: found.iter().map(|daemon| daemon.pid).collect(),
        }),
    }
}

/// Takes the process `pid` if it is a daemon, whatever its configuration.
pub(crate) fn take(proc: &Path, pid: u32) -> Result<Daemon, FindError> {
    let Ok(command_line) = std::fs::read(proc.join(pid.to_string()).join("cmdline")) else {
        return Err(FindError::NoSuchPid { pid });
    };
    if role(&command_line) == Role::Other {
        let words = command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let found: String = words.collect::<Vec<_>>().join(" ");
        let found = found.trim().chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(FindError::NotADaemon { pid, found });
    }
    life(proc, pid).ok_or(FindError::NoSuchPid { pid })
}

/// What the process took, and what the machine did meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Taken {
    /// Percent of one core since the last sample; absent in the first.
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) rss_bytes: Option<u64>,
    /// All processes, percent of all cores.
    pub(crate) machine_cpu_percent: Option<f64>,
}

/// Samples one life of the daemon.
#[derive(Debug)]
pub(crate) struct Sampler {
    proc: PathBuf,
    pub(crate) daemon: Daemon,
    previous: Option<host::Ticks>,
}

impl Sampler {
    pub(crate) fn new(proc: &Path, daemon: Daemon) -> Sampler {
        Sampler { proc: proc.to_owned(), daemon, previous: None }
    }

    /// `None` once this life has ended.
    pub(crate) fn sample(&mut self) -> Option<Taken> {
        let folder = self.proc.join(self.daemon.pid.to_string());
        let own = host::read(folder.join("stat"))?;
        if start(&own)? != self.daemon.start {
            return None;
        }
        let mut taken = Taken::default();
        let ticks = host::read(self.proc.join("stat")).and_then(|stat| host::ticks(&stat, &own));
        if let Some((now, before)) = ticks.zip(self.previous) {
            (taken.machine_cpu_percent, taken.cpu_percent) = host::load(before, now);
        }
        self.previous = ticks;
        taken.rss_bytes = host::read(folder.join("status")).and_then(|status| host::kib(&status, "VmRSS"));
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A /proc of our own making.
    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Proc {
            Proc(tempfile::tempdir().expect("a folder"))
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn process(&self, pid: u32, words: &[&str], state: char, ticks: u64) {
            let folder = self.path().join(pid.to_string());
            std::fs::create_dir_all(&folder).expect("a folder");
            let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("a file");
            write("cmdline", words.iter().map(|word| format!("{word}\0")).collect());
            let stat = format!(
                "{pid} (kvs (edge) x) {state} 1 1 1 0 -1 4194560 900 0 0 0 {ticks} 2 0 0 20 0 9 0 {} 1000 200",
                u64::from(pid) * 10
            );
            write("stat", stat);
            write("status", "Name:\tkvs-edge\nVmRSS:\t    2048 kB\n".to_owned());
        }

        fn machine(&self, busy: u64, idle: u64) {
            let text = format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 0 0 1\ncpu1 1 0 0 1\nintr 1\n");
            std::fs::write(self.path().join("stat"), text).expect("a file");
        }
    }

    #[test]
    fn command_lines_are_read() {
        let check = |words: &[&str], expected: Option<&str>| {
            let line: String = words.iter().map(|word| format!("{word}\0")).collect();
            let expected = expected.map_or(Role::Other, |path| Role::Runs(path.into()));
            assert_eq!(role(line.as_bytes()), expected, "{words:?}");
        };
        check(&["/usr/bin/kvs-edge", "run"], Some("/etc/kvs-edge/kvs-edge.toml"));
        check(&["kvs-edge", "--log-json", "run", "--config", "a b.toml"], Some("a b.toml"));
        check(&["./kvs-edge", "run", "--config=/x.toml", "--log-json"], Some("/x.toml"));
        check(&["kvs-edge", "bench", "--config", "/x.toml"], None);
        check(&["kvs-edge", "check", "--config", "run"], None);
        check(&["vi", "kvs-edge", "run"], None);
        check(&["kvs-edge-other", "run"], None);
        check(&[], None);
    }

    #[test]
    fn the_daemon_of_a_configuration_is_found() {
        let proc = Proc::new();
        let config = proc.path().join("box.toml");
        std::fs::write(&config, "").expect("a file");
        let path = config.to_str().expect("a name");
        proc.process(7, &["kvs-edge", "run", "--config", path], 'S', 40);
        proc.process(8, &["kvs-edge", "run", "--config", "/elsewhere.toml"], 'S', 40);
        proc.process(9, &["kvs-edge", "bench", "--config", path], 'R', 40);
        proc.process(10, &["kvs-edge", "run", "--config", path], 'Z', 40);
        assert_eq!(find(proc.path(), &config).expect("found"), Daemon { pid: 7, start: 70 });
        // Relative to the folder in which it was started.
        std::os::unix::fs::symlink(proc.path(), proc.path().join("8/cwd")).expect("a link");
        proc.process(8, &["kvs-edge", "run", "--config", "box.toml"], 'S', 40);
        let error = find(proc.path(), &config).expect_err("two").to_string();
        assert!(error.starts_with("2 processes run with "), "{error}");
        assert!(error.contains(": 7, 8; say which one with --pid"), "{error}");
        assert_eq!(take(proc.path(), 8).expect("this one"), Daemon { pid: 8, start: 80 });
    }

    #[test]
    fn no_daemon_is_an_error_that_names_the_others() {
        let proc = Proc::new();
        let config = Path::new("/nowhere/box.toml");
        let error = find(proc.path(), config).expect_err("none").to_string();
        let expected = "no process `kvs-edge run --config /nowhere/box.toml` found; start the daemon, or give its \
                        number with --pid";
        assert_eq!(error, expected);
        proc.process(8, &["kvs-edge", "run"], 'S', 40);
        let error = find(proc.path(), config).expect_err("none").to_string();
        assert!(
            error.contains("(kvs-edge runs with another or an unreadable configuration as 8)"),
            "{error}"
        );
        let error = take(proc.path(), 5).expect_err("absent").to_string();
        assert!(error.starts_with("no process 5;"), "{error}");
        proc.process(5, &["sleep", "60"], 'S', 1);
        let error = take(proc.path(), 5).expect_err("not ours").to_string();
        assert!(error.starts_with("process 5 is `sleep 60`, not `kvs-edge run`"), "{error}");
    }

    #[test]
    fn load_is_between_two_samples_of_one_life() {
        let proc = Proc::new();
        let daemon = ["kvs-edge", "run"];
        proc.process(7, &daemon, 'S', 40);
        proc.machine(1000, 1000);
        let mut sampler = Sampler::new(proc.path(), take(proc.path(), 7).expect("a daemon"));
        let first = sampler.sample().expect("it lives");
        assert_eq!(first, Taken { rss_bytes: Some(2 << 20), ..Taken::default() });
        proc.process(7, &daemon, 'S', 90);
        proc.machine(1050, 1150);
        let second = sampler.sample().expect("it lives");
        assert_eq!((second.cpu_percent, second.machine_cpu_percent), (Some(50.0), Some(25.0)));
        proc.process(7, &daemon, 'Z', 90);
        assert_eq!(sampler.sample(), None);
        // Another process got the number.
        proc.process(7, &daemon, 'S', 0);
        sampler.daemon.start += 1;
        assert_eq!(sampler.sample(), None);
        std::fs::write(proc.path().join("7/stat"), "7 (kvs").expect("a file");
        assert_eq!(sampler.sample(), None);
    }

    #[test]
    fn this_process_can_be_sampled() {
        let proc = Path::new("/proc");
        let daemon = life(proc, std::process::id()).expect("we live");
        let taken = Sampler::new(proc, daemon).sample().expect("we live");
        assert!(taken.rss_bytes.is_some_and(|bytes| bytes > 100_000), "{taken:?}");
    }
}
