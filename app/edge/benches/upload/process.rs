//! Children and what Linux says about them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// USER_HZ: the unit of times in /proc, the same on every architecture that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// A child that ends with this value.
pub(crate) struct Child {
    child: std::process::Child,
    started: Instant,
}

/// CPU time from a child's start to a moment.
pub(crate) struct Used {
    cpu_s: f64,
    wall_s: f64,
}

#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident_mib: f64,
    pub(crate) peak_mib: f64,
}

impl Child {
    /// Its standard output, on which it says at the end what was detected, goes to `output`.
    pub(crate) fn daemon(program: &Path, config: &Path, output: impl Into<Stdio>) -> Result<Self, Error> {
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(config).env("RUST_LOG", "warn,rumqttd=error");
        Self::spawn(command, output.into())
    }

    pub(crate) fn ffmpeg(url: &str) -> Result<Self, Error> {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", url]);
        command.args(["-c", "copy", "-f", "null", "-"]);
        Self::spawn(command, Stdio::null())
    }

    fn spawn(mut command: Command, output: Stdio) -> Result<Self, Error> {
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(output).spawn();
        let program = command.get_program().display();
        Ok(Self { child: child.map_err(|error| format!("{program}: {error}"))?, started })
    }

    /// User and system time of all its threads, also of those that have ended; to 10 ms.
    pub(crate) fn used(&mut self) -> Result<Used, Error> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("a child ended too early: {status}").into());
        }
        let stat = std::fs::read_to_string(self.file("stat"))?;
        // proc_pid_stat(5): the name in parentheses is field 2, utime and stime are 14 and 15.
        let fields: Vec<_> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |field: usize| {
            fields.get(field - 3).ok_or("a short /proc/PID/stat")?.parse::<f64>().map_err(Error::from)
        };
        Ok(Used {
            cpu_s: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            wall_s: self.started.elapsed().as_secs_f64(),
        })
    }

    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        let status = std::fs::read_to_string(self.file("status"))?;
        let mib = |key: &str| -> Result<f64, Error> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
            let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
            Ok(kib / 1024.0)
        };
        Ok(Memory { resident_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")? })
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.child.id())
    }

    /// Asks it to end in order (SIGTERM) and waits for that.
    pub(crate) async fn stop(mut self, limit: Duration) -> Result<(), Error> {
        let asked = Instant::now();
        // Without unsafe code, the tool of every system sends the signal.
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        while asked.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(format!("a child ended with {status}").into())
                };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("a child does not end within {limit:?}").into())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Used {
    /// Percent of one core over the whole life of the process.
    pub(crate) fn percent(&self) -> f64 {
        100.0 * self.cpu_s / self.wall_s
    }

    /// The same in the time between two moments.
    pub(crate) fn percent_since(&self, begin: &Used) -> f64 {
        100.0 * (self.cpu_s - begin.cpu_s) / (self.wall_s - begin.wall_s)
    }
}
