//! `kvs-edge run` as a child process, in a process group of its own: Ctrl-C in the terminal reaches us alone, and we ask
//! the daemon to stop as a service manager would.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A daemon that is killed when this is dropped.
pub struct Daemon {
    child: Child,
    pid: u32,
}

/// Why a daemon is not there, or did not end as asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{} does not start: {source}", program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("{} cannot be written: {source}", log.display())]
    Log { log: PathBuf, source: std::io::Error },
    #[error("the daemon (process {pid}) cannot be waited for: {source}")]
    Wait { pid: u32, source: std::io::Error },
    #[error("the daemon (process {pid}) did not end in time after SIGTERM and was killed")]
    Killed { pid: u32 },
    #[error("the daemon (process {pid}) ended with {status}")]
    Failed { pid: u32, status: ExitStatus },
}

impl Daemon {
    /// Starts `program run --config CONFIG` with `arguments` behind that; what it prints goes into `log`.
    pub fn start(
        program: &Path,
        config: &Path,
        arguments: &[String],
        log: &Path,
    ) -> Result<Self, DaemonError> {
        let file = File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = file.map_err(|source| DaemonError::Log { log: log.to_owned(), source })?;
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(config).args(arguments);
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).kill_on_drop(true);
        let failed = |source| DaemonError::Start { program: program.to_owned(), source };
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().expect("it was not waited for yet");
        Ok(Self { child, pid })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has ended by itself; can be dropped and called again.
    pub async fn ended(&mut self) -> Result<ExitStatus, DaemonError> {
        let pid = self.pid;
        self.child.wait().await.map_err(|source| DaemonError::Wait { pid, source })
    }

    /// Sends SIGTERM: it completes its last fragments, publishes its last figures and ends. At a second one it waits for
    /// nobody.
    pub fn terminate(&self) {
        // Until it was waited for, the number is its own.
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!(%error, pid = self.pid, "SIGTERM was not sent");
        }
    }

    /// Waits for its exit code after [`terminate`](Self::terminate); kills it after `limit`.
    pub async fn finish(&mut self, limit: Duration) -> Result<(), DaemonError> {
        let Ok(status) = timeout(limit, self.ended()).await else {
            let _ = self.child.kill().await;
            return Err(DaemonError::Killed { pid: self.pid });
        };
        let (pid, status) = (self.pid, status?);
        if status.success() { Ok(()) } else { Err(DaemonError::Failed { pid, status }) }
    }
}

/// The last `lines` of what a daemon printed into `log`.
pub fn last_lines(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
