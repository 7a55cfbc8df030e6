//! Targets of the crate `kvs`.

use bytes::Bytes;
use kvs::FragmentNumber;
use kvs::ack::{Ack, AckParser};
use kvs::identity::FragmentIdentity;
use kvs::read::chunk::{Answer, ChunkReader, Event};
use kvs::read::connect::{FROM_CUSTOMER, Gaps, Recordings, TO_CUSTOMER};
use kvs::read::documents::{Document, Documents};
use kvs::read::hls::playlist::{Playlist, resolve};
use kvs::read::tree::tree;
use kvs::read::units::Units;
use media::Feed;
use media::mkv::ebml::parse_header;
use media::mkv::{elements, write};

/// The first byte says how the rest is split: the acks must not depend on it, and each one survives being
/// written and read again.
pub(crate) fn acks(data: &[u8]) {
    let Some((&seed, input)) = data.split_first() else { return };
    let whole = read_acks(std::iter::once(input));
    let split = read_acks(input.chunks(usize::from(seed) + 1));
    assert_eq!(whole, split, "acks depend on how the body is split");
    for ack in whole {
        let again = read_acks(std::iter::once(ack.to_line().as_bytes()));
        assert_eq!(again, [ack]);
    }
}

fn read_acks<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Ack> {
    let mut parser = AckParser::default();
    let mut acks = Vec::new();
    for piece in pieces {
        parser.push(piece);
        loop {
            match parser.next_ack() {
                Ok(Some(ack)) => acks.push(ack),
                Ok(None) => break,
                Err(_) => return acks,
            }
        }
    }
    acks
}

/// What is listed has numbers that follow each other, and leads to the same host.
pub(crate) fn playlist(data: &[u8]) {
    let Ok(found) = Playlist::parse(&String::from_utf8_lossy(data)) else { return };
    let Ok(media) = found.into_media() else { return };
    for (index, segment) in media.segments.iter().enumerate() {
        assert_eq!(segment.sequence, media.sequence + index as u64);
        if let Some(path) = resolve("/hls/v1/playlist?SessionToken=a~", &segment.uri) {
            assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
        }
    }
}

/// The first byte says how the rest is cut; the events of both kinds of answer must not depend on it.
pub(crate) fn chunks(data: &[u8]) {
    let Some((&seed, input)) = data.split_first() else { return };
    for answer in [Answer::GetMedia, Answer::FragmentList] {
        let whole = read_chunks(answer, std::iter::once(input));
        let cut = read_chunks(answer, input.chunks(usize::from(seed) + 1));
        assert_eq!(whole, cut, "events depend on how the answer is cut");
    }
}

fn read_chunks<'a>(answer: Answer, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut reader = ChunkReader::new(answer);
    let mut events = Vec::new();
    for piece in pieces {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next_event() {
                Ok(Some(event)) => events.push(describe(&event)),
                Ok(None) => break,
                Err(error) => {
                    events.push(error.to_string());
                    return events;
                }
            }
        }
    }
    while let Ok(Some(event)) = reader.finish(true) {
        events.push(describe(&event));
    }
    events
}

fn describe(event: &Event) -> String {
    if let Event::End(chunk) = event {
        let _ = chunk.identity();
    }
    format!("{event:?}")
}

/// Access units and sound do not depend on how the answer is cut, and what is handed on can be decoded from where it begins.
pub(crate) fn units(data: &[u8]) {
    let Some((&seed, input)) = data.split_first() else { return };
    for answer in [Answer::GetMedia, Answer::FragmentList] {
        let whole = read_units(answer, std::iter::once(input));
        let cut = read_units(answer, input.chunks(usize::from(seed) + 1));
        assert_eq!(whole, cut, "units depend on how the answer is cut");
    }
}

fn read_units<'a>(answer: Answer, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut reader, mut units, mut found) = (ChunkReader::new(answer), Units::default(), Vec::new());
    // `false`: there is nothing more to be had.
    let mut take = |event: Event| {
        let goes_on = units.take(event).map_err(|error| found.push(error.to_string())).is_ok();
        while let Some((item, origin)) = units.next_item() {
            if let Feed::Video(unit) = &item {
                assert!(!unit.data.is_empty(), "a picture of nothing");
            }
            found.push(format!("{item:?} {origin:?}"));
        }
        goes_on
    };
    for piece in pieces {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next_event() {
                Ok(Some(event)) => {
                    if !take(event) {
                        return found;
                    }
                }
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    while let Ok(Some(event)) = reader.finish(true) {
        if !take(event) {
            break;
        }
    }
    found
}

/// Documents are pieces of the input in their order, however it is cut, and can be taken apart in every way.
pub(crate) fn documents(data: &[u8]) {
    let Some((&seed, input)) = data.split_first() else { return };
    let whole = read_documents(std::iter::once(input));
    let cut = read_documents(input.chunks(usize::from(seed) + 1));
    let told = |documents: &[Document]| {
        let told = |one: &Document| (one.bytes(), one.complete, one.tags.clone());
        documents.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(told(&whole), told(&cut), "documents depend on how the answer is cut");
    let (mut rest, mut calls) = (input, Recordings::new(Gaps::Silence));
    for document in &whole {
        let bytes = document.bytes();
        let at = rest.windows(bytes.len().max(1)).position(|window| window == bytes);
        let at = at.expect("a document is a piece of the input, behind the one before");
        rest = &rest[at + bytes.len()..];
        let (elements, _) = tree(bytes.clone());
        assert!(elements.iter().all(|element| element.offset < bytes.len() as u64));
        let _ = document.failure();
        let Ok(contents) = document.contents() else { continue };
        for piece in calls.take(&contents, &[FROM_CUSTOMER, TO_CUSTOMER]) {
            assert!(!piece.samples.is_empty() && piece.samples.len() <= bytes.len());
        }
        for track in contents.tracks.iter() {
            let _ = contents.wav(&track.name);
        }
    }
}

fn read_documents<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Document> {
    let (mut reader, mut found) = (Documents::default(), Vec::new());
    for piece in pieces {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next_document() {
                Ok(Some(document)) => found.push(document),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    while let Ok(Some(document)) = reader.finish(true) {
        found.push(document);
    }
    found
}

/// Tags that were read are the same when they are written, in both widths, and read again.
pub(crate) fn tags(data: &[u8]) {
    let Ok(found) = elements::tags::parse(data) else { return };
    let items: Vec<(&str, &str)> =
        found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for written in [write::tags(&items), write::tags_fixed4(&items)] {
        let header = parse_header(&written).expect("our own element");
        let again = elements::tags::parse(&written[header.length..]);
        assert_eq!(again.as_ref(), Ok(&found));
    }
}

/// Texts inside tags and acks.
pub(crate) fn kvs_texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(number) = text.parse::<FragmentNumber>() {
        assert_eq!(number.to_string(), text);
    }
    if let Ok(identity) = text.parse::<FragmentIdentity>() {
        let again: FragmentIdentity = identity.to_string().parse().expect("what we write we read");
        assert_eq!((again.id, again.timecode_ms), (identity.id, identity.timecode_ms));
    }
    if let Some(ms) = kvs::tag::parse_seconds(&text) {
        assert_eq!(kvs::tag::parse_seconds(&kvs::tag::format_seconds(ms)), Some(ms));
    }
}
