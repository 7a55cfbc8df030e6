//! `frames`: decoded pictures as JPEG files or as raw bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use analytics::encode;
use clap::Args;
use kvs_client::frames::{ChannelOrder, Frame, FrameOptions, Frames as Decoded, FramesError, WhenFull};
use kvs_client::kvs::FragmentNumber;
use kvs_client::kvs::read::documents::Document;
use kvs_client::source::DocumentSource;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vision::rgb::Rgb;

use super::account::What;
use super::read::{Wanted, read};
use super::{Failed, write};

/// Fragments in front of the decoder.
const WAITING: usize = 2;

#[derive(Args)]
pub(crate) struct Frames {
    #[command(flatten)]
    what: What,
    /// Of each fragment the first picture, and then each N-th.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    ratio: u32,
    #[command(flatten)]
    to: To,
    /// Go on where an earlier run of the same command ended: fragments whose pictures are there are not fetched again.
    #[arg(long, requires = "jpeg")]
    resume: bool,
    /// Of the JPEG files, 1 to 100.
    #[arg(long, default_value_t = 85, value_parser = clap::value_parser!(u8).range(1..=100), conflicts_with = "raw")]
    quality: u8,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct To {
    /// Files named after fragment and time, NUMBER-TIME.jpg, in this folder, which is created; their names are printed.
    #[arg(long, value_name = "DIR")]
    jpeg: Option<PathBuf>,
    /// Red, green and blue bytes of one picture after the other to standard output, for a pipe:
    /// `ffplay -f rawvideo -pixel_format rgb24 -video_size 1280x720 -`. The size is told on standard error.
    #[arg(long)]
    raw: bool,
}

pub(super) async fn run(
    frames: Frames,
    out: &mut (impl Write + Send),
    stop: &CancellationToken,
) -> Result<(), Failed> {
    let Frames { what, ratio, to, resume, quality } = frames;
    if let Some(folder) = &to.jpeg {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let done = match &to.jpeg {
        Some(folder) if resume => done(folder).map_err(|error| format!("{}: {error}", folder.display()))?,
        _ => BTreeSet::new(),
    };
    let (documents, source) = DocumentSource::channel(WAITING);
    let options = FrameOptions {
        name: "frames".to_owned(),
        max_size: 4,
        when_full: WhenFull::Wait,
        order: ChannelOrder::Rgb,
        ..FrameOptions::default()
    };
    let decoded = Decoded::start(source, options).map_err(|error| health::chain(&error))?;
    let mut pick = Pick { ratio, fragment: None, number: 0 };
    let mut target = Target { jpeg: to.jpeg.as_deref(), quality, size: None, out };
    // The pictures come out on this thread while the fragments go in by another task.
    let (reading, picture) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let pictures = scope.spawn(|| pictures(&decoded, &mut pick, &mut target));
            let reading =
                tokio::runtime::Handle::current().block_on(feed(what, &done, documents, stop, &decoded));
            (reading, pictures.join())
        })
    });
    let picture = picture.map_err(|_| "the thread that takes pictures panicked".to_owned())?;
    // What is wrong with the output says more than that reading ended with it.
    picture?;
    reading?;
    let errors = decoded.figures().decode_errors;
    if errors > 0 {
        return Err(format!("{errors} coded pictures gave no picture: they are damaged").into());
    }
    Ok(())
}

/// Fragments whose pictures are all there: they come one after the other, so all but the one that was written to last.
fn done(folder: &Path) -> io::Result<BTreeSet<FragmentNumber>> {
    let mut written = BTreeMap::<FragmentNumber, SystemTime>::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jpg")?.split_once('-'));
        let Some(Ok(number)) = number.map(|(number, _)| number.parse()) else { continue };
        let at = entry.metadata()?.modified()?;
        let last = written.entry(number).or_insert(at);
        *last = at.max(*last);
    }
    let newest = written.values().max().copied();
    written.retain(|_, at| Some(*at) != newest);
    Ok(written.into_keys().collect())
}

async fn feed(
    what: What,
    done: &BTreeSet<FragmentNumber>,
    documents: mpsc::Sender<Document>,
    stop: &CancellationToken,
    decoded: &Decoded,
) -> Result<(), Failed> {
    let gone = || Failed::from(decoded.last_error().unwrap_or("the pictures ended".to_owned()));
    let take = |document: &Document| {
        let (document, documents) = (document.clone(), documents.clone());
        // `read` waits for whoever takes.
        let send = async move { documents.send(document).await.map_err(drop) };
        let sent = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(send));
        sent.map_err(|()| gone())
    };
    let wanted = Wanted {
        what,
        wanted: |number: &str| number.parse().map_or(true, |number| !done.contains(&number)),
        after: done.last().copied(),
        empty: false,
        stop,
    };
    read(wanted, take).await.map(drop)
}

/// Until they end.
fn pictures(decoded: &Decoded, pick: &mut Pick, target: &mut Target<'_, impl Write>) -> Result<(), Failed> {
    let outcome = loop {
        match decoded.read() {
            Ok(Some(frame)) => {
                if pick.takes(&frame)
                    && let Err(error) = target.put(frame)
                {
                    break Err(error);
                }
            }
            Ok(None) => {}
            Err(FramesError::Ended | FramesError::Stopped) => break Ok(()),
            Err(error) => break Err(health::chain(&error).into()),
        }
    };
    decoded.stop();
    outcome
}

/// Of each fragment the first, and then each `ratio`-th.
struct Pick {
    ratio: u32,
    fragment: Option<FragmentNumber>,
    number: u32,
}

impl Pick {
    fn takes(&mut self, frame: &Frame) -> bool {
        if self.fragment != frame.fragment {
            (self.fragment, self.number) = (frame.fragment, 0);
        }
        let takes = self.number.is_multiple_of(self.ratio);
        self.number += 1;
        takes
    }
}

struct Target<'a, W> {
    jpeg: Option<&'a Path>,
    quality: u8,
    size: Option<(usize, usize)>,
    out: &'a mut W,
}

impl<W: Write> Target<'_, W> {
    fn put(&mut self, frame: Frame) -> Result<(), Failed> {
        let Some(folder) = self.jpeg else { return self.raw(&frame) };
        let number = frame.fragment.map_or("document".to_owned(), |number| number.to_string());
        let time = frame.producer_timestamp.to_string().replace([':', '-'], "");
        let path = folder.join(format!("{number}-{time}.jpg"));
        let rgb = Rgb { width: frame.width, height: frame.height, bytes: frame.data };
        let jpeg = encode(&rgb, self.quality).ok_or("a picture without an area")?;
        std::fs::write(&path, jpeg).map_err(|error| format!("{}: {error}", path.display()))?;
        write(self.out, format_args!("{}", path.display()))
    }

    #[expect(clippy::print_stderr, reason = "standard output has the pictures, and nothing else")]
    fn raw(&mut self, frame: &Frame) -> Result<(), Failed> {
        let size = (frame.width, frame.height);
        if let Some(before) = self.size.filter(|before| *before != size) {
            let (now, before) = (format!("{}x{}", size.0, size.1), format!("{}x{}", before.0, before.1));
            return Err(
                format!("the size changes from {before} to {now}: ask for less, or for --jpeg").into()
            );
        }
        if self.size.replace(size).is_none() {
            eprintln!("rgb24 {}x{}", size.0, size.1);
        }
        self.out.write_all(&frame.data)?;
        Ok(self.out.flush()?)
    }
}
