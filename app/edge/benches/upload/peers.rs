//! Other programs that pull the same feeds.

use std::process::{Child, Command, Stdio};

use crate::measured::{Error, Process};

/// A program that is ended with this value.
pub(crate) struct Peer {
    child: Child,
    pub(crate) process: Process,
}

impl Peer {
    /// `ffmpeg -c copy` into nothing.
    pub(crate) fn ffmpeg(url: &str) -> Result<Self, Error> {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", url]);
        command.args(["-c", "copy", "-f", "null", "-"]);
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self, Error> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let program = command.get_program().display();
        let child = child.map_err(|error| format!("{program}: {error}"))?;
        let process = Process::begun(child.id());
        Ok(Self { child, process })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
