use super::*;
use crate::epoch;
use crate::fragmenter::Fragmenter;
use crate::testing::{START_MS, audio, config, format, parts, stream, unit};

const SECOND: Duration = Duration::from_secs(1);

/// A service that reads what is sent and remembers it.
struct Rig {
    upload: PutMedia,
    now: Instant,
    /// All bytes of the running session.
    wire: Vec<u8>,
}

impl Rig {
    fn new(config: PutMediaConfig) -> Self {
        let start_interval = Duration::ZERO;
        Self {
            upload: PutMedia::new(PutMediaConfig { start_interval, ..config }),
            now: epoch(),
            wire: Vec::new(),
        }
    }

    fn with(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut rig = Self::new(PutMediaConfig::default());
        parts.into_iter().for_each(|part| rig.upload.part(part));
        rig.connect();
        rig
    }

    fn connect(&mut self) {
        self.wire.clear();
        self.upload.connected(self.now);
    }

    /// Sends all that may be sent; gives what stopped it.
    fn pump(&mut self) -> Output {
        loop {
            match self.upload.next_bytes(self.now) {
                Output::Send(bytes) => self.wire.extend_from_slice(&bytes),
                other => return other,
            }
        }
    }

    fn ack(&mut self, event: AckEvent, timecode_ms: Option<u64>) {
        let timecode_ms = timecode_ms.map(|ms| i64::try_from(START_MS + ms).expect("small"));
        let number = Some(FragmentNumber::new(1, START_MS, 0));
        self.upload.ack(&Ack { event, timecode_ms, number }, self.now);
    }

    fn error(&mut self, id: u32, timecode_ms: Option<u64>) {
        self.ack(AckEvent::Error(AckError::from_id(id)), timecode_ms);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.upload.next_event()).collect()
    }

    fn persisted(&mut self) -> Vec<u64> {
        let sequence = |event| match event {
            Event::Persisted { summary, .. } => Some(summary.id.sequence),
            _ => None,
        };
        self.events().into_iter().filter_map(sequence).collect()
    }

    /// Timecodes of the clusters on the wire, relative to the start.
    fn clusters(&self) -> Vec<u64> {
        let mut parser = media::mkv::read::Parser::new(media::mkv::read::Limits::default());
        parser.push(self.wire.clone().into());
        let mut found = Vec::new();
        while let Ok(Some(event)) = parser.next_event() {
            if let media::mkv::read::EventKind::Timecode { ms } = event.kind {
                found.push(ms - START_MS);
            }
        }
        found
    }

    fn ends_with_end_of_fragment(&self) -> bool {
        self.wire.ends_with(&write::tags(&[(tag::END_OF_FRAGMENT, "")]))
    }
}

#[test]
fn only_persisted_releases_a_fragment() {
    let mut rig = Rig::with(stream(2));
    assert_eq!(rig.pump(), Output::Wait);
    assert_eq!(rig.clusters(), [0, 1000]);
    assert!(rig.ends_with_end_of_fragment(), "the last fragment was closed by the camera's end");
    rig.ack(AckEvent::Buffering, Some(0));
    rig.ack(AckEvent::Received, Some(0));
    assert_eq!(rig.upload.backlog().fragments, 2);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);
    assert_eq!(rig.upload.backlog().fragments, 1);
    rig.upload.finish();
    assert_eq!(rig.pump(), Output::Wait, "one is still open");
    rig.ack(AckEvent::Persisted, Some(1000));
    assert_eq!(rig.pump(), Output::Close(CloseReason::Finished));
    assert!(rig.upload.is_empty());
    assert_eq!(rig.upload.backlog(), Backlog::default());
}

#[test]
fn blocks_leave_while_the_fragment_grows() {
    let mut parts = stream(1);
    let end = parts.pop().expect("an end");
    let mut rig = Rig::with(parts.drain(..3));
    rig.pump();
    let early = rig.wire.len();
    parts.into_iter().for_each(|part| rig.upload.part(part));
    rig.pump();
    assert!(rig.wire.len() > early);
    rig.ack(AckEvent::Persisted, Some(0));
    assert!(matches!(rig.events()[..], [Event::StrayAck(_)]), "an ack for what was not wholly sent");
    rig.upload.part(end);
    rig.pump();
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);
}

#[test]
fn a_lost_connection_sends_again_what_was_not_persisted_and_nothing_else() {
    let mut rig = Rig::with(stream(3));
    rig.pump();
    rig.ack(AckEvent::Persisted, Some(0));
    rig.upload.disconnected();
    assert!(rig.upload.wants_session());
    let doubtful: Vec<_> = rig.upload.unconfirmed().iter().map(|u| u.summary.id.sequence).collect();
    assert_eq!(doubtful, [2, 3]);
    rig.upload.confirm(2, FragmentNumber::new(2, START_MS, 0), rig.now);
    rig.connect();
    rig.pump();
    assert_eq!(rig.clusters(), [2000]);
    assert_eq!(rig.persisted(), [1, 2]);
}

#[test]
fn the_half_sent_fragment_is_sent_again_whole() {
    let mut parts = stream(1);
    let rest = parts.split_off(3);
    let mut rig = Rig::with(parts);
    rig.pump();
    rig.upload.disconnected();
    assert!(rig.upload.unconfirmed().is_empty(), "still growing: it cannot be there");
    rig.connect();
    rest.into_iter().for_each(|part| rig.upload.part(part));
    rig.pump();
    assert_eq!(rig.clusters(), [0]);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);
}

#[test]
fn rotation_happens_at_a_border_and_drains_first() {
    let mut rig = Rig::with(stream(1));
    rig.pump();
    rig.ack(AckEvent::Persisted, Some(0));
    rig.now += 41 * 60 * SECOND;
    stream(2)
        .into_iter()
        .skip_while(|part| !matches!(part, Part::End(_)))
        .skip(1)
        .for_each(|p| rig.upload.part(p));
    assert_eq!(rig.pump(), Output::Close(CloseReason::Rotation));
    rig.upload.disconnected();
    rig.connect();
    rig.pump();
    assert_eq!(rig.clusters(), [1000]);
}

#[test]
fn another_header_needs_another_session() {
    let mut fragmenter = Fragmenter::new(config());
    fragmenter.video(&unit(&format(640), 0, true));
    fragmenter.video(&unit(&format(320), 200, true));
    fragmenter.finish();
    let mut rig = Rig::with(parts(&mut fragmenter));
    assert_eq!(rig.pump(), Output::Wait);
    assert!(rig.ends_with_end_of_fragment(), "the service must learn that the first one is whole");
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.pump(), Output::Close(CloseReason::HeaderChange));
    rig.upload.disconnected();
    rig.connect();
    rig.pump();
    assert_eq!(rig.clusters(), [200]);
}

#[test]
fn each_error_has_its_reaction() {
    for id in AckError::known_ids() {
        let mut rig = Rig::with(stream(2));
        rig.pump();
        rig.error(id, Some(0));
        let closed = rig.pump();
        assert_eq!(closed, Output::Close(CloseReason::Refused(AckError::from_id(id))));
        let lost = rig.events().iter().any(|event| matches!(event, Event::Lost { .. }));
        rig.upload.disconnected();
        rig.connect();
        rig.pump();
        // Without an audio track there is nothing to leave out: 4011 is then as final as a skip.
        let gone =
            matches!(AckError::from_id(id).reaction(), Reaction::Skip | Reaction::ResendWithoutSilentTracks);
        assert_eq!(lost, gone && id != 4011 || lost && id == 4011, "{id}");
        let first = rig.clusters()[0];
        assert_eq!(first, if lost { 1000 } else { 0 }, "{id}");
    }
}

#[test]
fn an_error_without_a_timecode_means_the_fragment_under_way() {
    let mut parts = stream(2);
    parts.truncate(10); // the second fragment is still growing
    let mut rig = Rig::with(parts);
    rig.pump();
    rig.ack(AckEvent::Persisted, Some(0));
    rig.error(4006, None);
    assert_eq!(rig.upload.backlog().bytes, 0);
    stream(3).into_iter().skip(10).for_each(|part| rig.upload.part(part));
    let lost: Vec<_> = rig
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Lost { sequence, end, .. } => Some((sequence, end.as_millis() - START_MS)),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(2, 1800)], "reported once its end is known");
    rig.upload.disconnected();
    rig.connect();
    rig.pump();
    assert_eq!(rig.clusters(), [2000], "the rest of the refused one is not sent");
    assert_eq!(rig.upload.backlog().fragments, 1);
}

#[test]
fn refused_tags_are_left_out_and_a_silent_track_is_declared_no_more() {
    let mut rig = Rig::with(stream(1));
    rig.pump();
    let with_tag = rig.wire.len();
    rig.error(4009, Some(0));
    rig.upload.disconnected();
    rig.connect();
    rig.pump();
    assert!(rig.wire.len() < with_tag - 100);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);

    let mut fragmenter = Fragmenter::new(config());
    fragmenter.announce_audio(audio(0).format);
    fragmenter.video(&unit(&format(640), 0, true));
    fragmenter.finish();
    let mut rig = Rig::with(parts(&mut fragmenter));
    rig.pump();
    let declared = rig.wire.len();
    rig.error(4011, Some(0));
    rig.upload.disconnected();
    rig.connect();
    rig.pump();
    assert!(rig.wire.len() < declared);
    assert!(!rig.events().iter().any(|event| matches!(event, Event::Lost { .. })));
}

#[test]
fn silence_of_the_service_ends_the_session() {
    let mut rig = Rig::with(stream(1));
    rig.pump();
    rig.now += 30 * SECOND;
    rig.ack(AckEvent::Buffering, Some(0));
    assert_eq!(rig.upload.next_timeout(), Some(epoch() + 20 * SECOND));
    rig.now += 59 * SECOND;
    assert_eq!(rig.pump(), Output::Wait);
    rig.now += SECOND;
    assert_eq!(rig.pump(), Output::Close(CloseReason::AckTimeout { waited_s: 60 }));
}

#[test]
fn an_ack_that_never_comes_among_others_is_asked_for() {
    let mut rig = Rig::with(stream(2));
    rig.pump();
    rig.ack(AckEvent::Persisted, Some(1000));
    assert_eq!(rig.upload.doubtful(rig.now), []);
    rig.now += 5 * SECOND;
    let doubtful: Vec<_> =
        rig.upload.doubtful(rig.now).iter().map(|doubt| doubt.summary.id.sequence).collect();
    assert_eq!(doubtful, [1]);
    rig.upload.not_there(77);
    assert_eq!(rig.pump(), Output::Wait);
    rig.upload.not_there(1);
    assert_eq!(rig.pump(), Output::Close(CloseReason::AckMissing { sequence: 1 }));
    rig.upload.disconnected();
    rig.connect();
    rig.pump();
    assert_eq!(rig.clusters(), [0]);
}

#[test]
fn the_service_may_be_silent_while_it_owes_nothing() {
    let mut parts = stream(1);
    let end = parts.pop().expect("an end");
    let config = PutMediaConfig { ack_timeout: 5 * SECOND, ..PutMediaConfig::default() };
    let mut rig = Rig::new(config);
    parts.into_iter().for_each(|part| rig.upload.part(part));
    rig.connect();
    rig.pump();
    rig.now += 8 * SECOND; // a fragment as long as it may be
    rig.upload.part(end);
    assert_eq!(rig.pump(), Output::Wait, "the ack is owed from here on");
    rig.now += 5 * SECOND;
    assert_eq!(rig.pump(), Output::Close(CloseReason::AckTimeout { waited_s: 5 }));
}

#[test]
fn a_service_that_receives_and_never_keeps_is_noticed() {
    let mut rig = Rig::with(stream(2));
    rig.pump();
    rig.ack(AckEvent::Received, Some(0));
    rig.now += 59 * SECOND;
    rig.ack(AckEvent::Received, Some(1000));
    rig.upload.not_there(1);
    assert_eq!(rig.pump(), Output::Wait, "not there yet: it may come");
    assert_eq!(rig.upload.next_timeout(), Some(epoch() + 60 * SECOND));
    rig.now += SECOND;
    let closed = rig.pump();
    assert_eq!(closed, Output::Close(CloseReason::NotPersisted { sequence: 1, waited_s: 60 }));
    rig.upload.disconnected();
    rig.connect();
    rig.pump();
    assert_eq!(rig.clusters(), [0, 1000]);
    assert_eq!(rig.upload.next_timeout(), Some(rig.now + 20 * SECOND), "the next session starts afresh");
}

#[test]
fn an_error_about_what_is_released_already_costs_no_other_fragment() {
    for (timecode_ms, lost) in [(Some(0), false), (None, true)] {
        let mut rig = Rig::with(stream(2));
        rig.pump();
        rig.ack(AckEvent::Persisted, Some(0));
        rig.error(4001, timecode_ms);
        let found = rig.events().iter().any(|event| matches!(event, Event::Lost { sequence: 2, .. }));
        assert_eq!(found, lost, "{timecode_ms:?}");
    }
}

#[test]
fn an_idle_session_is_closed_before_the_service_does_it() {
    let mut rig = Rig::with(stream(1));
    rig.pump();
    rig.ack(AckEvent::Persisted, Some(0));
    rig.now += 20 * SECOND;
    assert_eq!(rig.pump(), Output::Close(CloseReason::Idle));
    assert!(!CloseReason::Idle.is_failure());
    rig.upload.disconnected();
    assert!(!rig.upload.wants_session());
}

#[test]
fn a_full_window_drops_the_oldest_whole_fragment_and_says_so() {
    let parts = stream(10);
    let all: usize = {
        let mut rig = Rig::new(PutMediaConfig::default());
        parts.iter().cloned().for_each(|part| rig.upload.part(part));
        rig.upload.backlog().bytes
    };
    let mut rig = Rig::new(PutMediaConfig { window_bytes: all / 2, ..PutMediaConfig::default() });
    parts.into_iter().for_each(|part| rig.upload.part(part));
    let lost: Vec<_> = rig
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Lost { sequence, reason: LossReason::WindowFull, .. } => sequence,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lost, [1, 2, 3, 4, 5]);
    assert!(rig.upload.backlog().bytes <= all / 2);
    rig.connect();
    rig.pump();
    assert_eq!(rig.clusters(), [5000, 6000, 7000, 8000, 9000]);
}

#[test]
fn a_full_window_does_not_drop_what_only_waits_for_its_ack() {
    let parts = stream(4);
    let mut rig = Rig::new(PutMediaConfig::default());
    let first_end = parts.iter().position(|part| matches!(part, Part::End(_))).expect("an end");
    parts[..=first_end].iter().cloned().for_each(|part| rig.upload.part(part));
    let one = rig.upload.backlog().bytes;
    rig.upload.config.window_bytes = one * 5 / 2;
    rig.connect();
    rig.pump();
    parts[first_end + 1..].iter().cloned().for_each(|part| rig.upload.part(part));
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1], "it was sent whole, and KVS has it");
}

#[test]
fn a_backlog_respects_the_services_fragment_rate() {
    let mut upload = PutMedia::new(PutMediaConfig::default());
    stream(3).into_iter().for_each(|part| upload.part(part));
    let mut now = epoch();
    upload.connected(now);
    let mut starts = Vec::new();
    while starts.len() < 3 {
        match upload.next_bytes(now) {
            Output::Send(bytes) if bytes.starts_with(&[0x1f, 0x43, 0xb6, 0x75]) => starts.push(now),
            Output::Send(_) => {}
            _ => now = upload.next_timeout().expect("waits for the rate"),
        }
    }
    assert!(starts.windows(2).all(|two| two[1] - two[0] == Duration::from_millis(200)));
}

#[test]
fn stray_acks_release_nothing() {
    let mut rig = Rig::with(stream(1));
    rig.pump();
    rig.ack(AckEvent::Persisted, Some(77));
    rig.ack(AckEvent::Persisted, None);
    assert_eq!(rig.events().len(), 2);
    assert_eq!(rig.upload.backlog().fragments, 1);
}
