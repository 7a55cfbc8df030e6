//! `kvs-edge upload-range`: footage that lies on disk, uploaded on demand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clock::Clock;
use config::{Config, UploadMode};
use kvs_edge::order_desk::{self, Answer, Order};
use time::OffsetDateTime;

use super::spool::{instant, millis};

/// How long the daemon may take to answer; it looks each two seconds.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(crate) struct UploadRangeArguments {
    #[arg(long, default_value_os_t = config::default_path())]
    config: PathBuf,
    /// Such as 2026-11-30T11:00:00Z.
    #[arg(long, value_parser = instant)]
    from: OffsetDateTime,
    #[arg(long, value_parser = instant)]
    to: OffsetDateTime,
    /// Id of the camera.
    camera: String,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the last word of a command")]
pub(crate) async fn run(arguments: UploadRangeArguments) -> ExitCode {
    match order(arguments).await {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}

async fn order(
    UploadRangeArguments { config: path, from, to, camera }: UploadRangeArguments,
) -> Result<String, String> {
    let config = Config::load(&path).map_err(|errors| errors.to_string())?;
    if from > to {
        return Err("--to lies before --from".to_owned());
    }
    let found = config.cameras.iter().find(|one| one.id == camera);
    let known = || config.cameras.iter().map(|one| one.id.as_str()).collect::<Vec<_>>().join(", ");
    let found = found.ok_or_else(|| format!("no camera `{camera}`; there are: {}", known()))?;
    if found.upload.mode == UploadMode::Continuous {
        return Err(format!(
            "all footage of camera `{camera}` is uploaded anyway; [upload] mode = \"on-demand\" or \"events\" selects"
        ));
    }
    let spool = config.spool.as_ref().ok_or("no [spool], so no footage on disk")?;
    let folder = order_desk::folder(&spool.folder);
    let order = Order { camera: camera.clone(), from_ms: millis(from), to_ms: millis(to) };
    let placed = order_desk::place(&folder, &order, rand::random()).map_err(|error| {
        format!(
            "{}: {error}; kvs-edge run makes the folder: start it once, and order as its user or root",
            folder.display()
        )
    })?;
    let clock = Clock::system();
    let until = clock.now() + PATIENCE;
    while clock.now() < until {
        match order_desk::fetch(&placed) {
            Some(Answer::Taken) => return Ok(format!("camera `{camera}`: ordered; kvs-edge uploads it now")),
            Some(Answer::Refused(why)) => return Err(why),
            None => clock.sleep(LOOK).await,
        }
    }
    Ok(format!(
        "camera `{camera}`: ordered; no kvs-edge answers, so the next start takes it ({})",
        placed.display()
    ))
}
