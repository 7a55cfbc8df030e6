//! Targets of the crate `kvs`.

use bytes::Bytes;
use kvs::FragmentNumber;
use kvs::ack::{Ack, AckParser};
use kvs::identity::FragmentIdentity;
use kvs::read::chunk::{Answer, ChunkReader, Event};
use kvs::read::hls::playlist::{Playlist, resolve};

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
