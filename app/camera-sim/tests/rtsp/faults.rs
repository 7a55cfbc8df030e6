//! Each fault does to a client what facts about real cameras say it does.

use camera_sim::{Audio, CameraSim, ClipSpec, Fault, FaultPlan, SentPicture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Options, Reader, Via, describe, play};
use crate::{sim, small_clip, soon};

async fn reader(sim: &CameraSim, query: &str) -> Reader {
    let url = format!("{}?start=now&{query}", sim.url(0));
    Reader::new(soon(play(&url, &Options::default())).await.unwrap())
}

/// Injects into a client that has seen some pictures; returns how its stream ends.
async fn end_after(fault: Fault) -> Option<String> {
    let sim = sim().start().await.unwrap();
    let mut reader = reader(&sim, "").await;
    soon(reader.pictures(2)).await;
    assert_eq!(sim.faults(0).inject(fault), 1);
    soon(reader.end()).await
}

#[tokio::test]
async fn a_hang_up_is_a_plain_end() {
    assert_eq!(end_after(Fault::HangUp).await, None);
}

#[tokio::test]
async fn a_hang_up_by_url_is_a_plain_end_for_that_client_only() {
    let sim = sim().start().await.unwrap();
    let mut other = reader(&sim, "").await;
    let mut victim = reader(&sim, "hangup_after=0.5").await;
    assert_eq!(soon(victim.end()).await, None);
    soon(other.pictures(3)).await;
}

#[tokio::test]
async fn another_source_ends_the_session_with_an_error() {
    let text = end_after(Fault::NewSource).await.expect("an error");
    assert!(text.to_lowercase().contains("ssrc"), "{text}");
}

#[tokio::test]
async fn a_sequence_jump_over_tcp_ends_the_session_with_an_error() {
    assert!(end_after(Fault::SequenceJump(40_000)).await.is_some());
}

#[tokio::test]
async fn reordering_over_tcp_ends_the_session_with_an_error() {
    let sim = sim().start().await.unwrap();
    let mut reader = reader(&sim, "reorder=0.5").await;
    assert!(soon(reader.end()).await.is_some());
    assert!(sim.stats(0).packets_reordered > 0);
}

#[tokio::test]
async fn a_stall_sends_nothing_until_it_is_over() {
    for stall in [Fault::Stall { answer_keepalive: true }, Fault::Bye] {
        let sim = sim().start().await.unwrap();
        let mut reader = reader(&sim, "").await;
        let last = soon(reader.pictures(3)).await.pop().unwrap().frame.timestamp().timestamp();
        sim.faults(0).inject(stall);
        // A second client shows that time goes on while the first one gets nothing.
        let mut other = self::reader(&sim, "").await;
        let told =
            soon(sim.wait_stats(0, |stats| stats.sent.iter().filter(|sent| sent.session == 2).count() >= 8))
                .await;
        let first: Vec<_> = told.sent.iter().filter(|sent| sent.session == 1).collect();
        sim.faults(0).inject(Fault::Resume);
        let next = soon(async {
            loop {
                let at = reader.pictures(1).await[0].frame.timestamp().timestamp();
                let sent = u64::try_from((at - last) / 9000).unwrap() + first[2].number;
                if sent > first.last().unwrap().number {
                    return sent;
                }
            }
        })
        .await;
        assert!(next - first.last().unwrap().number > 5, "the stall left out too little");
        soon(other.pictures(1)).await;
    }
}

#[tokio::test]
async fn one_lost_packet_is_counted_once() {
    let sim = sim().start().await.unwrap();
    let mut reader = reader(&sim, "").await;
    soon(reader.pictures(2)).await;
    sim.faults(0).inject(Fault::DropPackets(1));
    let loss = soon(async {
        loop {
            let loss = reader.pictures(1).await[0].frame.loss();
            if loss > 0 {
                return loss;
            }
        }
    })
    .await;
    assert_eq!(loss, 1);
    assert_eq!(sim.stats(0).packets_dropped, 1);
}

#[tokio::test]
async fn the_same_seed_loses_the_same_packets() {
    let sim = sim().start().await.unwrap();
    // Of each session: after so many packets, so many were lost.
    let mut tallies: Vec<Vec<(u32, u32)>> = Vec::new();
    for session in [1, 2] {
        let _reader = reader(&sim, "drop=0.3&fault_seed=5").await;
        let of_session = |sent: &&SentPicture| sent.session == session;
        let stats = soon(sim.wait_stats(0, |stats| stats.sent.iter().filter(of_session).count() >= 12)).await;
        let mut sum = (0, 0);
        tallies.push(
            stats
                .sent
                .iter()
                .filter(of_session)
                .map(|sent| {
                    sum = (sum.0 + sent.packets, sum.1 + sent.packets_dropped);
                    sum
                })
                .collect(),
        );
    }
    assert!(tallies.iter().all(|tally| tally.last().is_some_and(|(_, lost)| *lost > 0)), "{tallies:?}");
    // The sessions saw other pictures, hence other totals; they must fit one sequence of lost packets nevertheless.
    for &(packets, lost) in &tallies[0] {
        for &(other_packets, other_lost) in &tallies[1] {
            let more = (i64::from(packets) - i64::from(other_packets)).signum();
            let gap = packets.abs_diff(other_packets);
            let extra = (i64::from(lost) - i64::from(other_lost)) * if more == 0 { 1 } else { more };
            assert!((0..=i64::from(gap)).contains(&extra), "{tallies:?}");
        }
    }
}

#[tokio::test]
async fn losses_change_while_the_camera_runs() {
    let sim = sim().start().await.unwrap();
    let mut reader = reader(&sim, "").await;
    soon(reader.pictures(2)).await;
    sim.faults(0).update(|plan| plan.drop = 1.0);
    let stats =
        soon(sim.wait_stats(0, |stats| stats.sent.back().is_some_and(|s| s.packets == s.packets_dropped)))
            .await;
    assert!(stats.packets_dropped > 0);
    sim.faults(0).set(FaultPlan::default());
    soon(reader.pictures(1)).await;
}

#[tokio::test]
async fn a_timestamp_jump_passes_through() {
    let sim = sim().start().await.unwrap();
    let mut reader = reader(&sim, "").await;
    let mut before = soon(reader.pictures(2)).await.pop().unwrap().frame.timestamp().timestamp();
    sim.faults(0).inject(Fault::TimestampJumpMs(-5000));
    soon(async {
        loop {
            let now = reader.pictures(1).await[0].frame.timestamp().timestamp();
            if now < before {
                assert_eq!(now - before, 9000 - 5 * 90_000);
                return;
            }
            before = now;
        }
    })
    .await;
}

#[tokio::test]
async fn a_parameter_switch_announces_new_parameters_once() {
    let sim = sim().start().await.unwrap();
    sim.preload(&ClipSpec { width: 640, height: 360, ..small_clip() }).await.unwrap();
    let mut reader = reader(&sim, "").await;
    soon(reader.pictures(1)).await;
    assert_eq!(reader.dimensions(), Some((320, 180)));
    sim.faults(0).inject(Fault::SwitchParameters);
    soon(async { while !reader.pictures(1).await[0].frame.has_new_parameters() {} }).await;
    assert_eq!(reader.dimensions(), Some((640, 360)));
    let rest = soon(reader.pictures(12)).await;
    assert!(rest.iter().all(|received| !received.frame.has_new_parameters()));
    assert!(sim.stats(0).sent.iter().any(|sent| sent.switched));
}

#[tokio::test]
async fn without_sprop_the_first_picture_brings_the_parameters() {
    let sim = sim().start().await.unwrap();
    let url = format!("{}?no_sprop", sim.url(0));
    let session = soon(describe(&url, &Options::default())).await.unwrap();
    assert!(session.streams()[0].parameters().is_none());
    drop(session);
    let mut reader = Reader::new(soon(play(&url, &Options::default())).await.unwrap());
    assert!(soon(reader.pictures(1)).await[0].frame.has_new_parameters());
    assert_eq!(reader.dimensions(), Some((320, 180)));
}

#[tokio::test]
async fn without_sender_reports_there_is_no_clock() {
    let sim = sim().start().await.unwrap();
    let mut reader = reader(&sim, "no_sr").await;
    soon(reader.pictures(5)).await;
    assert_eq!((reader.reports, sim.stats(0).sender_reports), (0, 0));
}

#[tokio::test]
async fn a_wrong_clock_is_wrong_by_what_was_asked() {
    let sim = sim().start().await.unwrap();
    let (mut right, mut wrong) = (reader(&sim, "").await, reader(&sim, "clock_offset=-3600").await);
    let (right, wrong) = soon(async { tokio::join!(right.pictures(1), wrong.pictures(1)) }).await;
    let off = wrong[0].capture_utc_s() - right[0].capture_utc_s();
    assert!((off + 3600.0).abs() < 60.0, "{off}");
}

#[tokio::test]
async fn two_tracks_without_rtp_info_need_a_lenient_client() {
    let sim = sim().clip(ClipSpec { audio: Audio::Pcmu, ..small_clip() }).start().await.unwrap();
    let url = format!("{}?no_rtp_info", sim.url(0));
    assert!(soon(play(&url, &Options::default())).await.is_err());
    let lenient = Options { lenient: true, ..Options::default() };
    let mut reader = Reader::new(soon(play(&url, &lenient)).await.unwrap());
    soon(reader.pictures(2)).await;
}

#[tokio::test]
async fn go2rtc_changes_its_session_id_and_has_no_clock_and_no_udp() {
    let sim = sim().clip(ClipSpec { audio: Audio::Pcmu, ..small_clip() }).start().await.unwrap();
    let url = format!("{}?go2rtc", sim.url(0));
    assert!(soon(play(&url, &Options::default())).await.is_err(), "the second SETUP has another session");
    let lenient = Options { lenient: true, ..Options::default() };
    let mut reader = Reader::new(soon(play(&url, &lenient)).await.unwrap());
    soon(reader.pictures(3)).await;
    assert_eq!(reader.reports, 0);
    let udp = Options { via: Via::Udp, ..lenient };
    assert_eq!(soon(play(&url, &udp)).await.err().and_then(|error| error.status_code()), Some(461));
}

#[tokio::test]
async fn refusals_have_their_status() {
    let sim = sim().start().await.unwrap();
    let udp = Options { via: Via::Udp, ..Options::default() };
    let status = async |url: &str, options: &Options| {
        soon(play(url, options)).await.err().and_then(|error| error.status_code())
    };
    assert_eq!(status(&format!("{}?refuse_udp", sim.url(0)), &udp).await, Some(461));
    assert_eq!(status(&format!("{}?not_found", sim.url(0)), &udp).await, Some(404));
    assert_eq!(status(&format!("rtsp://{}/cam9", sim.local_addr()), &udp).await, Some(404));
    assert_eq!(status(&format!("{}?no_such_fault", sim.url(0)), &udp).await, Some(400));
    assert_eq!(status(&format!("{}?bframes=99", sim.url(0)), &udp).await, Some(500));
}

#[tokio::test]
async fn a_camera_may_have_no_video_that_we_can_use() {
    let sim = sim().clip(ClipSpec { audio: Audio::Aac, ..small_clip() }).start().await.unwrap();
    let media = async |query: &str| -> Vec<(String, String)> {
        let session = soon(describe(&format!("{}?{query}", sim.url(0)), &Options::default())).await.unwrap();
        let streams = session.streams().iter();
        streams.map(|stream| (stream.media().to_owned(), stream.encoding_name().to_owned())).collect()
    };
    let pairs = |expected: &[(&str, &str)]| -> Vec<(String, String)> {
        expected.iter().map(|(media, name)| ((*media).to_owned(), (*name).to_owned())).collect()
    };
    let sound = ("audio", "mpeg4-generic");
    assert_eq!(media("").await, pairs(&[("video", "h264"), sound]));
    assert_eq!(media("audio_only").await, pairs(&[sound]));
    assert_eq!(media("foreign=jpeg").await, pairs(&[("video", "jpeg"), sound]));
    assert_eq!(media("foreign=vp8").await, pairs(&[("video", "vp8"), sound]));
}

#[tokio::test]
async fn unanswered_keepalives_end_the_session_while_media_flows() {
    let sim = sim().start().await.unwrap();
    let mut reader = reader(&sim, "no_keepalive&timeout=4").await;
    assert!(soon(reader.end()).await.is_some());
    let stats = sim.stats(0);
    assert!(stats.keepalives >= 1 && stats.pictures > 10, "{stats:?}");
}

async fn connect(sim: &CameraSim, requests: &str) -> TcpStream {
    let mut stream = TcpStream::connect(sim.local_addr()).await.unwrap();
    stream.write_all(requests.replace("URL", &sim.url(0)).as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_hanging_step_is_not_answered() {
    let setup =
        "SETUP URL/trackID=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n";
    for (step, answered) in [("connect", 0), ("describe", 0), ("setup", 1), ("play", 2)] {
        let sim = sim().start().await.unwrap();
        let requests = format!("DESCRIBE URL?hang={step} RTSP/1.0\r\nCSeq: 1\r\n\r\n{setup}");
        let mut stream = connect(&sim, &requests).await;
        let mut text = Vec::new();
        let count = |text: &[u8]| String::from_utf8_lossy(text).matches("RTSP/1.0 200 OK").count();
        while count(&text) < answered {
            assert!(soon(stream.read_buf(&mut text)).await.unwrap() > 0, "{step}: closed");
        }
        // Others are served meanwhile, and nothing more comes here until the simulator is gone.
        soon(describe(&sim.url(0), &Options::default())).await.unwrap();
        sim.shutdown().await;
        // A reset is as good an end as any.
        let _ = soon(stream.read_to_end(&mut text)).await;
        assert_eq!(count(&text), answered, "{step}");
    }
}

#[tokio::test]
async fn options_and_other_methods_are_answered() {
    let sim = sim().start().await.unwrap();
    let mut stream = connect(
        &sim,
        "OPTIONS URL RTSP/1.0\r\nCSeq: 1\r\n\r\nOPTIONS URL?go2rtc RTSP/1.0\r\nCSeq: 2\r\n\r\n\
         PAUSE URL RTSP/1.0\r\nCSeq: 3\r\n\r\nPLAY URL RTSP/1.0\r\nCSeq: 4\r\n\r\n\
         PLAY URL RTSP/1.0\r\nCSeq: 5\r\nSession: 99\r\n\r\nGET_PARAMETER URL RTSP/1.0\r\nCSeq: 6\r\n\r\n",
    )
    .await;
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    let status: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("RTSP/1.0 ")).collect();
    assert_eq!(
        status,
        [
            "200 OK",
            "200 OK",
            "405 Method Not Allowed",
            "455 Method Not Valid in This State",
            "454 Session Not Found",
            "200 OK"
        ]
    );
    assert_eq!(text.matches("Public: ").count(), 1);
}
