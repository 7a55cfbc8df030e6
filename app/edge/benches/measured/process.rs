//! What Linux says about a process that is measured.

use std::time::Instant;

use super::Error;

/// USER_HZ: the unit of times in /proc, the same on every architecture that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that began a moment ago.
pub(crate) struct Process {
    pid: u32,
    started: Instant,
}

/// CPU time from a process's start to a moment.
pub(crate) struct Used {
    cpu_s: f64,
    wall_s: f64,
}

#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident_mib: f64,
    pub(crate) peak_mib: f64,
}

impl Process {
    pub(crate) fn begun(pid: u32) -> Self {
        Self { pid, started: clock::Clock::system().now() }
    }

    /// User and system time of all its threads, also of those that have ended; to 10 ms.
    #[expect(clippy::cast_precision_loss, reason = "processor time of minutes")]
    pub(crate) fn used(&self) -> Result<Used, Error> {
        let ticks = host::process_ticks(&self.read("stat")?);
        let ticks = ticks.ok_or_else(|| format!("process {} ended too early", self.pid))?;
        Ok(Used {
            cpu_s: ticks as f64 / TICKS_PER_SECOND,
            wall_s: clock::Clock::system().since(self.started).as_secs_f64(),
        })
    }

    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        let status = self.read("status")?;
        #[expect(clippy::cast_precision_loss, reason = "memory of a process")]
        let mib = |key: &str| {
            let bytes =
                host::kib(&status, key).ok_or_else(|| format!("process {} ended too early", self.pid));
            bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
        };
        Ok(Memory { resident_mib: mib("VmRSS")?, peak_mib: mib("VmHWM")? })
    }

    fn read(&self, name: &str) -> Result<String, Error> {
        let text = host::read(format!("/proc/{}/{name}", self.pid));
        Ok(text.ok_or_else(|| format!("process {} ended too early", self.pid))?)
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
