//! `clip` and `images`: what the service itself makes of a range of time.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kvs_client::kvs::api::{
    FragmentSelectorType, GetClipInput, GetImagesInput, IMAGES_RANGE_SECONDS, ImageError, ImageFormat,
    milliseconds,
};
use kvs_client::{Error, Operation, ServiceErrorKind};
use media::ProducerTimestamp;
use tokio_util::sync::CancellationToken;

use super::account::{Account, Closed};
use super::progress::{Progress, bytes};
use super::{Failed, told, write};

#[derive(Args)]
pub(crate) struct Clip {
    #[command(flatten)]
    account: Account,
    #[command(flatten)]
    range: Closed,
    /// A file, which is there only when it is whole; `-` is standard output.
    #[arg(long, short, default_value = "-")]
    output: PathBuf,
}

pub(super) async fn clip(clip: Clip, out: &mut impl Write, stop: &CancellationToken) -> Result<(), Failed> {
    let Clip { account, range, output } = clip;
    let (client, stream) = account.open().await?;
    let input = GetClipInput { stream: stream.clone(), clip_fragment_selector: range.selector()? };
    let call = |error: kvs_client::Error| match error {
        // The stream is there, or its endpoint would not be.
        Error::Service {
            operation: Operation::GetClip, kind: ServiceErrorKind::ResourceNotFound, ..
        } => {
            let (from, to) = (range.from, range.to);
            format!("{}; no fragment begins between {from} and {to}", health::chain(&error)).into()
        }
        _ => told(&error, &client, &stream),
    };
    let Some(answer) = stop.run_until_cancelled(client.get_clip(&input)).await else { return Ok(()) };
    let (mut answer, progress) = (answer.map_err(call)?, Progress::endless("pieces"));
    if output == Path::new("-") {
        let mut count = 0;
        while let Some(piece) = stop.run_until_cancelled(answer.next_bytes()).await {
            let Some(piece) = piece.map_err(call)? else { break };
            out.write_all(&piece)?;
            count += piece.len() as u64;
            progress.advance(bytes(count));
        }
        return Ok(out.flush()?);
    }
    let named = |error: std::io::Error| format!("{}: {error}", output.display());
    let name = output.file_name().ok_or_else(|| format!("{} names no file", output.display()))?;
    let part = output.with_file_name(format!(".{}.part", name.to_string_lossy()));
    let whole = async {
        let (mut file, mut count) = (std::fs::File::create(&part).map_err(named)?, 0);
        while let Some(piece) = stop.run_until_cancelled(answer.next_bytes()).await {
            let Some(piece) = piece.map_err(call)? else {
                return std::fs::rename(&part, &output).map_err(|error| named(error).into());
            };
            file.write_all(&piece).map_err(named)?;
            count += piece.len() as u64;
            progress.advance(bytes(count));
        }
        Err(Failed::from("stopped before the clip was whole"))
    };
    whole.await.inspect_err(|_| {
        // Half of an MP4 file is of no use.
        let _ = std::fs::remove_file(&part);
    })
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Jpeg,
    Png,
}

#[derive(Args)]
pub(crate) struct Images {
    #[command(flatten)]
    account: Account,
    #[command(flatten)]
    range: Closed,
    /// Where the files go, TIME.jpg or TIME.png; created if it is not there. Pictures that are there are not asked for again.
    folder: PathBuf,
    /// Milliseconds from one picture to the next.
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(200..))]
    interval: u64,
    #[arg(long, value_enum, default_value_t = Format::Jpeg)]
    format: Format,
    /// Of the JPEG files, 1 to 100.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Pixels; the width follows.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=2_160))]
    height: Option<u32>,
}

/// The service answers for 5 minutes at once, so that a longer range is asked for piece by piece.
pub(super) async fn images(
    images: Images,
    out: &mut impl Write,
    stop: &CancellationToken,
) -> Result<(), Failed> {
    let Images { account, range, folder, interval, format, quality, height } = images;
    range.selector()?; // its ends are in order
    let (client, stream) = account.open().await?;
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (format, ending) = match format {
        Format::Jpeg => (ImageFormat::Jpeg, "jpg"),
        Format::Png => (ImageFormat::Png, "png"),
    };
    let (from_ms, to_ms) = (range.from.as_millis(), range.to.as_millis());
    let path = |ms: u64| {
        let time = ProducerTimestamp::from_millis(ms).to_string().replace([':', '-'], "");
        folder.join(format!("{time}.{ending}"))
    };
    let times: Vec<u64> =
        (from_ms..=to_ms).step_by(usize::try_from(interval).unwrap_or(usize::MAX)).collect();
    let progress = Progress::of(times.len() as u64, "pictures");
    let per_call = (IMAGES_RANGE_SECONDS * 1_000 / interval).max(1);
    let (mut made, mut missing) = (0_u64, 0_u64);
    for times in times.chunks(usize::try_from(per_call).unwrap_or(1)) {
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else { continue };
        if times.iter().all(|time| path(*time).exists()) {
            made += times.len() as u64;
            progress.set(made, "");
            continue;
        }
        let by = FragmentSelectorType::ProducerTimestamp;
        // The end is not part of a range without length.
        let last = last.max(first + 1);
        let mut input = GetImagesInput::new(stream.clone(), by, first, last, format);
        (input.sampling_interval, input.height_pixels) = (Some(interval), height);
        if format == ImageFormat::Jpeg {
            input = input.with_jpeg_quality(quality);
        }
        let mut pages = client.image_pages(input);
        while let Some(page) = stop.run_until_cancelled(pages.next_page()).await {
            let Some(page) = page.map_err(|error| told(&error, &client, &stream))? else { break };
            for image in page {
                let at = ProducerTimestamp::from_millis(milliseconds(image.time_stamp));
                let Some(content) = image.image_content else {
                    missing += 1;
                    let why = match image.error {
                        Some(ImageError::MediaError) => "its footage cannot be decoded",
                        _ => "nothing was recorded",
                    };
                    progress.note(format_args!("no picture of {at}: {why}"));
                    continue;
                };
                let path = path(at.as_millis());
                std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
                made += 1;
                progress.set(made + missing, "");
                progress.aside(|| write(out, format_args!("{}", path.display())))?;
            }
        }
        if stop.is_cancelled() {
            return Ok(());
        }
    }
    if made == 0 {
        return Err("there is no picture in that range".into());
    }
    Ok(())
}
