//! `kvs-edge proof show|gaps|export|check`: what was written down of each minute, from outside of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use config::Config;
use kvs::proof::records::{Checker, Entry, Head, Line, Record, Spread, Summary};
use serde_json::{Value, json};
use store::ProofsAt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::table::{Column, Table};

#[derive(Subcommand)]
pub(crate) enum Proof {
    /// Show the verdict on each minute, with what is behind it; the newest record of each counts. Without --from the last hour that
    /// is written down.
    Show(Range),
    /// Show which footage is not in KVS as it was recorded, and why.
    Gaps(Range),
    /// Write records to standard output.
    Export {
        #[command(flatten)]
        range: Range,
        /// `csv`, `json`: the newest record of each minute. `lines`: all records as they stand in the chain, amendments
        /// included, each with its SHA-256 in front: `check --file` reads them.
        #[arg(long, value_enum, default_value_t = Format::Csv)]
        format: Format,
    },
    /// Find records that were changed, removed, added or moved after they were written, and say which.
    ///
    /// The exit code is 0 where the chain is whole, 1 where something was found, 2 where it cannot be read. That its newest
    /// records are gone shows by the index beside them; whoever changes both is found by --head.
    Check {
        #[command(flatten)]
        place: Place,
        /// Id of a camera; without it all.
        #[arg(long)]
        camera: Option<String>,
        /// What somebody else was told, as in `proof` of a `verify` message: CAMERA=N:SUM. Can be given several times.
        #[arg(long, value_name = "CAMERA=N:SUM", value_parser = told)]
        head: Vec<(String, Head)>,
        /// Instead of a folder: a file with the lines of one chain, as `export --format lines` writes it.
        #[arg(long, conflicts_with = "folder")]
        file: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(crate) struct Place {
    #[arg(long, default_value_os_t = config::default_path())]
    config: PathBuf,
    /// The folder of the records; without it `proofs` in the one of [spool].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Range {
    #[command(flatten)]
    place: Place,
    /// Id of a camera; without it all.
    #[arg(long)]
    camera: Option<String>,
    /// Such as 2026-11-30T11:00:00Z; the minute that holds it is shown.
    #[arg(long, value_parser = instant)]
    from: Option<OffsetDateTime>,
    /// Up to here.
    #[arg(long, value_parser = instant)]
    to: Option<OffsetDateTime>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Csv,
    Json,
    Lines,
}

/// What is shown without --from.
const LAST_MS: u64 = 3_600_000;

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("{error}; write 2026-11-30T11:00:00Z"))
}

fn told(text: &str) -> Result<(String, Head), String> {
    let wrong = || format!("found `{text}`, expected CAMERA=N:SUM with a sum of 64 hexadecimal digits");
    let (camera, head) = text.split_once('=').ok_or_else(wrong)?;
    let (n, sum) = head.split_once(':').ok_or_else(wrong)?;
    let head = Head { n: n.parse().map_err(|_| wrong())?, sum: sum.parse().map_err(|_| wrong())? };
    Ok((camera.to_owned(), head))
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
pub(crate) fn run(command: Proof) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = execute(command, &mut out).and_then(|code| {
        out.flush().map_err(|error| format!("standard output: {error}"))?;
        Ok(code)
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            eprintln!("{}", text.trim_end());
            ExitCode::from(2)
        }
    }
}

fn execute(command: Proof, out: &mut impl Write) -> Result<u8, String> {
    let written = |error: io::Error| format!("standard output: {error}");
    match command {
        Proof::Show(range) => {
            let minutes = range.minutes()?;
            show(&minutes, range.place.json, out).map_err(written)?;
            Ok(u8::from(minutes.is_empty()))
        }
        Proof::Gaps(range) => {
            let minutes = range.minutes()?;
            gaps(&minutes, range.place.json, out).map_err(written)?;
            Ok(u8::from(minutes.is_empty()))
        }
        Proof::Export { range, format: Format::Lines } => {
            let lines = range.lines()?;
            for (_, line) in &lines {
                out.write_all(&line.to_bytes()).map_err(written)?;
            }
            Ok(u8::from(lines.is_empty()))
        }
        Proof::Export { range, format } => {
            let minutes = range.minutes()?;
            match format {
                Format::Json => json_minutes(&minutes, out).map_err(written)?,
                _ => csv(&minutes, out).map_err(written)?,
            }
            Ok(u8::from(minutes.is_empty()))
        }
        Proof::Check { place, camera, head, file: Some(file) } => {
            let chains = vec![chain_of_file(&file, camera.as_deref(), &head)?];
            report(&chains, None, place.json, out).map_err(written)
        }
        Proof::Check { place, camera, head, file: None } => {
            let at = place.open()?;
            let chains = check(&at, camera.as_deref(), &head)?;
            report(&chains, at.no_index.as_deref(), place.json, out).map_err(written)
        }
    }
}

impl Place {
    fn open(&self) -> Result<ProofsAt, String> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => {
                let config = Config::load(&self.config).map_err(|errors| errors.to_string())?;
                let spool = config.spool.map(|spool| spool.folder.join("proofs"));
                spool.ok_or_else(|| {
                    format!(
                        "{}: no [spool], so proof records are kept in memory and told over MQTT only; give --folder for others",
                        self.config.display()
                    )
                })?
            }
        };
        store::proofs_at(&folder).map_err(|error| {
            let fix = "check the path and its permissions; kvs-edge run makes it";
            format!("{}: {error}; {fix}", folder.display())
        })
    }
}

impl Range {
    /// Cameras that are wanted.
    fn cameras(at: &ProofsAt, camera: Option<&str>) -> Result<Vec<String>, String> {
        match camera {
            None => Ok(at.cameras.clone()),
            Some(camera) if at.cameras.iter().any(|known| known == camera) => Ok(vec![camera.to_owned()]),
            Some(camera) => {
                Err(format!("no records of camera `{camera}`; there are: {}", at.cameras.join(", ")))
            }
        }
    }

    /// All records of the range, in order of each chain.
    fn lines(&self) -> Result<Vec<(String, Line)>, String> {
        let (from, to) = (self.from.map(millis), self.to.map(millis));
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err("--from is not before --to; give the earlier time first".to_owned());
        }
        let at = self.place.open()?;
        let mut all = Vec::new();
        for camera in Self::cameras(&at, self.camera.as_deref())? {
            let mut lines = Vec::new();
            let read = at.lines(&camera, &mut |line, _, _| lines.extend(line.ok()));
            read.map_err(|error| format!("records of camera `{camera}`: {error}"))?;
            let end_ms = |summary: &Summary| summary.minute_ms + summary.minutes * 60_000;
            let newest_ms = lines.iter().filter_map(|line| line.record.summary()).map(end_ms).max();
            let from = from.or_else(|| {
                newest_ms.filter(|_| to.is_none()).map(|newest_ms| newest_ms.saturating_sub(LAST_MS))
            });
            let inside = |line: &Line| match line.record.summary() {
                Some(summary) => {
                    from.is_none_or(|from| end_ms(summary) > from)
                        && to.is_none_or(|to| summary.minute_ms < to)
                }
                // What a break tells belongs to all.
                None => from.is_none_or(|from| line.record.at_ms >= from),
            };
            all.extend(lines.into_iter().filter(inside).map(|line| (camera.clone(), line)));
        }
        Ok(all)
    }

    /// The newest record of each minute, by time and camera.
    fn minutes(&self) -> Result<Vec<(String, Record)>, String> {
        let mut newest = BTreeMap::new();
        for (camera, line) in self.lines()? {
            if let Some(summary) = line.record.summary() {
                newest.insert((summary.minute_ms, camera), line.record);
            }
        }
        Ok(newest.into_iter().map(|((_, camera), record)| (camera, record)).collect())
    }
}

fn millis(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

fn words(ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| ms.to_string())
}

fn verdict(summary: &Summary) -> String {
    serde_json::to_value(summary.verdict)
        .ok()
        .and_then(|text| text.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn summaries(minutes: &[(String, Record)]) -> impl Iterator<Item = (&str, &Record, &Summary)> {
    minutes.iter().filter_map(|(camera, record)| Some((camera.as_str(), record, record.summary()?)))
}

fn show(minutes: &[(String, Record)], as_json: bool, out: &mut impl Write) -> io::Result<()> {
    if as_json {
        return json_minutes(minutes, out);
    }
    if minutes.is_empty() {
        return writeln!(out, "nothing is written down of this time");
    }
    let numbers = ["recorded", "persisted", "listed", "read back", "gaps"].map(Column::Number);
    let [recorded, persisted, listed, read_back, gaps] = numbers;
    let [minute, camera, judged, why] = ["minute", "camera", "verdict", "why"].map(Column::Text);
    let mut table = Table::new([minute, camera, judged, recorded, persisted, listed, read_back, gaps, why]);
    for (camera, _, one) in summaries(minutes) {
        let why = one.why.as_deref().unwrap_or_default();
        let more = if one.minutes > 1 { format!(" ({} minutes)", one.minutes) } else { String::new() };
        let numbers = [one.expected, one.persisted, one.listed, one.verified, one.gaps.len() as u64];
        let [recorded, persisted, listed, read_back, gaps] = numbers.map(|number| number.to_string());
        let (at, camera, why) = (words(one.minute_ms), camera.to_owned(), format!("{why}{more}"));
        table.row([at, camera, verdict(one), recorded, persisted, listed, read_back, gaps, why]);
    }
    write!(out, "{table}")?;
    let mut counts = BTreeMap::<_, u64>::new();
    for (_, _, one) in summaries(minutes) {
        *counts.entry(verdict(one)).or_default() += one.minutes;
    }
    let counts: Vec<_> = counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    writeln!(out, "minutes: {}", counts.join(", "))
}

/// Footage that is not in KVS as it was recorded; what goes on in the next minute is one.
fn gaps(minutes: &[(String, Record)], as_json: bool, out: &mut impl Write) -> io::Result<()> {
    let mut all: Vec<(&str, u64, u64, &str, Option<&str>)> = Vec::new();
    let cameras: BTreeSet<_> = minutes.iter().map(|(camera, _)| camera.as_str()).collect();
    for camera in cameras {
        let mut own: Vec<(&str, u64, u64, &str, Option<&str>)> = Vec::new();
        for (_, _, one) in summaries(minutes).filter(|(of, _, _)| *of == camera) {
            for gap in &one.gaps {
                let (cause, text) = (gap.cause.name(), gap.text.as_deref());
                match own.last_mut() {
                    Some((_, _, to, before, _)) if *before == cause && gap.from_ms <= *to + 3000 => {
                        *to = gap.to_ms.max(*to);
                    }
                    _ => own.push((camera, gap.from_ms, gap.to_ms, cause, text)),
                }
            }
        }
        all.extend(own);
    }
    if as_json {
        let all = all.iter().map(|(camera, from, to, cause, text)| {
            json!({ "camera": camera, "from": words(*from), "to": words(*to), "cause": cause, "text": text })
        });
        return writeln!(out, "{:#}", Value::Array(all.collect()));
    }
    if all.is_empty() {
        return writeln!(out, "no gaps");
    }
    let [from, to, camera, cause] = ["from", "to", "camera", "cause"].map(Column::Text);
    let mut table = Table::new([from, to, Column::Number("seconds"), camera, cause]);
    for (camera, from, to, cause, text) in all {
        let ms = to - from;
        let text = text.map(|text| format!(": {text}")).unwrap_or_default();
        let seconds = format!("{}.{}", ms / 1000, ms % 1000 / 100);
        table.row([words(from), words(to), seconds, camera.to_owned(), format!("{cause}{text}")]);
    }
    write!(out, "{table}")
}

fn json_minutes(minutes: &[(String, Record)], out: &mut impl Write) -> io::Result<()> {
    let one = |(camera, record, one): (&str, &Record, &Summary)| {
        let spread = |spread: &Option<Spread>| serde_json::to_value(spread).unwrap_or_default();
        let gaps = one.gaps.iter().map(|gap| {
            json!({ "from": words(gap.from_ms), "to": words(gap.to_ms), "cause": gap.cause.name(), "text": gap.text })
        });
        json!({
            "minute": words(one.minute_ms), "minutes": one.minutes, "camera": camera, "verdict": verdict(one), "why": one.why,
            "expected": one.expected, "persisted": one.persisted, "listed": one.listed, "verified": one.verified,
            "bytes": one.bytes, "footage": one.footage, "gaps": gaps.collect::<Vec<_>>(),
            "ack_ms": spread(&one.ack_ms), "persist_ms": spread(&one.persist_ms), "read_ms": spread(&one.read_ms),
            "n": record.n, "amends": record.amends(), "written": words(record.at_ms),
        })
    };
    writeln!(out, "{:#}", Value::Array(summaries(minutes).map(one).collect()))
}

fn csv(minutes: &[(String, Record)], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "minute,minutes,camera,verdict,expected,persisted,listed,verified,bytes,gaps,gap_seconds,persist_p50_ms,persist_p95_ms,\
         persist_max_ms,n,amends,footage,why"
    )?;
    for (camera, record, one) in summaries(minutes) {
        let gap_ms: u64 = one.gaps.iter().map(|gap| gap.to_ms - gap.from_ms).sum();
        let persist = one.persist_ms.map(|spread| format!("{},{},{}", spread.p50, spread.p95, spread.max));
        let persist = persist.unwrap_or_else(|| ",,".to_owned());
        let amends = record.amends().map(|n| n.to_string()).unwrap_or_default();
        let why = one.why.as_deref().unwrap_or_default().replace('"', "\"\"");
        writeln!(
            out,
            "{},{},{camera},{},{},{},{},{},{},{},{}.{:03},{persist},{},{amends},{},\"{why}\"",
            words(one.minute_ms),
            one.minutes,
            verdict(one),
            one.expected,
            one.persisted,
            one.listed,
            one.verified,
            one.bytes,
            one.gaps.len(),
            gap_ms / 1000,
            gap_ms % 1000,
            record.n,
            one.footage
        )?;
    }
    Ok(())
}

/// What was found of one chain.
struct Checked {
    camera: String,
    lines: u64,
    ends: Option<(u64, Head)>,
    faults: Vec<String>,
    /// What does not speak against the chain.
    notes: Vec<String>,
}

fn check(at: &ProofsAt, camera: Option<&str>, told: &[(String, Head)]) -> Result<Vec<Checked>, String> {
    let mut known: BTreeSet<_> = at.cameras.iter().cloned().collect();
    // A chain of which no file is left is missed all the same.
    known.extend(at.heads.iter().map(|(camera, _, _)| camera.clone()));
    for camera in camera.into_iter().chain(told.iter().map(|(camera, _)| camera.as_str())) {
        if !known.contains(camera) {
            let known: Vec<_> = known.into_iter().collect();
            return Err(format!("no records of camera `{camera}`; there are: {}", known.join(", ")));
        }
    }
    let wanted = known.into_iter().filter(|one| camera.is_none_or(|camera| camera == one));
    wanted.map(|camera| check_one(at, camera, told)).collect()
}

fn check_one(at: &ProofsAt, camera: String, told: &[(String, Head)]) -> Result<Checked, String> {
    let (mut checker, mut breaks) = (Checker::new(), Vec::new());
    let read = at.lines(&camera, &mut |line, place, number| {
        note_break(&line, &mut breaks);
        checker.line(line.as_ref(), place, number);
    });
    let torn = match read {
        Ok(torn) => torn,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("records of camera `{camera}`: {error}")),
    };
    let mut notes: Vec<_> = torn.iter().map(|path| torn_words(path, at.in_use)).collect();
    let index = at.heads.iter().find(|(of, _, _)| *of == camera);
    let (lines, ends) = (checker.lines(), checker.ends());
    let first = index.map(|(_, first, _)| *first);
    match (ends, first) {
        (Some((begin, _)), Some(first)) if begin > 0 && begin == first => {
            notes.push(format!("records before {begin} were removed for their age"));
        }
        (Some((begin, _)), None) if begin > 0 => {
            notes.push(format!("the chain begins with record {begin}: whether older ones were removed for their age nobody can say"));
        }
        _ => {}
    }
    let index = index.map(|(_, _, head)| *head);
    let heads: Vec<_> =
        told.iter().filter(|(of, _)| *of == camera).map(|(_, head)| *head).chain(index).collect();
    let mut faults: Vec<_> = checker.finish(first, &heads).iter().map(ToString::to_string).collect();
    faults.extend(breaks);
    Ok(Checked { camera, lines, ends, faults, notes })
}

fn chain_of_file(file: &Path, camera: Option<&str>, told: &[(String, Head)]) -> Result<Checked, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (mut checker, mut breaks, mut name) = (Checker::new(), Vec::new(), None);
    let place = file.display().to_string();
    for (at, text) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.is_empty()) {
        let line = Line::parse(text);
        note_break(&line, &mut breaks);
        name = name.or_else(|| line.as_ref().ok().map(|line| line.record.chain.clone()));
        checker.line(line.as_ref(), &place, at as u64 + 1);
    }
    let of_chain = name.as_deref().and_then(|name| name.rsplit('/').next()).map(str::to_owned);
    let camera = camera.map(str::to_owned).or(of_chain).unwrap_or_default();
    let heads: Vec<_> = told.iter().filter(|(of, _)| *of == camera).map(|(_, head)| *head).collect();
    let (lines, ends) = (checker.lines(), checker.ends());
    let mut faults: Vec<_> = checker.finish(None, &heads).iter().map(ToString::to_string).collect();
    faults.extend(breaks);
    Ok(Checked { camera, lines, ends, faults, notes: Vec::new() })
}

fn note_break(line: &Result<Line, kvs::proof::records::chain::LineError>, breaks: &mut Vec<String>) {
    if let Ok(Line { record: Record { n, entry: Entry::Break { text }, .. }, .. }) = line {
        breaks.push(format!("record {n} tells of a break: {text}"));
    }
}

fn torn_words(path: &Path, in_use: bool) -> String {
    let why = if in_use { "it may be being written" } else { "a power cut, and nobody was told of it" };
    format!("{} ends in the middle of a record: {why}", path.display())
}

fn report(chains: &[Checked], no_index: Option<&str>, as_json: bool, out: &mut impl Write) -> io::Result<u8> {
    let whole = chains.iter().all(|chain| chain.faults.is_empty());
    if as_json {
        let chains = chains.iter().map(|chain| {
            json!({
                "camera": chain.camera, "records": chain.lines, "first": chain.ends.map(|(first, _)| first),
                "n": chain.ends.map(|(_, head)| head.n), "sum": chain.ends.map(|(_, head)| head.sum.to_string()),
                "whole": chain.faults.is_empty(), "faults": chain.faults, "notes": chain.notes,
            })
        });
        let all = json!({ "whole": whole, "no_index": no_index, "chains": chains.collect::<Vec<_>>() });
        writeln!(out, "{all:#}")?;
        return Ok(u8::from(!whole));
    }
    for chain in chains {
        let range = match chain.ends {
            Some((first, head)) => format!("records {first} to {}, head {}:{}", head.n, head.n, head.sum),
            None => "no records".to_owned(),
        };
        let word = if chain.faults.is_empty() { "whole" } else { "NOT whole" };
        writeln!(out, "{}: {word}, {range}", chain.camera)?;
        for fault in &chain.faults {
            writeln!(out, "  {fault}")?;
        }
        for note in &chain.notes {
            writeln!(out, "  note: {note}")?;
        }
    }
    if let Some(error) = no_index {
        writeln!(
            out,
            "note: the index cannot be read ({error}): whether the newest records are gone, only --head can tell"
        )?;
    }
    Ok(u8::from(!whole))
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
