//! `get` and `save`: fragments as they are.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use kvs_client::consumer::save_mkv;
use kvs_client::kvs::FragmentNumber;
use kvs_client::kvs::read::documents::Document;
use tokio_util::sync::CancellationToken;

use super::account::What;
use super::read::{Wanted, of_file, read};
use super::{Failed, write};

pub(super) async fn to_output(
    what: What,
    out: &mut impl Write,
    stop: &CancellationToken,
) -> Result<(), Failed> {
    let mut take = |document: &Document| {
        // Who reads along sees each fragment when it is there.
        let pieces = document.pieces().iter().try_for_each(|piece| out.write_all(piece));
        Ok(pieces.and_then(|()| out.flush())?)
    };
    read(Wanted::all(what, stop), &mut take).await.map(drop)
}

/// `resume`: what is in the file already stays there, and is not fetched again.
pub(super) async fn to_file(
    what: What,
    path: &Path,
    resume: bool,
    stop: &CancellationToken,
) -> Result<(), Failed> {
    let named = |error: io::Error| Failed::from(format!("{}: {error}", path.display()));
    let held = if resume && path.is_file() { held(path, stop)? } else { Held::default() };
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(named)?;
    // A device or a pipe has no length.
    let is_file = file.metadata().map_err(named)?.is_file();
    if is_file {
        file.set_len(held.bytes).map_err(named)?;
    }
    let wanted = Wanted {
        what,
        wanted: |number: &str| number.parse().map_or(true, |number| !held.numbers.contains(&number)),
        after: held.numbers.last().copied(),
        empty: false,
        stop,
    };
    let mut good = held.bytes;
    let take = |document: &Document| {
        let written = document.pieces().iter().try_for_each(|piece| file.write_all(piece));
        match written {
            Ok(()) => {
                good += document.size_bytes() as u64;
                Ok(())
            }
            Err(error) => {
                // What is there of the last one is of no use.
                let _ = if is_file { file.set_len(good) } else { Ok(()) };
                Err(named(error))
            }
        }
    };
    read(wanted, take).await.map(drop)
}

/// What a file has of an earlier run.
#[derive(Default)]
struct Held {
    numbers: BTreeSet<FragmentNumber>,
    bytes: u64,
}

/// Without the last fragment: nothing tells whether it is whole.
fn held(path: &Path, stop: &CancellationToken) -> Result<Held, Failed> {
    let (mut held, mut last) = (Held::default(), None::<Document>);
    let outcome = of_file(path, stop, |document| {
        if let Some(before) = last.replace(document) {
            held.bytes += before.size_bytes() as u64;
            held.numbers.extend(before.number);
        }
        Ok(true)
    });
    match outcome {
        // It was cut behind whole ones: the last of these is whole too, but nobody needs that to be true.
        Err(_) if held.bytes > 0 || last.is_some() => Ok(held),
        Err(error) => Err(error),
        Ok(()) => Ok(held),
    }
}

pub(super) async fn save(
    what: What,
    folder: &Path,
    out: &mut impl Write,
    stop: &CancellationToken,
) -> Result<(), Failed> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = |number: &str| folder.join(format!("{number}.mkv"));
    let mut unnumbered = 0;
    let wanted =
        Wanted { what, wanted: |number: &str| !path(number).exists(), after: None, empty: false, stop };
    let take = |document: &Document| {
        let name = document.number.map(|number| number.to_string()).unwrap_or_else(|| {
            unnumbered += 1;
            format!("document-{unnumbered}")
        });
        let file = path(&name);
        save_mkv(document, &file).map_err(|error| format!("{}: {error}", file.display()))?;
        write(out, format_args!("{}", file.display()))
    };
    read(wanted, take).await.map(drop)
}
