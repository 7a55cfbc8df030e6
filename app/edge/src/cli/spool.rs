//! `kvs-edge spool check|repair|export`: the footage on disk, from outside of the daemon.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use config::Config;
use media::mkv::write::cluster_start;
use serde_json::json;
use store::{Checked, Finding, Footage, Handed, Keys};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::table::{Column, Table};

#[derive(Subcommand)]
pub(crate) enum Spool {
    /// Read all footage on disk, compare it with its sums, and say what is there and what is wrong; also while the daemon runs.
    ///
    /// The exit code is 0 only when nothing is wrong.
    Check(Place),
    /// Cut off what was never finished, and make the index anew from the footage. The daemon must not run; it does the same
    /// at its start where it has to.
    Repair(Place),
    /// Write a camera's footage of a time to standard output, as Matroska; also while the daemon runs.
    ///
    /// Whole fragments: the clip begins with the one that holds `--from`, at time 0. Where parameter sets change another
    /// document begins. kvs-edge spool export --from 2026-11-30T11:00:00Z --to 2026-11-30T11:05:00Z front-door > clip.mkv
    Export {
        #[command(flatten)]
        place: Place,
        /// Such as 2026-11-30T11:00:00Z.
        #[arg(long, value_parser = instant)]
        from: OffsetDateTime,
        #[arg(long, value_parser = instant)]
        to: OffsetDateTime,
        /// Id of the camera.
        camera: String,
    },
}

#[derive(Args)]
pub(crate) struct Place {
    #[arg(long, default_value_os_t = config::default_path())]
    config: PathBuf,
    /// The folder of the spool; without it the one of the configuration.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The file with the keys of sealed footage; without it the one of the configuration, and with --folder none.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Print what was found as JSON; of an export, to standard error.
    #[arg(long)]
    json: bool,
}

pub(super) fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("{error}; write 2026-11-30T11:00:00Z"))
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
pub(crate) fn run(command: Spool) -> ExitCode {
    let done = match command {
        Spool::Check(place) => place.open().and_then(|(folder, keys)| check(&folder, &keys, place.json)),
        Spool::Repair(place) => {
            place.find().and_then(|(folder, key_file)| repair(&folder, key_file, place.json))
        }
        Spool::Export { place, from, to, camera } => {
            let times = (millis(from), millis(to));
            place.open().and_then(|(folder, keys)| export((&folder, &keys), &camera, times, place.json))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}

impl Place {
    /// Its folder, and where its keys are.
    fn find(&self) -> Result<(PathBuf, Option<PathBuf>), String> {
        if let Some(folder) = &self.folder {
            return Ok((folder.clone(), self.key_file.clone()));
        }
        let config = Config::load(&self.config).map_err(|errors| errors.to_string())?;
        let spool = config.spool.map(|spool| (spool.folder, self.key_file.clone().or(spool.key_file)));
        spool.ok_or_else(|| {
            format!("{}: no [spool], so no footage on disk; give --folder for another", self.config.display())
        })
    }

    fn open(&self) -> Result<(PathBuf, Keys), String> {
        let (folder, key_file) = self.find()?;
        let keys = key_file.as_deref().map(Keys::read).transpose();
        let keys = keys.map_err(|error| format!("{}; {}", health::chain(&error), error.fix()))?;
        Ok((folder, keys.unwrap_or_default()))
    }
}

pub(super) fn millis(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

fn words(ms: Option<u64>) -> String {
    let at = ms.and_then(|ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn check(folder: &Path, keys: &Keys, as_json: bool) -> Result<bool, String> {
    let unreadable = |error| format!("{}: {error}; check the path and its permissions", folder.display());
    let Checked { cameras, findings, in_use } = store::check(folder, keys).map_err(unreadable)?;
    if as_json {
        let cameras: Vec<_> = cameras
            .iter()
            .map(|camera| {
                json!({
                    "camera": camera.name, "segments": camera.segments, "bytes": camera.bytes,
                    "fragments": camera.fragments, "waiting": camera.waiting, "refused": camera.refused,
                    "undated": camera.undated,
                    "from": camera.from_ms.map(|ms| words(Some(ms))),
                    "to": camera.to_ms.map(|ms| words(Some(ms))),
                })
            })
            .collect();
        let all = json!({
            "folder": folder, "in_use": in_use, "cameras": cameras, "findings": json_findings(&findings),
        });
        println!("{all:#}");
    } else {
        let used = if in_use { ", used by a running kvs-edge" } else { "" };
        println!("{}: {} cameras{used}", folder.display(), cameras.len());
        let [segments, mib, fragments, waiting] =
            ["segments", "MiB", "fragments", "not in KVS"].map(Column::Number);
        let [name, from, to] = ["camera", "from", "to"].map(Column::Text);
        let mut table = Table::new([name, segments, mib, fragments, waiting, from, to]);
        for camera in &cameras {
            let mib = format!("{}.{}", camera.bytes >> 20, ((camera.bytes & 0xf_ffff) * 10) >> 20);
            let numbers = [camera.segments, camera.fragments, camera.waiting];
            let [segments, fragments, waiting] = numbers.map(|number| number.to_string());
            let (from, to) = (words(camera.from_ms), words(camera.to_ms));
            table.row([camera.name.clone(), segments, mib, fragments, waiting, from, to]);
        }
        if !cameras.is_empty() {
            print!("{table}");
        }
        for camera in cameras.iter().filter(|camera| camera.undated > 0) {
            println!(
                "{}: {} of these were recorded without a clock, and get their time once it is set",
                camera.name, camera.undated
            );
        }
        for camera in cameras.iter().filter(|camera| camera.refused > 0) {
            println!(
                "{}: {} fragments are set aside, KVS will never take them; `kvs-edge spool export` has them",
                camera.name, camera.refused
            );
        }
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    Ok(findings.is_empty())
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn repair(folder: &Path, key_file: Option<PathBuf>, as_json: bool) -> Result<bool, String> {
    // A folder that is not there is not made.
    std::fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let findings = store::repair(folder, key_file).map_err(|error| {
        let fix = error.problem(std::time::UNIX_EPOCH).fix.unwrap_or_default();
        format!("{}; {fix}", health::chain(&error))
    })?;
    if as_json {
        println!("{:#}", json!({ "folder": folder, "findings": json_findings(&findings) }));
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
        println!("{}: the index is made anew", folder.display());
    }
    Ok(true)
}

#[expect(clippy::print_stderr, reason = "footage is on standard output")]
fn export(
    (folder, keys): (&Path, &Keys),
    camera: &str,
    times: (u64, u64),
    as_json: bool,
) -> Result<bool, String> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut clip = Clip::default();
    let handed = store::footage(folder, keys, camera, times, &mut |footage| clip.write(&footage, &mut out));
    let Handed { findings, undated } = handed.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{}: no footage of camera `{camera}`", folder.display()),
        _ => format!("{}: {error}", folder.display()),
    })?;
    out.flush().map_err(|error| format!("standard output: {error}"))?;
    let (from, to) = (words(clip.first_ms), words(clip.last_ms));
    if as_json {
        let findings = json_findings(&findings);
        let (fragments, documents, gaps) = (clip.fragments, clip.documents, clip.gaps);
        let all = json!({
            "camera": camera, "from": from, "to": to, "fragments": fragments, "documents": documents, "gaps": gaps,
            "estimated": clip.estimated, "undated": undated, "findings": findings,
        });
        eprintln!("{all:#}");
    } else {
        findings.iter().for_each(|finding| eprintln!("{finding}"));
        if clip.fragments == 0 {
            eprintln!(
                "{}: nothing of camera `{camera}` from {} to {}",
                folder.display(),
                words(Some(times.0)),
                words(Some(times.1))
            );
        } else {
            eprintln!(
                "{camera}: {} fragments from {from} to {to}, {} gaps, {} documents",
                clip.fragments, clip.gaps, clip.documents
            );
        }
        if clip.estimated > 0 {
            eprintln!(
                "{camera}: the times of {} of them are estimated, and may have been earlier",
                clip.estimated
            );
        }
        if undated > 0 {
            eprintln!(
                "{camera}: {undated} fragments were recorded without a clock and have no time yet; they are left out"
            );
        }
    }
    Ok(clip.fragments > 0)
}

fn json_findings(findings: &[Finding]) -> Vec<serde_json::Value> {
    let one = |finding: &Finding| {
        let kind = format!("{:?}", finding.kind).to_lowercase();
        json!({ "path": finding.path, "kind": kind, "found": finding.found, "fix": finding.fix })
    };
    findings.iter().map(one).collect()
}

/// Two fragments further apart have a gap between them: blocks of one camera are never so far.
const GAP_MS: u64 = 2000;

/// What was written so far.
#[derive(Default)]
struct Clip {
    /// Tracks of the document that is being written.
    tracks: Option<Bytes>,
    /// What is time 0 in it.
    start_ms: u64,
    first_ms: Option<u64>,
    last_ms: Option<u64>,
    fragments: u64,
    documents: u64,
    gaps: u64,
    estimated: u64,
}

impl Clip {
    fn write(&mut self, footage: &Footage, out: &mut impl Write) -> io::Result<()> {
        let (timecode_ms, end_ms) = (footage.summary.timecode.as_millis(), footage.summary.end().as_millis());
        let tracks = tracks_of(&footage.header.bytes);
        let back = self.last_ms.is_some_and(|last_ms| timecode_ms < last_ms);
        if self.tracks.as_ref() != Some(&tracks) || back {
            out.write_all(&footage.header.bytes)?;
            (self.tracks, self.start_ms) = (Some(tracks), timecode_ms);
            self.documents += 1;
        }
        self.gaps += u64::from(self.last_ms.is_some_and(|last_ms| timecode_ms > last_ms + GAP_MS));
        let head = cluster_start(timecode_ms);
        match footage.cluster.strip_prefix(&*head) {
            Some(blocks) => {
                out.write_all(&cluster_start(timecode_ms - self.start_ms))?;
                out.write_all(blocks)?;
            }
            None => out.write_all(&footage.cluster)?,
        }
        self.estimated += u64::from(footage.summary.clock.estimate().is_some());
        self.first_ms.get_or_insert(timecode_ms);
        self.last_ms = Some(end_ms);
        self.fragments += 1;
        Ok(())
    }
}

/// The header from its Tracks on: what stands before differs from run to run.
fn tracks_of(header: &Bytes) -> Bytes {
    const TRACKS: [u8; 4] = [0x16, 0x54, 0xae, 0x6b];
    let at = header.windows(TRACKS.len()).position(|bytes| bytes == TRACKS);
    header.slice(at.unwrap_or(0)..)
}
