//! The machine under the daemon: load for the health report, identity for the info message. Linux only, from /proc and
//! /sys; what cannot be read is absent.
//!
//! Free disk space is not here: nothing is kept on disk yet, and asking for it takes more than reading a file.

use std::path::Path;
use std::time::Duration;

use clock::Clock;
use messages::{HostHealth, UtcTime};

/// Takes samples; processor load is between one sample and the next.
#[derive(Debug, Default)]
pub struct Sampler {
    previous: Option<Ticks>,
}

/// Processor time since boot, in clock ticks over all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    total: u64,
    idle: u64,
    process: u64,
    cores: u64,
}

impl Sampler {
    /// The first sample has no processor load.
    pub fn sample(&mut self) -> HostHealth {
        let stat = read("/proc/stat");
        let own = read("/proc/self/stat");
        let ticks = stat.zip(own).and_then(|(stat, own)| ticks(&stat, &own));
        let mut health = HostHealth::default();
        if let Some((now, before)) = ticks.zip(self.previous) {
            (health.cpu_percent, health.process_cpu_percent) = load(before, now);
        }
        self.previous = ticks;
        if let Some(meminfo) = read("/proc/meminfo") {
            health.memory_total_bytes = kib(&meminfo, "MemTotal");
            health.memory_available_bytes = kib(&meminfo, "MemAvailable");
        }
        health.process_rss_bytes = read("/proc/self/status").and_then(|status| kib(&status, "VmRSS"));
        health.load_1m = read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok());
        health.uptime_s = uptime().map(|uptime| uptime.as_secs());
        health.temperature_c = hottest();
        health
    }
}

pub fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// From `/proc/stat` and the `/proc/PID/stat` of a process.
///
/// proc_stat(5): user nice system idle iowait irq softirq steal; guest time is part of user.
pub fn ticks(stat: &str, own: &str) -> Option<Ticks> {
    let cpu = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = cpu.split_whitespace().take(8).map_while(|time| time.parse().ok()).collect();
    let idle = times.get(3)? + times.get(4).unwrap_or(&0);
    let cores = stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count() as u64;
    let process = process_ticks(own)?;
    Some(Ticks { total: times.iter().sum(), idle, process, cores: cores.max(1) })
}

/// Processor time of all threads of a process, from its `/proc/PID/stat`; `None` when it has ended.
///
/// proc_pid_stat(5): the state is field 3 (Z and X are dead), utime and stime are 14 and 15; field 2, the name, may hold
/// spaces and brackets.
pub fn process_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if ["Z", "X", "x"].contains(fields.first()?) {
        return None;
    }
    Some(fields.get(11)?.parse::<u64>().ok()?.saturating_add(fields.get(12)?.parse::<u64>().ok()?))
}

/// Percent of all cores that was busy, and percent of one core that the process used.
pub fn load(before: Ticks, now: Ticks) -> (Option<f64>, Option<f64>) {
    let total = now.total.saturating_sub(before.total);
    if total == 0 {
        return (None, None);
    }
    let percent = |part: u64| (1000.0 * part as f64 / total as f64).round() / 10.0;
    let idle = now.idle.saturating_sub(before.idle).min(total);
    let process = now.process.saturating_sub(before.process);
    (Some(percent(total - idle)), Some(percent(process * now.cores)))
}

/// The bytes of a line such as `MemTotal:  2048 kB`.
pub fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn uptime() -> Option<Duration> {
    let text = read("/proc/uptime")?;
    Duration::try_from_secs_f64(text.split(' ').next()?.parse().ok()?).ok()
}

/// Thermal zones report thousandths of a degree; some report nonsense while they sleep.
fn hottest() -> Option<f64> {
    let zones = std::fs::read_dir("/sys/class/thermal").ok()?;
    zones
        .filter_map(|zone| read(zone.ok()?.path().join("temp"))?.trim().parse::<i32>().ok())
        .filter(|thousandths| (-40_000..=150_000).contains(thousandths))
        .max()
        .map(|thousandths| f64::from(thousandths) / 1000.0)
}

/// What does not change while the machine runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    pub model: Option<String>,
    pub serial: Option<String>,
    pub os: Option<String>,
    pub image_version: Option<String>,
    pub boot_id: Option<String>,
    pub boot_time: Option<UtcTime>,
}

/// Device tree first (boards), then DMI (computers). The DMI serial number is readable by root alone.
pub fn identity(clock: &Clock) -> Identity {
    let first = |paths: [&str; 2]| {
        paths.iter().find_map(|path| {
            let text = read(path)?.trim_matches(['\0', '\n', ' ']).to_owned();
            (!text.is_empty()).then_some(text)
        })
    };
    let release = read("/etc/os-release").unwrap_or_default();
    Identity {
        model: first(["/proc/device-tree/model", "/sys/class/dmi/id/product_name"]),
        serial: first(["/proc/device-tree/serial-number", "/sys/class/dmi/id/product_serial"]),
        os: release_value(&release, "PRETTY_NAME"),
        image_version: release_value(&release, "IMAGE_VERSION"),
        boot_id: read("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()),
        boot_time: uptime().and_then(|uptime| clock.wall().checked_sub(uptime)).map(UtcTime::from),
    }
}

/// os-release(5): shell-like assignments, quoted or not.
fn release_value(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether the system clock is disciplined, by the mark that systemd-timesyncd touches at each synchronisation
/// (systemd-timesyncd.service(8), files); `None`: nobody says anything.
///
/// chronyd and ntpd leave no mark of their own. The kernel knows of all of them (adjtimex(2): STA_UNSYNC), but nothing in
/// /proc or /sys shows that, and no library with a safe call for it is kept well enough to be taken in. A drop-in for the unit that
/// waits for them can touch the same mark (README).
pub fn clock_synced() -> Option<bool> {
    synced_by_mark(Path::new("/run/systemd/timesync"))
}

fn synced_by_mark(folder: &Path) -> Option<bool> {
    folder.is_dir().then(|| folder.join("synchronized").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from a machine with two cores; the process name is the worst that prctl(2) allows.
    const STAT: &str = "cpu  100 10 50 800 40 0 5 3 7 0\ncpu0 50 5 25 400 20 0 2 1 3 0\ncpu1 50 5 25 400 20 0 3 2 4 0\nintr 1\n";
    const OWN: &str = "42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 0 0 30 12 0 0 20 0 9 0 100 1000 200";

    #[test]
    fn processor_times_are_read() {
        assert_eq!(ticks(STAT, OWN), Some(Ticks { total: 1008, idle: 840, process: 42, cores: 2 }));
        assert_eq!(ticks("", OWN), None);
        assert_eq!(ticks(STAT, "42 (a"), None);
        assert_eq!(ticks("cpu  1 x\n", OWN), None);
        assert_eq!(process_ticks(OWN), Some(42));
        assert_eq!(process_ticks(&OWN.replace(" S 1 42", " Z 1 42")), None);
    }

    #[test]
    fn load_is_of_all_cores_and_of_one() {
        let before = Ticks { total: 1000, idle: 800, process: 40, cores: 2 };
        let now = Ticks { total: 1200, idle: 950, process: 90, cores: 2 };
        assert_eq!(load(before, now), (Some(25.0), Some(50.0)));
        assert_eq!(load(now, now), (None, None));
        // A counter that went back, as after a suspend, is no reason to overflow.
        assert_eq!(load(now, before), (None, None));
    }

    #[test]
    fn sizes_and_names_are_read() {
        let meminfo = "MemTotal:        2048 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(kib(meminfo, "MemAvailable"), Some(1 << 20));
        assert_eq!(kib(meminfo, "Mem"), None);
        assert_eq!(
            release_value("ID=x\nPRETTY_NAME=\"Debian 12\"\n", "PRETTY_NAME"),
            Some("Debian 12".into())
        );
        assert_eq!(release_value("IMAGE_VERSION=\n", "IMAGE_VERSION"), None);
    }

    #[test]
    fn a_mark_says_that_the_clock_is_disciplined_and_a_folder_that_somebody_will_say() {
        let run = tempfile::tempdir().expect("a folder");
        let folder = run.path().join("timesync");
        assert_eq!(synced_by_mark(&folder), None, "no such service");
        std::fs::create_dir(&folder).expect("it can be made");
        assert_eq!(synced_by_mark(&folder), Some(false));
        std::fs::write(folder.join("synchronized"), "").expect("it can be made");
        assert_eq!(synced_by_mark(&folder), Some(true));
    }

    #[test]
    fn this_machine_can_be_sampled() {
        let mut sampler = Sampler::default();
        assert_eq!(sampler.sample().cpu_percent, None);
        let health = sampler.sample();
        assert!(health.process_rss_bytes.is_some_and(|bytes| bytes > 100_000), "{health:?}");
        assert!(health.memory_total_bytes >= health.memory_available_bytes, "{health:?}");
        assert!(identity(&Clock::system()).boot_id.is_some());
    }
}
