//! What Linux says of a process.

use crate::Error;

/// USER_HZ: the unit of times in /proc, the same on every architecture that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) struct Process(String);

impl Process {
    pub(crate) fn of(pid: u32) -> Self {
        Self(format!("/proc/{pid}"))
    }

    pub(crate) fn own() -> Self {
        Self("/proc/self".to_owned())
    }

    /// User and system time of all its threads, from its start, to 10 ms.
    pub(crate) fn cpu_s(&self) -> Result<f64, Error> {
        let stat = std::fs::read_to_string(format!("{}/stat", self.0))?;
        // The name in brackets may hold anything; times are the 14th and 15th field.
        let behind = stat.rsplit_once(')').ok_or("a stat without a name")?.1;
        let ticks = behind.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.map(|ticks| ticks.parse::<f64>()).sum::<Result<f64, _>>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }

    pub(crate) fn resident_mib(&self) -> Result<f64, Error> {
        self.mib("VmRSS:")
    }

    pub(crate) fn peak_mib(&self) -> Result<f64, Error> {
        self.mib("VmHWM:")
    }

    fn mib(&self, key: &str) -> Result<f64, Error> {
        let status = std::fs::read_to_string(format!("{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("it has ended")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1_024.0)
    }
}
