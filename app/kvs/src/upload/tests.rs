//! Each ack, cut, refusal, silence and slow reader against the driver.

use std::time::Duration;

use super::rig::{Rig, SECOND, broken, config, number};
use super::*;
use crate::ack::{AckEvent, Reaction};
use crate::fragmenter::{Fragmenter, Part};
use crate::testing::{START_MS, audio, config as fragmenter_config, format, parts, stream, unit};

fn until_end(parts: &[Part], fragments: usize) -> usize {
    let ends = parts.iter().enumerate().filter(|(_, part)| matches!(part, Part::End(_)));
    ends.map(|(at, _)| at + 1).nth(fragments - 1).expect("so many fragments")
}

#[test]
fn only_persisted_releases_a_fragment() {
    let mut rig = Rig::with(stream(2));
    assert_eq!(rig.clusters(), [0, 1000]);
    assert!(rig.ends_with_end_of_fragment(), "the last fragment was closed by the camera's end");
    rig.ack(AckEvent::Buffering, Some(0));
    rig.ack(AckEvent::Received, Some(0));
    assert_eq!(rig.driver.backlog().fragments, 2);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);
    rig.driver.finish(rig.now);
    rig.run();
    assert_eq!((rig.driver.backlog().fragments, rig.driver.is_over()), (1, false), "one is still open");
    rig.ack(AckEvent::Persisted, Some(1000));
    assert_eq!(rig.reason(), Some(&CloseReason::Finished));
    assert!(rig.driver.is_over() && rig.driver.is_empty());
    assert_eq!(rig.driver.backlog(), Backlog::default());
    assert_eq!(rig.driver.next_deadline().filter(|at| *at <= rig.now), None);
}

#[test]
fn blocks_leave_while_the_fragment_grows() {
    let mut parts = stream(1);
    let end = parts.pop().expect("an end");
    let mut rig = Rig::with(parts.drain(..3));
    let early = rig.wire.len();
    rig.parts(parts);
    assert!(rig.wire.len() > early);
    rig.ack(AckEvent::Persisted, Some(0));
    let stray = rig.events.iter().any(|event| matches!(event, Event::StrayAck(_)));
    assert!(stray && rig.persisted().is_empty(), "an ack for what was not wholly sent");
    rig.parts([end]);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);
}

#[test]
fn a_lost_connection_sends_again_what_is_not_there_and_nothing_else() {
    let mut rig = Rig::with(stream(3));
    rig.answers = false;
    rig.ack(AckEvent::Buffering, Some(0));
    rig.ack(AckEvent::Persisted, Some(0));
    rig.ack(AckEvent::Received, Some(1000));
    rig.cut();
    assert_eq!(rig.asked(), [0; 0], "a list may lag behind");
    rig.wait(Duration::from_millis(1999));
    assert_eq!(rig.asked(), [0; 0]);
    rig.wait(Duration::from_millis(1));
    let numbers: Vec<_> = rig.asked.iter().flatten().map(|doubt| doubt.number).collect();
    assert_eq!(
        (rig.asked(), numbers),
        (vec![2, 3], vec![Some(number(2)), None]),
        "by number where there is one"
    );
    assert_eq!(rig.opened, 1);
    rig.answer(&[2]);
    rig.run();
    assert_eq!((rig.opened, rig.clusters()), (2, vec![2000]));
    assert_eq!(rig.persisted(), [1, 2]);
}

#[test]
fn the_half_sent_fragment_is_sent_again_whole() {
    let mut parts = stream(1);
    let rest = parts.split_off(3);
    let mut rig = Rig::with(parts);
    rig.answers = false;
    rig.cut();
    rig.wait(SECOND / 2);
    assert_eq!(rig.opened, 2, "still growing: it cannot be there, nothing is asked");
    rig.parts(rest);
    assert_eq!(rig.clusters(), [0]);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);
}

#[test]
fn rotation_happens_at_a_border_and_drains_first() {
    let parts = stream(2);
    let border = until_end(&parts, 1);
    let config = UploadConfig { idle_close: SECOND * 86_400, ..config() };
    let mut rig = Rig::new(config);
    rig.parts(parts[..border].to_vec());
    rig.ack(AckEvent::Persisted, Some(0));
    rig.wait(SECOND * 41 * 60);
    assert_eq!(rig.reasons, []);
    rig.parts(parts[border..].to_vec());
    assert_eq!(rig.reasons, [CloseReason::Rotation]);
    assert_eq!((rig.opened, rig.clusters()), (2, vec![1000]), "the next one follows at once");
}

#[test]
fn another_header_needs_another_session() {
    let mut fragmenter = Fragmenter::new(fragmenter_config());
    fragmenter.video(&unit(&format(640), 0, true));
    fragmenter.video(&unit(&format(320), 200, true));
    fragmenter.finish();
    let mut rig = Rig::with(parts(&mut fragmenter));
    assert!(rig.ends_with_end_of_fragment(), "the service must learn that the first one is whole");
    assert_eq!(rig.reasons, []);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.reasons, [CloseReason::HeaderChange]);
    assert_eq!(rig.clusters(), [200]);
}

#[test]
fn each_error_has_its_reaction() {
    for id in AckError::known_ids() {
        let mut rig = Rig::with(stream(2));
        rig.error(id, Some(0));
        let error = AckError::from_id(id);
        assert_eq!(rig.reasons, [CloseReason::Refused(error.clone())], "{id}");
        let operator = error.reaction() == Reaction::Stop;
        assert_eq!(rig.driver.state() == UploadState::Failed, operator, "{id}");
        assert_eq!(rig.driver.problem().is_some(), error.needs_attention(), "{id}");
        let wait = if operator { SECOND * 30 } else { SECOND * 2 };
        rig.wait(wait - Duration::from_millis(1));
        assert_eq!(rig.opened, 1, "{id}");
        rig.wait(Duration::from_millis(1));
        assert_eq!(rig.opened, 2, "{id}");
        let gone = error.reaction() == Reaction::Skip;
        assert_eq!(rig.lost(), if gone { vec![1] } else { vec![] }, "{id}");
        assert_eq!(rig.clusters()[0], if gone { 1000 } else { 0 }, "{id}");
    }
}

#[test]
fn an_error_without_a_timecode_means_the_oldest_fragment_that_was_not_received() {
    let mut parts = stream(3);
    parts.truncate(10); // the second fragment is still growing
    let mut rig = Rig::with(parts);
    rig.ack(AckEvent::Persisted, Some(0));
    rig.error(4002, None);
    assert_eq!(rig.driver.backlog().bytes, 0);
    rig.parts(stream(3).into_iter().skip(10));
    let lost: Vec<_> =
        rig.losses().iter().map(|loss| (loss.id.sequence, loss.end.as_millis() - START_MS)).collect();
    assert_eq!(lost, [(2, 1800)], "reported once its end is known");
    rig.wait(SECOND * 2);
    assert_eq!(rig.clusters(), [2000], "the rest of the refused one is not sent");
    assert_eq!(rig.driver.backlog().fragments, 1);

    for (received, lost) in [(vec![], 1), (vec![0], 2), (vec![0, 1000], 3)] {
        let mut rig = Rig::with(stream(4));
        received.iter().for_each(|ms| rig.ack(AckEvent::Received, Some(*ms)));
        rig.error(4002, None);
        assert_eq!(rig.lost(), [lost], "received: {received:?}");
    }
    let mut rig = Rig::with(stream(1));
    rig.ack(AckEvent::Received, Some(0));
    rig.error(4002, None);
    assert_eq!(rig.lost(), [0; 0], "all of it was received");
}

#[test]
fn unreadable_data_that_the_service_does_not_name_is_sent_once_more_first() {
    for shake in ["pause", "silence", "break", "sender", "growing", "none"] {
        let parts = stream(2);
        let border = until_end(&parts, 1);
        let mut rig = Rig::with(parts[..border].to_vec());
        rig.ack(AckEvent::Persisted, Some(0));
        let time = |shaken: bool| if shaken { SECOND * 6 } else { Duration::ZERO };
        rig.wait(time(shake == "pause"));
        let sent = if shake == "growing" { border + 3 } else { parts.len() };
        rig.parts(parts[border..sent].to_vec());
        rig.wait(time(shake == "silence"));
        match shake {
            "break" => {
                rig.cut();
                rig.wait(SECOND * 2);
            }
            "sender" => rig.driver.sender_failed(broken(), rig.now),
            _ => {}
        }
        rig.error(4006, None);
        rig.parts(parts[sent..].to_vec());
        assert_eq!(rig.lost(), [0; 0], "{shake}");
        rig.wait(SECOND * 4);
        assert_eq!(rig.clusters(), [1000], "{shake}");
        rig.error(4006, None);
        assert_eq!(rig.lost(), [2], "{shake}: the second time counts");
    }
}

#[test]
fn refused_tags_are_left_out_and_a_silent_track_is_declared_no_more() {
    let mut rig = Rig::with(stream(1));
    let with_tag = rig.wire.len();
    rig.error(4009, Some(0));
    rig.wait(SECOND * 2);
    assert!(rig.wire.len() < with_tag - 100);
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);

    for timecode_ms in [Some(0), None] {
        let mut fragmenter = Fragmenter::new(fragmenter_config());
        fragmenter.announce_audio(audio(0).format);
        fragmenter.video(&unit(&format(640), 0, true));
        fragmenter.finish();
        let mut rig = Rig::with(parts(&mut fragmenter));
        let declared = rig.wire.len();
        rig.error(4011, timecode_ms);
        rig.wait(SECOND * 2);
        assert!(rig.wire.len() < declared);
        assert_eq!(rig.lost(), [0; 0]);
    }
}

#[test]
fn a_silent_track_that_no_timecode_names_is_looked_for_where_it_is() {
    let mut fragmenter = Fragmenter::new(fragmenter_config());
    let format = format(640);
    fragmenter.announce_audio(audio(0).format);
    (0..15_u64).for_each(|n| {
        // The second of three has no sound.
        if !(5..10).contains(&n) {
            fragmenter.audio(audio(n * 200));
        }
        fragmenter.video(&unit(&format, n * 200, n % 5 == 0));
    });
    fragmenter.finish();
    let mut rig = Rig::with(parts(&mut fragmenter));
    rig.error(4011, None);
    rig.wait(SECOND * 2);
    rig.ack(AckEvent::Persisted, Some(0));
    rig.run();
    assert_eq!((rig.lost(), rig.persisted()), (vec![], vec![1]));
    assert_eq!(rig.reason(), Some(&CloseReason::HeaderChange), "the second one goes without the track");
    assert_eq!(rig.clusters(), [1000]);
}

#[test]
fn silence_of_the_service_ends_the_session() {
    let mut rig = Rig::with(stream(1));
    rig.wait(SECOND * 15);
    rig.ack(AckEvent::Buffering, Some(0));
    rig.wait(SECOND * 60 - Duration::from_millis(1));
    assert_eq!(rig.reasons, []);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.reasons, [CloseReason::AckTimeout { waited_s: 60 }]);
    rig.wait(SECOND * 2);
    assert_eq!(rig.clusters(), [0]);
}

#[test]
fn an_ack_that_never_comes_among_others_is_asked_for() {
    let mut rig = Rig::new(UploadConfig { doubt_after: SECOND * 5, ..config() });
    rig.parts(stream(2));
    rig.ack(AckEvent::Persisted, Some(1000));
    rig.wait(SECOND * 5 - Duration::from_millis(1));
    assert_eq!(rig.asked(), [0; 0]);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.asked(), [1]);
    rig.answer(&[]);
    rig.run();
    assert_eq!(
        rig.reasons,
        [CloseReason::AckMissing { fragment: rig.ledger.at(START_MS).expect("the first").id }]
    );
    rig.wait(SECOND * 2);
    assert_eq!(rig.clusters(), [0]);

    let mut rig = Rig::new(UploadConfig { doubt_after: SECOND * 5, ..config() });
    rig.parts(stream(2));
    rig.wait(SECOND * 5);
    assert_eq!(rig.asked(), [1, 2]);
    rig.answer(&[1]);
    rig.run();
    assert_eq!((rig.persisted(), rig.opened), (vec![1], 1), "the second may be on its way");
    rig.wait(SECOND * 5);
    assert_eq!(rig.asked(), [2], "and is asked for again");
}

#[test]
fn the_service_may_be_silent_while_it_owes_nothing() {
    let mut parts = stream(1);
    let end = parts.pop().expect("an end");
    let mut rig = Rig::new(UploadConfig { ack_timeout: SECOND * 5, ..config() });
    rig.parts(parts);
    rig.wait(SECOND * 8); // a fragment as long as it may be
    rig.parts([end]);
    assert_eq!(rig.reasons, [], "the ack is owed from here on");
    rig.wait(SECOND * 5);
    assert_eq!(rig.reasons, [CloseReason::AckTimeout { waited_s: 5 }]);
}

#[test]
fn a_service_that_receives_and_never_keeps_is_noticed() {
    let mut rig = Rig::with(stream(2));
    rig.ack(AckEvent::Received, Some(0));
    rig.wait(SECOND * 59);
    rig.ack(AckEvent::Received, Some(1000));
    assert_eq!(rig.reasons, [], "not there yet: it may come");
    rig.answers = false;
    rig.wait(SECOND);
    let fragment = rig.ledger.at(START_MS).expect("the first").id;
    assert_eq!(rig.reasons, [CloseReason::NotPersisted { fragment, waited_s: 60 }]);
    rig.wait(SECOND * 2);
    assert!(rig.asked_retention, "does the stream keep anything?");
    rig.driver.looked_up(LookedUp::KeepsNothing, rig.now);
    rig.run();
    assert_eq!(rig.driver.state(), UploadState::Failed);
    assert_eq!(rig.driver.problem().map(|problem| problem.reason), Some(Reason::StreamSettings));
    rig.answers = true;
    rig.wait(SECOND * 30);
    assert_eq!(rig.clusters(), [0, 1000], "asked again seldom, and nothing is lost");
}

#[test]
fn a_peer_that_stops_reading_is_given_up_whatever_is_pending() {
    // Each limit alone holds, however much comes in meanwhile.
    for (write_timeout, ack_timeout, limit_s) in [(5, 30, 5), (600, 30, 30)] {
        let (write_timeout, ack_timeout) = (SECOND * write_timeout, SECOND * ack_timeout);
        let mut rig = Rig::new(UploadConfig { write_timeout, ack_timeout, ..config() });
        let parts = stream(120);
        let mut at = until_end(&parts, 1);
        rig.parts(parts[..at].to_vec());
        rig.reads = false;
        let begun = rig.now;
        while rig.reasons.is_empty() {
            let next = (at + 1).min(parts.len());
            rig.parts(parts[at..next].to_vec());
            at = next;
            rig.wait(Duration::from_millis(170));
            assert!(rig.now < begun + SECOND * 60, "it is never given up");
        }
        assert!(rig.now - begun <= SECOND * limit_s + Duration::from_millis(400), "{:?}", rig.now - begun);
        rig.reads = true;
        rig.wait(SECOND * 2);
        rig.parts(parts[at..].to_vec());
        assert_eq!((rig.opened, rig.lost()), (2, vec![]));
        assert_eq!(
            rig.clusters(),
            (0..120).map(|n| n * 1000).collect::<Vec<_>>(),
            "all of it, from the oldest on"
        );
        assert!(rig.polls < 10_000, "it spins: {}", rig.polls);
    }
}

#[test]
fn bytes_that_wait_in_the_connection_count_as_waiting() {
    let mut rig = Rig::with(stream(1));
    let sent = rig.wire.len() as u64;
    rig.driver.socket(sent / 2, rig.now);
    rig.run();
    rig.wait(SECOND * 30);
    assert_eq!(rig.reasons, [CloseReason::WriteStalled { waited_s: 30 }]);

    // A connection that takes what it gets into a buffer, and a socket that takes nothing of it.
    let parts = stream(60);
    let mut rig = Rig::with(parts[..until_end(&parts, 1)].to_vec());
    rig.driver.socket(rig.wire.len() as u64 + 9_000, rig.now); // framing is counted too
    rig.run();
    let begun = rig.now;
    for part in parts.into_iter().skip(8) {
        rig.parts([part]);
        rig.wait(Duration::from_millis(170));
        if !rig.reasons.is_empty() {
            break;
        }
    }
    assert_eq!(rig.reasons, [CloseReason::WriteStalled { waited_s: 30 }]);
    assert!(rig.now - begun < SECOND * 32, "{:?}", rig.now - begun);
}

#[test]
fn a_slow_reader_is_slow_and_not_broken() {
    let mut rig = Rig::with([]);
    rig.reads = false;
    rig.parts(stream(40));
    // One piece every 4 s, for longer than each limit.
    for n in 1..100 {
        rig.wait(SECOND * 4);
        rig.take();
        rig.driver.socket(n * 200, rig.now);
        rig.run();
    }
    assert_eq!((rig.opened, rig.reasons.len()), (1, 0));
}

#[test]
fn a_sender_that_fails_leaves_time_for_the_last_words_and_takes_pictures_meanwhile() {
    let mut rig = Rig::with(stream(2));
    rig.driver.sender_failed(broken(), rig.now);
    rig.run();
    let before = rig.driver.backlog().bytes;
    rig.parts(stream(3).into_iter().skip(until_end(&stream(3), 2)));
    assert!(rig.driver.backlog().bytes > before, "intake goes on");
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1]);
    rig.wait(SECOND * 2 - Duration::from_millis(1));
    assert!(rig.connected);
    rig.wait(Duration::from_millis(1));
    assert!(!rig.connected);
    assert_eq!(rig.driver.problem().map(|problem| problem.text.as_str()), Some("connection broken"));

    // What it says is the reason.
    let mut rig = Rig::with(stream(1));
    rig.driver.sender_failed(broken(), rig.now);
    rig.error(4008, Some(0));
    assert_eq!(rig.driver.state(), UploadState::Failed);
}

#[test]
fn an_error_about_what_is_released_already_costs_no_other_fragment() {
    for (timecode_ms, lost) in [(Some(0), vec![]), (None, vec![2])] {
        let mut rig = Rig::with(stream(2));
        rig.ack(AckEvent::Persisted, Some(0));
        rig.error(4001, timecode_ms);
        assert_eq!(rig.lost(), lost, "{timecode_ms:?}");
    }
}

#[test]
fn an_idle_session_is_closed_before_the_service_does_it() {
    let mut rig = Rig::with(stream(1));
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.driver.next_deadline(), Some(rig.now + SECOND * 20));
    rig.wait(SECOND * 20);
    assert_eq!(rig.reasons, [CloseReason::Idle]);
    assert!(!CloseReason::Idle.is_failure());
    assert_eq!((rig.driver.state(), rig.driver.next_deadline()), (UploadState::Idle, None));
}

#[test]
fn a_full_window_drops_the_oldest_whole_fragment_and_says_why() {
    let parts = stream(10);
    let all: usize = {
        let mut rig = Rig::new(config());
        rig.opens = false;
        rig.parts(parts.clone());
        rig.driver.backlog().bytes
    };
    let mut rig = Rig::new(UploadConfig { window_bytes: all / 2, ..config() });
    rig.opens = false;
    rig.parts(parts[..1].to_vec());
    rig.driver.not_opened(Failure::new(Reason::DnsFailed, "no such host", Retry::Soon), rig.now);
    rig.run();
    rig.parts(parts[1..].to_vec());
    assert_eq!(rig.lost(), [1, 2, 3, 4, 5]);
    for loss in rig.losses() {
        assert_eq!((loss.reason, loss.because.as_deref()), (LossReason::WindowFull, Some("no such host")));
        assert_eq!((loss.end.as_millis() - loss.start.as_millis(), loss.bytes > 0), (800, true));
    }
    assert!(rig.driver.backlog().bytes <= all / 2);
    let gaps: Vec<_> = rig.ledger.gaps().map(|gap| gap.fragments).collect();
    assert_eq!(gaps, [5], "one gap");
    rig.opens = true;
    rig.wait(SECOND * 2);
    assert_eq!(rig.clusters(), [5000, 6000, 7000, 8000, 9000]);
}

#[test]
fn a_full_window_does_not_drop_what_only_waits_for_its_ack() {
    let parts = stream(4);
    let border = until_end(&parts, 1);
    let one = Rig::with(parts[..border].to_vec()).driver.backlog().bytes;
    // The others wait for their turn.
    let start_interval = SECOND * 3600;
    let mut rig = Rig::new(UploadConfig { window_bytes: one * 5 / 2, start_interval, ..config() });
    rig.parts(parts[..border].to_vec());
    rig.parts(parts[border..].to_vec());
    rig.ack(AckEvent::Persisted, Some(0));
    assert_eq!(rig.persisted(), [1], "it was sent whole, and KVS has it");
    assert_eq!(rig.lost(), [2, 3]);
}

#[test]
fn a_backlog_respects_the_services_fragment_rate() {
    let mut rig =
        Rig::new(UploadConfig { start_interval: UploadConfig::default().start_interval, ..config() });
    rig.parts(stream(3));
    for sent in 1..=3 {
        assert_eq!(rig.clusters().len(), sent);
        rig.wait(Duration::from_millis(199));
        assert_eq!(rig.clusters().len(), sent);
        rig.wait(Duration::from_millis(1));
    }
}

#[test]
fn stray_and_unknown_acks_release_nothing_and_break_nothing() {
    let mut rig = Rig::with(stream(1));
    rig.ack(AckEvent::Persisted, Some(77));
    rig.ack(AckEvent::Persisted, None);
    let unknown = || AckEvent::Unknown("ARCHIVED".to_owned());
    rig.ack(unknown(), Some(0));
    rig.ack(unknown(), None);
    let count = |wanted: fn(&Event) -> bool| rig.events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Event::StrayAck(_))), 2);
    assert_eq!(count(|event| matches!(event, Event::UnknownAck(_))), 1, "told once");
    assert_eq!((rig.driver.backlog().fragments, rig.reasons.len()), (1, 0));
}

#[test]
fn acks_in_any_order_release_each_fragment_once() {
    let mut rig = Rig::with(stream(3));
    for ms in [2000, 0, 1000, 0, 2000] {
        rig.ack(AckEvent::Persisted, Some(ms));
        // Late words about what is released, and in the wrong order.
        rig.ack(AckEvent::Received, Some(ms));
        rig.ack(AckEvent::Buffering, Some(ms));
    }
    assert_eq!((rig.persisted(), rig.lost()), (vec![3, 1, 2], vec![]));
    assert_eq!((rig.driver.backlog().fragments, rig.opened, rig.reasons.len()), (0, 1, 0));
}

#[test]
fn one_fragment_that_cannot_be_asked_for_does_not_block_the_others() {
    let mut rig = Rig::with(stream(3));
    rig.answers = false;
    rig.cut();
    let mut tries = 0;
    rig.wait(SECOND * 2);
    while let Some(asked) = rig.asked.take() {
        tries += 1;
        let found = asked.iter().map(|doubt| doubt.summary.id).filter(|id| id.sequence != 2);
        let found = found.map(|id| (id, number(id.sequence))).collect();
        rig.driver.looked_up(LookedUp::Answer { found, absent: Vec::new() }, rig.now);
        rig.run();
        assert_eq!(rig.persisted(), [1, 3]);
        rig.wait(SECOND);
    }
    assert_eq!((tries, rig.opened, rig.clusters()), (3, 2, vec![1000]), "then it is sent again");
}

#[test]
fn whoever_may_not_list_sends_again_and_a_network_that_is_down_is_asked_later() {
    let denied = Failure::new(Reason::Credentials, "denied", Retry::Operator);
    for (failure, tries) in [(denied, 1), (broken(), 3)] {
        let mut rig = Rig::with(stream(1));
        rig.answers = false;
        rig.cut();
        for _ in 0..tries {
            assert_eq!(rig.opened, 1);
            rig.wait(SECOND * 30);
            assert_eq!(rig.asked.take().map(|asked| asked.len()), Some(1));
            rig.driver.looked_up(LookedUp::CouldNotAsk(failure.clone()), rig.now);
            rig.run();
        }
        rig.wait(SECOND * 30);
        assert_eq!((rig.opened, rig.clusters()), (2, vec![0]));
    }
}

#[test]
fn what_is_on_disk_waits_for_the_answer_and_is_not_sent_twice() {
    let nothing_said = || LookedUp::Answer { found: Vec::new(), absent: Vec::new() };
    for outcome in [LookedUp::CouldNotAsk(broken()), nothing_said()] {
        for tries in [10, 20] {
            let mut rig = Rig::new(config());
            rig.driver = Driver::with_source(config(), SpoolSource::with_spool(1 << 20));
            let mut place = 0;
            for part in stream(2) {
                rig.parts([part]);
                answer_spool(&mut rig, &mut place);
                rig.run();
            }
            assert_eq!((rig.opened, rig.clusters()), (1, vec![0, 1000]));
            rig.answers = false;
            rig.cut();
            for _ in 0..tries {
                assert_eq!(rig.opened, 1);
                rig.wait(SECOND * 30);
                assert_eq!(rig.asked(), [1, 2]);
                rig.asked = None;
                rig.driver.looked_up(outcome.clone(), rig.now);
                rig.run();
            }
            rig.wait(SECOND * 30);
            if tries == 10 {
                rig.answer(&[1, 2]);
                rig.run();
                assert_eq!((rig.opened, rig.persisted()), (1, vec![1, 2]));
            } else {
                assert_eq!((rig.opened, rig.driver.parked()), (1, 2), "nothing is sent twice");
                // What comes does not wait for ever, and what is known to be absent is sent then.
                for part in stream(4).into_iter().skip(until_end(&stream(4), 2)) {
                    rig.parts([part]);
                    answer_spool(&mut rig, &mut place);
                    rig.run();
                }
                assert_eq!((rig.opened, rig.clusters()), (2, vec![2000, 3000]), "the others go on");
                rig.ack(AckEvent::Persisted, Some(2000));
                rig.ack(AckEvent::Persisted, Some(3000));
                rig.wait(SECOND * 61);
                assert_eq!(rig.asked(), [1, 2], "asked for again and again, beside the others");
                rig.answer(&[1]);
                rig.run();
                assert_eq!((rig.persisted(), rig.driver.parked()), (vec![3, 4, 1], 0));
                rig.wait(SECOND * 30);
                assert_eq!((rig.clusters(), rig.driver.backlog().fragments), (vec![1000], 1));
            }
        }
    }
}

fn answer_spool(rig: &mut Rig, place: &mut u64) {
    while let Some(request) = rig.driver.source_mut().next_request() {
        *place += 1;
        let answer = match request {
            Request::Write(whole) => {
                Answer::Written { id: whole.id(), place: Place { segment: 1, offset: *place } }
            }
            Request::List { .. } => Answer::Listed { fragments: Vec::new(), left: Waiting::default() },
            other => panic!("nobody wants that: {other:?}"),
        };
        rig.driver.source_mut().answer(answer);
        rig.driver.source_mut().take_news();
    }
}

#[test]
fn refusals_of_the_connection_are_retried_as_they_deserve() {
    let cases = [
        (Retry::Soon, vec![500, 1000, 2000], UploadState::BackingOff),
        (Retry::Slower, vec![2000, 2000, 2000], UploadState::BackingOff),
        (Retry::Operator, vec![30_000, 30_000, 30_000], UploadState::Failed),
    ];
    for (retry, delays, state) in cases {
        for at_once in [true, false] {
            let mut rig = Rig::new(config());
            (rig.opens, rig.accepts) = (!at_once, false);
            rig.parts(stream(1));
            for delay_ms in &delays {
                assert_eq!(rig.driver.state(), UploadState::Connecting);
                let failure = Failure::new(Reason::Credentials, "refused", retry);
                if at_once {
                    rig.driver.not_opened(failure, rig.now);
                } else {
                    rig.driver.ended(Err(failure), rig.now);
                }
                rig.run();
                assert_eq!((rig.driver.state(), rig.connected), (state, false));
                assert_eq!(rig.driver.next_deadline(), Some(rig.now + Duration::from_millis(*delay_ms)));
                rig.wait(Duration::from_millis(*delay_ms));
            }
            (rig.opens, rig.accepts) = (true, true);
            rig.driver.ended(Err(broken()), rig.now);
            rig.driver.not_opened(broken(), rig.now);
            rig.run();
            rig.wait(SECOND * 30);
            assert_eq!(rig.driver.state(), UploadState::Sending);
            assert!(rig.driver.problem().is_some(), "until something is kept");
            rig.ack(AckEvent::Persisted, Some(0));
            assert_eq!(rig.driver.problem(), None);
        }
    }
}

#[test]
fn whoever_never_answers_is_not_waited_for_without_end() {
    let mut rig = Rig::new(config());
    rig.opens = false;
    rig.parts(stream(1));
    rig.wait(SECOND * 60);
    assert_eq!(rig.driver.problem().map(|problem| problem.reason), Some(Reason::Timeout));
    (rig.opens, rig.accepts, rig.answers) = (true, false, false);
    rig.wait(SECOND / 2);
    assert_eq!((rig.driver.state(), rig.wire.len()), (UploadState::Connecting, 0));
    rig.wait(SECOND * 15);
    assert_eq!(rig.clusters(), [0], "a proxy may hold the yes back until the first ack");
    rig.cut();
    rig.wait(SECOND * 2);
    assert_eq!(rig.asked(), [1]);
    let failed = |rig: &Rig| rig.events.iter().filter(|event| matches!(event, Event::Failed { .. })).count();
    let before = failed(&rig);
    rig.wait(SECOND * 60);
    assert_eq!((failed(&rig) - before, rig.opened), (1, 2));
}

#[test]
fn a_stop_hurries_and_ends_within_its_grace() {
    let mut rig = Rig::new(config());
    rig.opens = false;
    rig.parts(stream(1));
    rig.driver.not_opened(Failure::new(Reason::Credentials, "refused", Retry::Operator), rig.now);
    rig.run();
    rig.wait(SECOND);
    rig.driver.finish(rig.now);
    rig.run();
    assert_eq!(rig.opened, 2, "not after half a minute");
    rig.driver.not_opened(broken(), rig.now);
    rig.run();
    rig.wait(SECOND * 10);
    assert!(rig.driver.is_over());
    assert_eq!(rig.driver.next_deadline(), None);
    let left = rig.driver.unconfirmed();
    assert_eq!(
        left.iter().map(|left| (left.id.sequence, left.end.is_some())).collect::<Vec<_>>(),
        [(1, true)]
    );
    assert_eq!(rig.ledger.abandon(&LossReason::Stopped, rig.now), left.len());
}

#[test]
fn what_was_given_up_and_is_found_after_all_is_told() {
    let parts = stream(3);
    let border = until_end(&parts, 1);
    let one = Rig::with(parts[..border].to_vec()).driver.backlog().bytes;
    let mut rig = Rig::new(UploadConfig { window_bytes: one * 3 / 2, ..config() });
    rig.answers = false;
    rig.parts(parts[..border].to_vec());
    rig.cut();
    rig.wait(SECOND * 2);
    assert_eq!(rig.asked(), [1]);
    rig.parts(parts[border..].to_vec());
    assert!(rig.lost().contains(&1));
    rig.answer(&[1]);
    rig.run();
    assert!(rig.ledger.at(START_MS).expect("the first").is_kept());
}
