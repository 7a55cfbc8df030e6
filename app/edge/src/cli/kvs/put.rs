//! `put`: a Matroska file into a stream, by the upload of a camera.
//!
//! ```text
//!  file --pass 1--> plan: fragments as the fragmenter cuts them --ListFragments--> those that are missing
//!  file --pass 2--> FileSource: groups that are missing, as fast as they are persisted --> record::Uploader --> PutMedia
//! ```
//!
//! Nothing is written down between two runs: what KVS lists under the time of a planned fragment, and as long, is there. Only whole GOPs
//! are left out, so a fragment that begins without a random access point may be sent again with those around it; KVS plays
//! the newer one of two with the same time.

mod plan;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clock::Clock;
use config::{Camera, Upload};
use kvs_client::Client;
use kvs_client::kvs::api::{StreamId, milliseconds};
use kvs_client::kvs::ledger::Change;
use kvs_client::kvs::{FragmentIds, RunId};
use kvs_edge::camera::Ending;
use kvs_edge::record::{SharedLedger, UploadReport, UploadState, Uploader};
use kvs_edge::watchdog::Pulses;
use media::ProducerTimestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::account::{Account, selector, time};
use super::progress::{Progress, bytes};
use super::read::stored;
use super::{Failed, write};
use plan::Plan;
use source::FileSource;

/// 2000-01-01: times of a file before that are no times of day.
const EARLIEST: ProducerTimestamp = ProducerTimestamp::from_millis(946_684_800_000);
/// Without one fragment persisted for so long it gives up.
const GIVE_UP: Duration = Duration::from_secs(300);
/// For the fragments that are on their way at the end: for as long as some get there, which [`GIVE_UP`] judges.
const LAST_FRAGMENTS: Duration = Duration::from_secs(24 * 3_600);
/// In the identity tag, in place of the box.
const DEVICE: &str = "put";

#[derive(Args)]
pub(crate) struct Put {
    #[command(flatten)]
    account: Account,
    /// A Matroska file with H.264 or H.265, and AAC or G.711 where there is sound.
    file: PathBuf,
    /// When its first picture was taken: all times are moved so. `now`, or such as 2026-11-20T14:47:53Z [default: the times in
    /// the file, which must be times of day then].
    #[arg(long, value_name = "TIME", value_parser = start)]
    start: Option<Start>,
    /// Send what is stored already, too.
    #[arg(long)]
    again: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Start {
    Now,
    At(ProducerTimestamp),
}

fn start(text: &str) -> Result<Start, String> {
    if text == "now" { Ok(Start::Now) } else { time(text).map(Start::At) }
}

pub(super) async fn run(put: Put, out: &mut impl Write, stop: &CancellationToken) -> Result<(), Failed> {
    let Put { account, file, start, again } = put;
    let clock = Clock::system();
    let job = Job::of(file, start, again, &clock)?;
    let (client, stream) = account.open().await?;
    job.run(client, stream, &clock, out, stop).await
}

/// A file that can be sent, and how.
struct Job {
    file: PathBuf,
    plan: Plan,
    /// To which its times are moved.
    start: Option<ProducerTimestamp>,
    again: bool,
}

impl Job {
    fn of(file: PathBuf, start: Option<Start>, again: bool, clock: &Clock) -> Result<Self, Failed> {
        let mut plan = Plan::of(&file, &upload())?;
        let start = start.map(|start| match start {
            Start::Now => ProducerTimestamp::from_millis(clock.wall_ms()),
            Start::At(time) => time,
        });
        match start {
            Some(start) => plan.move_to(start),
            None if plan.begins() < EARLIEST => {
                let (file, begins) = (file.display(), plan.begins());
                return Err(format!(
                "the times in {file} begin at {begins}, which is no time of day: say when its first picture was taken by --start"
            )
            .into());
            }
            None => {}
        }
        Ok(Self { file, plan, start, again })
    }

    async fn run(
        self,
        client: Client,
        stream: StreamId,
        clock: &Clock,
        out: &mut impl Write,
        stop: &CancellationToken,
    ) -> Result<(), Failed> {
        let Self { file, mut plan, start, again } = self;
        let range = selector(plan.begins().as_millis(), plan.ends().as_millis())?;
        let listed = stored(&client, &stream, range).await?;
        let lengths = listed.iter().filter(|_| !again).map(|fragment| {
            (milliseconds(fragment.producer_timestamp), fragment.fragment_length_in_milliseconds)
        });
        let mut longest = BTreeMap::new();
        for (start_ms, length_ms) in lengths {
            let known = longest.entry(start_ms).or_insert(length_ms);
            *known = length_ms.max(*known);
        }
        plan.leave_out(&longest);
        let (all, missing) = (plan.fragments(), plan.missing());
        let progress = Progress::of(missing, "fragments");
        if missing < all {
            progress.note(format_args!("{} of {all} fragments are stored already", all - missing));
        }
        let cut = plan.cut.clone();
        if missing > 0 {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let keep = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
            let id: String = name.chars().take(48).map(keep).collect();
            let url = Url::parse("file:///").map_err(|error| error.to_string())?;
            let name = stream.stream_name.clone().unwrap_or_default();
            let camera = Camera { stream: name, upload: upload(), ..Camera::new(id, url) };
            let (report, watched) = watch::channel(UploadReport::new(clock.wall()));
            let source = FileSource::open(&file, Arc::new(plan), watched, stop.clone())?;
            let uploader = Uploader {
                camera: Arc::new(camera),
                device: DEVICE.to_owned(),
                ids: FragmentIds::new(RunId::new(rand::random())),
                client,
                clock: clock.clone(),
                ledger: SharedLedger::default(),
                report,
                pulse: Pulses::new(clock.clone()).add(DEVICE),
                spool: None,
                orders: Default::default(),
            };
            send(uploader, source, &progress, out, stop, clock).await?;
        }
        if let Some(cut) = cut {
            return Err(format!("{}: {cut}; what is whole before it is stored", file.display()).into());
        }
        if let (Some(start), true) = (start, stop.is_cancelled()) {
            progress.note(format_args!("--start {start} goes on where this stopped"));
        }
        Ok(())
    }
}

fn upload() -> Upload {
    Upload { stop_grace: LAST_FRAGMENTS, ..Upload::default() }
}

async fn send(
    uploader: Uploader,
    source: FileSource,
    progress: &Progress,
    out: &mut impl Write,
    stop: &CancellationToken,
    clock: &Clock,
) -> Result<(), Failed> {
    let ending = Ending { stop: CancellationToken::new(), abort: CancellationToken::new() };
    let (ledger, mut report) = (uploader.ledger.clone(), uploader.report.subscribe());
    let (mut grew, mut cursor) = (ledger.watch(), ledger.with(|ledger| ledger.cursor_at_start()));
    let (mut persisted, mut lost, mut problem) = (0_u64, Vec::new(), None::<String>);
    let mut uploading = std::pin::pin!(uploader.supervise(source, ending.clone()));
    let (mut give_up_at, mut asked) = (clock.now() + GIVE_UP, false);
    let mut over = false;
    let mut gave_up = None;
    while !over {
        tokio::select! {
            _ = &mut uploading => over = true,
            _ = grew.changed() => {}
            _ = report.changed() => {}
            () = clock.sleep_until(give_up_at) => {
                gave_up = Some("nothing was persisted for 5 minutes".to_owned());
            }
            () = stop.cancelled(), if !asked => {
                asked = true;
                progress.note("the fragments on their way are waited for; once more ends at once");
            }
        }
        let entries: Vec<_> = ledger.with(|ledger| ledger.read(&mut cursor).entries.cloned().collect());
        for entry in entries {
            match entry.change {
                Change::Persisted { number, end } => {
                    persisted += 1;
                    give_up_at = clock.now() + GIVE_UP;
                    let number = number.map_or("-".to_owned(), |number| number.to_string());
                    let ms = end.as_millis().saturating_sub(entry.timecode.as_millis());
                    let line = format_args!("{number}\t{}\t{ms}", entry.timecode);
                    progress.aside(|| write(out, line))?;
                }
                Change::Lost { reason, .. } => lost.push(format!("{}: {reason}", entry.timecode)),
                _ => {}
            }
        }
        let (state, found, waiting) = {
            let report = report.borrow_and_update();
            (report.state, report.problem.as_ref().map(ToString::to_string), report.backlog.bytes)
        };
        progress.set(persisted, format_args!("{} on their way", bytes(waiting as u64)));
        if state == UploadState::Failed {
            gave_up = found.clone();
        }
        if found != problem {
            if let Some(text) = found.as_ref().filter(|_| gave_up.is_none()) {
                progress.note(text);
            }
            problem = found;
        }
        if gave_up.is_some() && !over {
            ending.abort.cancel();
            // It ends at once.
            (&mut uploading).await;
            break;
        }
    }
    if let Some(why) = gave_up {
        return Err(format!(
            "{why}; {persisted} fragments are stored, and are left out when this is run again"
        )
        .into());
    }
    match lost.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(format!("{} fragments were not taken; the first: {first}", lost.len()).into()),
    }
}
