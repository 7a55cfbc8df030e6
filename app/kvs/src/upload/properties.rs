//! Whatever happens in whatever order: nothing vanishes uncounted, nothing is sent in vain without end, no spinning.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::rig::{Rig, SECOND, broken, config};
use super::source::FragmentSource;
use super::*;
use crate::ack::AckEvent;
use crate::testing::stream;

#[derive(Clone, Debug)]
enum Happens {
    Parts(usize),
    /// What the service says, and about which of the fragments.
    Ack(u8, u64),
    Error(u32, Option<u64>),
    Cut,
    EndedInOrder,
    SenderFailed,
    NotOpened(bool),
    /// The connection takes what is given out from now on, or does not.
    Reads(bool),
    Opens(bool),
    Accepts(bool),
    Socket(u64),
    /// The last question is answered: which of its fragments are there, absent, or not to be asked for.
    Answer(u64, u64),
    CouldNotAsk(bool),
    Wait(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let ids = prop::sample::select(AckError::known_ids().collect::<Vec<_>>());
    prop_oneof![
        12 => (1_usize..8).prop_map(Happens::Parts),
        8 => (0_u8..5, 0_u64..12).prop_map(|(kind, which)| Happens::Ack(kind, which)),
        2 => (ids, prop::option::of(0_u64..12)).prop_map(|(id, which)| Happens::Error(id, which)),
        1 => Just(Happens::Cut),
        1 => Just(Happens::EndedInOrder),
        1 => Just(Happens::SenderFailed),
        1 => any::<bool>().prop_map(Happens::NotOpened),
        2 => any::<bool>().prop_map(Happens::Reads),
        1 => any::<bool>().prop_map(Happens::Opens),
        1 => any::<bool>().prop_map(Happens::Accepts),
        2 => (0_u64..4000).prop_map(Happens::Socket),
        4 => (any::<u64>(), any::<u64>()).prop_map(|(there, absent)| Happens::Answer(there, absent)),
        1 => any::<bool>().prop_map(Happens::CouldNotAsk),
        6 => (0_u64..4_000).prop_map(Happens::Wait),
        1 => (0_u64..100_000).prop_map(Happens::Wait),
    ]
}

fn happen(rig: &mut Rig, parts: &mut impl Iterator<Item = crate::fragmenter::Part>, happens: Happens) {
    let failure = |operator| {
        let retry = if operator { Retry::Operator } else { Retry::Soon };
        Failure::new(Reason::UploadFailed, "refused", retry)
    };
    match happens {
        Happens::Parts(count) => rig.parts(parts.take(count).collect::<Vec<_>>()),
        Happens::Ack(kind, which) => {
            let event = match kind {
                0 => AckEvent::Buffering,
                1 => AckEvent::Received,
                2 => AckEvent::Persisted,
                3 => AckEvent::Idle,
                _ => AckEvent::Unknown("LATER".to_owned()),
            };
            rig.ack(event, Some(which * 1000));
        }
        Happens::Error(id, which) => rig.error(id, which.map(|which| which * 1000)),
        Happens::Cut => rig.cut(),
        Happens::EndedInOrder => rig.driver.ended(Ok(()), rig.now),
        Happens::SenderFailed => rig.driver.sender_failed(broken(), rig.now),
        Happens::NotOpened(operator) => rig.driver.not_opened(failure(operator), rig.now),
        Happens::Reads(reads) => {
            rig.reads = reads;
            if reads {
                rig.take();
            }
        }
        Happens::Opens(opens) => rig.opens = opens,
        Happens::Accepts(accepts) => rig.accepts = accepts,
        Happens::Socket(written) => rig.driver.socket(written, rig.now),
        Happens::Answer(there, absent) => {
            let Some(asked) = rig.asked.take() else { return };
            let has = |mask: u64, id: &FragmentId| mask >> (id.sequence % 64) & 1 == 1;
            let ids: Vec<_> = asked.iter().map(|doubt| doubt.summary.id).collect();
            let found = ids.iter().filter(|id| has(there, id));
            let found = found.map(|id| (*id, rig::number(id.sequence))).collect();
            let absent = ids.iter().filter(|id| !has(there, id) && has(absent, id)).copied().collect();
            rig.driver.looked_up(LookedUp::Answer { found, absent }, rig.now);
        }
        Happens::CouldNotAsk(operator) => {
            rig.asked = None;
            rig.driver.looked_up(LookedUp::CouldNotAsk(failure(operator)), rig.now);
        }
        Happens::Wait(ms) => rig.wait(Duration::from_millis(ms)),
    }
    rig.run();
}

/// Everything works again, and all that is sent is persisted.
fn heal(rig: &mut Rig) {
    (rig.opens, rig.accepts, rig.reads, rig.answers) = (true, true, true, true);
    for _ in 0..400 {
        if rig.asked.is_some() {
            rig.answer(&[]);
        }
        rig.take();
        rig.driver.socket(u64::MAX, rig.now);
        rig.run();
        if rig.connected {
            rig.driver.accepted(rig.now);
            rig.run();
            for timecode_ms in rig.clusters() {
                rig.ack(AckEvent::Persisted, Some(timecode_ms));
            }
        }
        if rig.driver.is_empty() {
            return;
        }
        rig.wait(SECOND);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_fragment_ends_in_one_way_and_the_bytes_add_up(
        window in 300_usize..6000,
        happening in prop::collection::vec(happens(), 1..80),
    ) {
        let config = UploadConfig { window_bytes: window, doubt_after: SECOND * 5, ..config() };
        let mut rig = Rig::new(config);
        rig.answers = false;
        let all = stream(12);
        let mut parts = all.iter().cloned();
        for one in happening {
            happen(&mut rig, &mut parts, one);
            let held: usize = rig.driver.source.held().map(|held| held.bytes).sum();
            prop_assert_eq!(rig.driver.backlog().bytes, held);
            prop_assert!(held <= window, "{} of {}", held, window);
        }
        rig.parts(parts.collect::<Vec<_>>());
        heal(&mut rig);
        prop_assert!(rig.driver.is_empty(), "{:?} {:?}", rig.driver.unconfirmed(), rig.driver.state());
        let mut ends: BTreeMap<u64, u32> = BTreeMap::new();
        for sequence in rig.persisted().into_iter().chain(rig.lost()) {
            *ends.entry(sequence).or_default() += 1;
        }
        prop_assert_eq!(ends, (1..=12).map(|sequence| (sequence, 1)).collect());
        prop_assert_eq!(rig.ledger.unsettled().count(), 0);
        let counts = rig.ledger.counts();
        prop_assert_eq!(counts.persisted + counts.lost, 12);
    }

    /// Without refusals and with room enough nothing is ever lost.
    #[test]
    fn no_break_silence_or_slowness_costs_a_fragment(happening in prop::collection::vec(happens(), 1..80)) {
        let mut rig = Rig::new(UploadConfig { doubt_after: SECOND * 5, ..config() });
        rig.answers = false;
        let all = stream(12);
        let mut parts = all.iter().cloned();
        for one in happening.into_iter().filter(|one| !matches!(one, Happens::Error(..))) {
            happen(&mut rig, &mut parts, one);
        }
        rig.parts(parts.collect::<Vec<_>>());
        heal(&mut rig);
        prop_assert_eq!(rig.lost(), Vec::<u64>::new());
        let mut persisted = rig.persisted();
        persisted.sort_unstable();
        prop_assert_eq!(persisted, (1..=12).collect::<Vec<_>>());
    }
}
