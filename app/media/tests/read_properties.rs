//! Properties of the reader over generated and damaged input.

mod support;

use bytes::{Bytes, BytesMut};
use media::mkv::elements::tags;
use media::mkv::id;
use media::mkv::read::{Event, EventKind, Limits, Parser, ReadError, read_all};
use media::mkv::write;
use proptest::prelude::*;
use proptest::sample::Index;

use support::{raw, read_chunks, recorded};

/// What the writer is asked to write, and the reader must tell.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Cluster(u64),
    Block { track: u8, offset: i16, key_frame: bool, payload: Vec<u8> },
    Tags(Vec<(String, String)>),
    Document,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let text = "[^\\x00]{0,20}";
    let step = prop_oneof![
        1 => any::<u64>().prop_map(Step::Cluster),
        6 => (1..=200u8, any::<i16>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(
            |(track, offset, key_frame, payload)| Step::Block { track, offset, key_frame, payload }
        ),
        1 => prop::collection::vec((text, text), 0..4).prop_map(Step::Tags),
        1 => Just(Step::Document),
    ];
    prop::collection::vec(step, 0..40).prop_map(only_valid)
}

/// Blocks only inside clusters, everything inside a document.
fn only_valid(steps: Vec<Step>) -> Vec<Step> {
    let mut in_cluster = false;
    let mut valid = vec![Step::Document];
    for step in steps {
        match step {
            Step::Block { .. } if !in_cluster => continue,
            Step::Cluster(_) => in_cluster = true,
            Step::Tags(_) | Step::Document => in_cluster = false,
            Step::Block { .. } => {}
        }
        valid.push(step);
    }
    valid
}

fn written(steps: &[Step]) -> Bytes {
    let mut out = BytesMut::new();
    for step in steps {
        match step {
            Step::Document => out.extend_from_slice(&write::header([7; 16], "test", &[])),
            Step::Cluster(ms) => out.extend_from_slice(&write::cluster_start(*ms)),
            Step::Block { track, offset, key_frame, payload } => {
                out.extend_from_slice(&write::block_head(*track, *offset, *key_frame, payload.len()));
                out.extend_from_slice(payload);
            }
            Step::Tags(items) => {
                let items: Vec<_> =
                    items.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                out.extend_from_slice(&write::tags(&items));
            }
        }
    }
    out.freeze()
}

/// The steps that these events tell.
fn told(events: &[Event]) -> Vec<Step> {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Ebml => Some(Step::Document),
            EventKind::Timecode { ms } => Some(Step::Cluster(*ms)),
            EventKind::Block { track, offset, key_frame, lacing: 0 } => Some(Step::Block {
                track: u8::try_from(*track).unwrap(),
                offset: *offset,
                key_frame: *key_frame,
                payload: event.body().to_vec(),
            }),
            EventKind::Element { id: id::TAGS } => Some(Step::Tags(tags::parse(event.body()).unwrap())),
            _ => None,
        })
        .collect()
}

/// `data` cut at these places.
fn cut_at(data: &Bytes, places: &[Index]) -> Vec<Bytes> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(data.len() + 1)).collect();
    places.extend([0, data.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| data.slice(pair[0]..pair[1])).collect()
}

/// The events of these chunks when after each push only so many are read, and all at the end.
fn interleaved(chunks: Vec<Bytes>, reads: &[usize]) -> (Vec<Event>, Option<ReadError>) {
    let (mut parser, mut events) = (Parser::new(Limits::default()), Vec::new());
    let last = chunks.len();
    for (index, chunk) in chunks.into_iter().enumerate() {
        parser.push(chunk);
        let reads = if index + 1 == last { usize::MAX } else { reads.get(index).copied().unwrap_or(0) };
        for _ in 0..reads {
            match parser.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    let read = parser.read_to_end(&mut events);
    (events, read.err())
}

/// GetMedia's answers come so: a piece that ends with an element is read to its end while the next one waits already.
#[test]
fn a_push_that_is_read_to_its_border_keeps_its_place_before_later_pushes() {
    for which in 0..3 {
        let data = recorded(["ok_put_001.mkv", "hevc_put_001.mkv", "av_put_001.mkv"][which]);
        let data = data.slice(..20_000.min(data.len()));
        let (whole, error) = interleaved(vec![data.clone()], &[]);
        for count in 1..whole.len() {
            let border: usize = whole[..count].iter().map(|event| event.raw.len()).sum();
            for more in [1, 7, 500] {
                let second = (border + more).min(data.len());
                let chunks = vec![data.slice(..border), data.slice(border..second), data.slice(second..)];
                // All events of the first push while the second one waits, then the third.
                let mut parser = Parser::new(Limits::default());
                let mut chunks = chunks.into_iter();
                parser.push(chunks.next().expect("three"));
                parser.push(chunks.next().expect("three"));
                let mut events = Vec::new();
                while events.len() < count {
                    events.push(parser.next_event().expect("sound").expect("it is all there"));
                }
                parser.push(chunks.next().expect("three"));
                let found = loop {
                    match parser.finish() {
                        Ok(Some(event)) => events.push(event),
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                assert_eq!(found, error, "border {border}, {more} more");
                assert!(joined(events) == joined(whole.clone()), "border {border}, {more} more");
            }
        }
    }
}

/// Adjacent pieces of a skipped element are one, because how it is cut depends on the pushes.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), &event.kind) {
            (Some(last), EventKind::Skipped { .. }) if last.kind == event.kind => {
                last.raw = [&last.raw[..], &event.raw[..]].concat().into();
            }
            _ => out.push(event),
        }
    }
    out
}

/// A recorded body, shortened so that damage often hits structure.
fn sample(which: Index) -> Bytes {
    let name = ["ok_put_001.mkv", "hevc_put_001.mkv", "av_put_001.mkv"][which.index(3)];
    let data = recorded(name);
    let tail = data.slice(data.len() - 84..);
    [&data[..2_000.min(data.len())], &tail[..]].concat().into()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn what_is_written_is_read_back(steps in steps(), places in prop::collection::vec(any::<Index>(), 0..20)) {
        let data = written(&steps);
        let (events, error) = read_chunks(cut_at(&data, &places));
        prop_assert_eq!(error, None);
        prop_assert_eq!(told(&events), steps);
        prop_assert_eq!(raw(&events), data);
    }

    #[test]
    fn events_do_not_depend_on_when_they_are_read(
        steps in steps(),
        places in prop::collection::vec(any::<Index>(), 0..20),
        reads in prop::collection::vec(prop_oneof![Just(0), 1..6_usize, Just(usize::MAX)], 0..20),
    ) {
        let data = written(&steps);
        let (whole, _) = read_chunks([data.clone()]);
        // At borders of elements above all, where a push can be read to its end.
        let mut borders: Vec<usize> = whole.iter().scan(0, |at, event| { *at += event.raw.len(); Some(*at) }).collect();
        borders.push(data.len() + 1);
        let mut cuts: Vec<usize> = places
            .iter()
            .enumerate()
            .map(|(n, place)| if n % 3 == 0 { place.index(data.len() + 1) } else { borders[place.index(borders.len() - 1)] })
            .collect();
        cuts.extend([0, data.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|pair| data.slice(pair[0]..pair[1])).collect();
        let (events, error) = interleaved(chunks, &reads);
        prop_assert_eq!(error, None);
        prop_assert_eq!(raw(&events), data);
        prop_assert_eq!(joined(events), joined(whole));
    }

    #[test]
    fn damaged_input_gives_the_same_however_it_is_cut(
        which in any::<Index>(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        end in prop::option::of(any::<Index>()),
        places in prop::collection::vec(any::<Index>(), 0..30),
        cap in prop_oneof![Just(1 << 20), 1..64usize],
    ) {
        let mut data = sample(which).to_vec();
        for (place, value) in &damage {
            let at = place.index(data.len());
            data[at] = *value;
        }
        if let Some(end) = end {
            data.truncate(end.index(data.len()));
        }
        let data = Bytes::from(data);
        let limits = Limits { header_element_bytes: cap, block_bytes: 1 << 20 };
        let (events, error) = read_all(limits, [data.clone()]);
        let (again, same_error) = read_all(limits, cut_at(&data, &places));
        prop_assert!(data.starts_with(&raw(&events)));
        prop_assert!(error.is_some() || raw(&events).len() == data.len());
        prop_assert_eq!(same_error, error);
        prop_assert_eq!(joined(again), joined(events));
    }

    #[test]
    fn any_bytes_give_events_or_an_error(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let data = Bytes::from(data);
        let (events, error) = read_chunks([data.clone()]);
        prop_assert!(data.starts_with(&raw(&events)));
        prop_assert!(error.is_some() || data.is_empty() || raw(&events) == data);
    }
}
