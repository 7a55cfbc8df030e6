//! Without faults: what a client gets is what the camera took, when it took it.

use bytes::Bytes;
use camera_sim::{Audio, AuthKind, CameraSim, Clip, ClipSpec, Codec};

use crate::client::{Options, Reader, Received, Via, describe, play};
use crate::{sim, small_clip, soon};

/// The presentation number since 1970 that the sender reports lead to; exact to a millisecond.
#[expect(clippy::cast_possible_truncation, reason = "a count of pictures, far below 2^53")]
fn number(received: &Received, fps: f64) -> u64 {
    let pictures = received.capture_utc_s() * fps;
    let off_ms = (pictures - pictures.round()).abs() / fps * 1000.0;
    assert!(off_ms < 1.0, "capture time is {off_ms} ms off the grid of pictures");
    pictures.round() as u64
}

/// Compares the coded slices; parameter sets are the client's business.
fn assert_same_picture(clip: &Clip, received: &Received) {
    let spec = clip.spec();
    let index = u32::try_from(number(received, f64::from(spec.fps)) % u64::from(spec.pictures())).unwrap();
    let sent: Vec<&Bytes> = clip.access_unit(index).vcl(spec.codec).collect();
    let is_slice = |nal: &&[u8]| match spec.codec {
        Codec::H264 => nal[0] & 0x1f <= 5,
        Codec::H265 => nal[0] >> 1 < 32,
    };
    let got: Vec<&[u8]> = received.nal_units().into_iter().filter(is_slice).collect();
    assert_eq!(got, sent, "picture {index}");
}

#[tokio::test]
async fn tcp_and_udp_clients_get_every_picture_bit_exact_with_its_capture_time() {
    let check = async |codec| {
        let sim = sim().clip(ClipSpec { codec, ..small_clip() }).start().await.unwrap();
        let client = async |via| {
            let mut reader =
                Reader::new(play(&sim.url(0), &Options { via, ..Options::default() }).await.unwrap());
            let pictures = reader.pictures(24).await;
            let fps = 10.0;
            let first = number(&pictures[0], fps);
            for (received, expected) in pictures.iter().zip(first..) {
                assert_eq!(number(received, fps), expected, "{codec:?}: a gap");
                assert_eq!(received.frame.loss(), 0);
                assert_same_picture(sim.clip(0), received);
                assert_eq!(received.frame.is_random_access_point(), expected % 10 == 0);
            }
            let now =
                clock::Clock::system().wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
            assert!((now - pictures[23].capture_utc_s()).abs() < 30.0, "capture time is not of today");
        };
        soon(async { tokio::join!(client(Via::Tcp), client(Via::Udp)) }).await;
        let stats = sim.stats(0);
        assert_eq!((stats.sessions, stats.packets_dropped, stats.pictures_skipped), (2, 0, 0));
        sim.shutdown().await;
    };
    tokio::join!(check(Codec::H264), check(Codec::H265));
}

#[tokio::test]
async fn b_pictures_come_in_coding_order_with_their_own_capture_time() {
    let check = async |codec| {
        let sim = sim().clip(ClipSpec { codec, ..small_clip() }).start().await.unwrap();
        let clip = sim.preload(&ClipSpec { b_frames: 2, codec, ..small_clip() }).await.unwrap();
        let url = format!("{}?bframes=2", sim.url(0));
        let mut reader = Reader::new(soon(play(&url, &Options::default())).await.unwrap());
        let pictures = soon(reader.pictures(20)).await;
        let numbers: Vec<u64> = pictures.iter().map(|received| number(received, 10.0)).collect();
        assert!(numbers.windows(2).any(|pair| pair[1] < pair[0]), "no picture is out of order: {numbers:?}");
        pictures.iter().for_each(|received| assert_same_picture(&clip, received));
    };
    tokio::join!(check(Codec::H264), check(Codec::H265));
}

#[tokio::test]
async fn what_the_camera_says_it_sent_is_what_arrived() {
    let sim = sim().start().await.unwrap();
    let mut reader = Reader::new(soon(play(&sim.url(0), &Options::default())).await.unwrap());
    let pictures = soon(reader.pictures(5)).await;
    let stats = soon(sim.wait_stats(0, |stats| stats.pictures >= 5)).await;
    assert_eq!(stats.playing, 1);
    for (received, sent) in pictures.iter().zip(&stats.sent) {
        assert_eq!(number(received, 10.0), sent.number);
        assert_eq!(sent.capture_utc_ms, sent.number * 100);
        assert_eq!(u64::from(sent.index), sent.number % 40);
        assert_eq!(sent.size_bytes, sim.clip(0).access_unit(sent.index).size_bytes());
    }
    drop(reader);
    let stats = soon(sim.wait_stats(0, |stats| stats.playing == 0)).await;
    assert!(stats.sender_reports >= 1);
}

#[tokio::test]
async fn sound_comes_without_a_gap_beside_the_pictures() {
    let check = async |audio, samples| {
        for via in [Via::Tcp, Via::Udp] {
            let sim = sim().clip(ClipSpec { audio, ..small_clip() }).start().await.unwrap();
            let mut reader =
                Reader::new(soon(play(&sim.url(0), &Options { via, ..Options::default() })).await.unwrap());
            soon(reader.pictures(8)).await;
            assert!(reader.sound.len() > 5, "{} frames of sound", reader.sound.len());
            let frames = &sim.clip(0).audio().unwrap().frames;
            for pair in reader.sound.windows(2) {
                assert_eq!(pair[1].0 - pair[0].0, samples);
                let first = frames.iter().position(|frame| *frame == pair[0].1).expect("a frame of the clip");
                assert!((0..frames.len()).any(|at| frames[at] == pair[1].1), "{first}");
            }
        }
    };
    tokio::join!(check(Audio::Aac, 1024), check(Audio::Pcmu, 160));
}

#[tokio::test]
async fn only_the_right_password_opens() {
    for kind in [AuthKind::Digest, AuthKind::Basic] {
        let sim = sim().auth("admin", "s e:cret", kind).start().await.unwrap();
        let with = |credentials| Options { credentials, ..Options::default() };
        let right = with(Some(("admin", "s e:cret")));
        let mut reader = Reader::new(soon(play(&sim.url(0), &right)).await.unwrap());
        soon(reader.pictures(2)).await;
        for wrong in [with(Some(("admin", "secret"))), with(Some(("root", "s e:cret"))), with(None)] {
            let error = soon(describe(&sim.url(0), &wrong)).await.err().expect("refused");
            assert!(error.status_code() == Some(401) || wrong.credentials.is_none(), "{error}");
        }
        assert!(sim.stats(0).unauthorized >= 3);
    }
}

#[tokio::test]
async fn cameras_have_their_own_scenes_unless_told_otherwise() {
    let sim = sim().cameras(3).distinct(2).start().await.unwrap();
    let bytes = |camera: usize| sim.clip(camera).access_unit(0).nal_units.clone();
    assert_eq!(bytes(0), bytes(2));
    assert_ne!(bytes(0), bytes(1));
    for camera in 0..3 {
        let mut reader = Reader::new(
            soon(play(&format!("{}?start=now", sim.url(camera)), &Options::default())).await.unwrap(),
        );
        assert_same_picture(sim.clip(camera), &soon(reader.pictures(1)).await[0]);
    }
}

#[tokio::test]
async fn dropping_the_simulator_closes_its_sessions() {
    let sim = sim().start().await.unwrap();
    let mut reader = Reader::new(soon(play(&sim.url(0), &Options::default())).await.unwrap());
    drop(sim);
    soon(reader.end()).await;
}

#[tokio::test]
async fn a_busy_address_is_reported() {
    let first = sim().start().await.unwrap();
    let taken = first.local_addr().to_string();
    let error = sim().bind(taken.clone()).start().await.err().expect("the port is taken").to_string();
    assert!(error.contains(&taken), "{error}");
    assert!(CameraSim::builder().cameras(0).start().await.is_err());
}
