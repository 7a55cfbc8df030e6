//! The fragments that a command works on, each whole: stored, live or out of a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use kvs_client::kvs::FragmentNumber;
use kvs_client::kvs::api::{
    Fragment, FragmentSelector, GetMediaForFragmentListInput, StartSelector, StreamId, milliseconds,
};
use kvs_client::kvs::read::documents::{Document, Documents};
use kvs_client::{Client, FragmentStream, FragmentStreamError};
use tokio_util::sync::CancellationToken;

use super::account::What;
use super::progress::{Progress, bytes};
use super::{Failed, told};

/// Fragments in one answer.
const BATCH: usize = 100;
/// Of a file, read at once.
const PIECE_BYTES: usize = 1 << 20;

/// In the order of their producer times.
pub(super) async fn stored(
    client: &Client,
    stream: &StreamId,
    selector: FragmentSelector,
) -> Result<Vec<Fragment>, Failed> {
    let listed = client.list_all_fragments(stream, selector).await;
    let mut fragments = listed.map_err(|error| told(&error, client, stream))?;
    fragments.sort_by(|one, other| {
        let key = |fragment: &Fragment| {
            (milliseconds(fragment.producer_timestamp), fragment.fragment_number.clone())
        };
        key(one).cmp(&key(other))
    });
    Ok(fragments)
}

/// What is to be read.
pub(super) struct Wanted<'a, F> {
    pub(super) what: What,
    /// Says by its number whether a stored one is fetched.
    pub(super) wanted: F,
    /// Live: behind this one, in place of now.
    pub(super) after: Option<FragmentNumber>,
    /// What ends behind the tags that open a fragment, too.
    pub(super) empty: bool,
    pub(super) stop: &'a CancellationToken,
}

impl<'a> Wanted<'a, fn(&str) -> bool> {
    pub(super) fn all(what: What, stop: &'a CancellationToken) -> Self {
        Self { what, wanted: |_| true, after: None, empty: false, stop }
    }
}

struct Taking<'a, T> {
    take: T,
    empty: bool,
    found: usize,
    most: usize,
    bytes: u64,
    progress: &'a Progress,
}

impl<T: FnMut(&Document) -> Result<(), Failed>> Taking<'_, T> {
    /// Whether more are wanted.
    fn take(&mut self, document: &Document) -> Result<bool, Failed> {
        let number =
            || document.number.map_or("a fragment".to_owned(), |number| format!("fragment {number}"));
        if let Some(failure) = document.failure() {
            return Err(failure.to_string().into());
        }
        if !document.complete {
            return Err(format!("the answer broke off inside {}", number()).into());
        }
        if document.blocks == 0 && !self.empty {
            return Ok(true);
        }
        self.progress.aside(|| (self.take)(document))?;
        self.found += 1;
        self.bytes += document.size_bytes() as u64;
        self.progress.advance(bytes(self.bytes));
        Ok(self.found < self.most)
    }
}

/// Hands on the fragments; returns how many. Whoever stops it gets what came until then.
pub(super) async fn read<F: Fn(&str) -> bool>(
    wanted: Wanted<'_, F>,
    take: impl FnMut(&Document) -> Result<(), Failed>,
) -> Result<usize, Failed> {
    let Wanted { what, wanted, after, empty, stop } = wanted;
    let most = what.count.unwrap_or(usize::MAX);
    if most == 0 {
        return Ok(0);
    }
    if let Some(file) = &what.file {
        let progress = Progress::endless("fragments");
        let mut taking = Taking { take, empty, found: 0, most, bytes: 0, progress: &progress };
        of_file(file, stop, |document| taking.take(&document))?;
        return Ok(taking.found);
    }
    let (client, stream) = what.account.open().await?;
    let call = |error: kvs_client::Error| told(&error, &client, &stream);
    if what.live {
        let start = after.map_or_else(StartSelector::now, StartSelector::after);
        let progress = Progress::endless("fragments");
        let mut taking = Taking { take, empty, found: 0, most, bytes: 0, progress: &progress };
        let answer = stop.run_until_cancelled(client.get_media(&stream, start)).await;
        if let Some(answer) = answer {
            of_answer(FragmentStream::new(answer.map_err(call)?), stop, &mut taking).await?;
        }
        if taking.found == 0 && !stop.is_cancelled() {
            progress.note("nothing is uploaded to this stream now");
        }
        return Ok(taking.found);
    }
    let stored = stored(&client, &stream, what.range.selector()?).await?;
    let nothing = stored.is_empty();
    let numbers: Vec<String> = stored
        .into_iter()
        .map(|fragment| fragment.fragment_number)
        .filter(|number| wanted(number))
        .take(most)
        .collect();
    let progress = Progress::of(numbers.len() as u64, "fragments");
    if nothing {
        progress.note("no fragment of this stream begins in that range");
    }
    let mut taking = Taking { take, empty, found: 0, most, bytes: 0, progress: &progress };
    for batch in numbers.chunks(BATCH) {
        let input = GetMediaForFragmentListInput { stream: stream.clone(), fragments: batch.to_vec() };
        let answer = stop.run_until_cancelled(client.get_media_for_fragment_list(&input)).await;
        let Some(answer) = answer else { break };
        of_answer(FragmentStream::new(answer.map_err(call)?), stop, &mut taking).await?;
        if stop.is_cancelled() {
            break;
        }
    }
    Ok(taking.found)
}

async fn of_answer<T: FnMut(&Document) -> Result<(), Failed>>(
    mut fragments: FragmentStream,
    stop: &CancellationToken,
    taking: &mut Taking<'_, T>,
) -> Result<(), Failed> {
    let failed = |error: FragmentStreamError| health::chain(&error);
    while let Some(next) = stop.run_until_cancelled(fragments.next()).await {
        let Some(document) = next.map_err(failed)? else { break };
        if !document.complete {
            // Why it broke says more.
            fragments.next().await.map_err(failed)?;
        }
        if !taking.take(&document)? {
            break;
        }
    }
    Ok(())
}

/// The documents of a file, until `take` has enough.
pub(super) fn of_file(
    path: &Path,
    stop: &CancellationToken,
    mut take: impl FnMut(Document) -> Result<bool, Failed>,
) -> Result<(), Failed> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(|error| named(&error))?;
    let mut documents = Documents::default();
    while !stop.is_cancelled() {
        let piece = piece(&mut file).map_err(|error| named(&error))?;
        if piece.is_empty() {
            break;
        }
        documents.push(piece);
        while let Some(document) = documents.next_document().map_err(|error| named(&error))? {
            if !take(document)? {
                return Ok(());
            }
        }
    }
    while let Some(document) = documents.finish(true).map_err(|error| named(&error))? {
        if !document.complete {
            return Err(named(&"it ends inside a fragment").into());
        }
        if !take(document)? {
            break;
        }
    }
    Ok(())
}

/// The next bytes; none at the end.
pub(super) fn piece(file: &mut File) -> io::Result<Bytes> {
    let mut bytes = vec![0; PIECE_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
