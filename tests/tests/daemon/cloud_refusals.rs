//! KVS does not let the box in, or cannot keep what it sends: the box says why, loses nothing, and goes on by itself
//! once that is mended.

use std::time::Duration;

use kvs::api::{CreateStreamInput, StreamId};
use kvs_edge_tests::{Camera, Rig, eventually, streams_client};
use kvs_local::{Clock, Credentials, Tls};
use messages::{CameraState, Reason, Upload, UploadState, Verdict, Verify};

/// Each case is a box of its own, because what is wrong concerns all its cameras.
#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_is_not_let_in_says_why_and_loses_nothing_once_it_is() {
    tokio::join!(
        a_wrong_secret_key_is_told_and_a_corrected_file_is_taken_without_a_restart(),
        an_unknown_key_is_told(),
        a_fresh_token_replaces_an_expired_one_while_the_box_runs(),
        a_clock_that_is_an_hour_off_is_noticed_and_the_footage_still_arrives(),
        https_needs_the_right_authority_and_says_so(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_keep_the_footage_is_told_of_and_gets_it_all_once_it_can() {
    tokio::join!(
        a_stream_that_is_missing_or_keeps_nothing_is_told_and_taken_once_it_is_right(),
        a_full_disk_in_the_cloud_holds_the_upload_up_and_loses_nothing(),
    );
}

/// The first message about the upload of `camera` with this reason, and the status that goes with it.
async fn refused(rig: &Rig, camera: &str, reason: Reason) -> Upload {
    let upload = |upload: &Upload| upload.reason == Some(reason);
    let upload: Upload = rig.mqtt.wait(&rig.mqtt.topics.upload(camera), upload).await;
    let status = rig.status(0, camera, |status| status.reason == Some(reason)).await;
    assert_eq!(status.state, CameraState::Degraded, "{status:#?}");
    assert_eq!(upload.fragments_persisted, 0, "{upload:#?}");
    upload
}

async fn stored(rig: &Rig, stream: &str) -> usize {
    rig.kvs.local().fragments(stream).await.map_or(0, |fragments| fragments.len())
}

/// Stops the box; everything from its first fragment on is stored and proven. For servers whose clock, key or
/// protocol keeps the harness out.
async fn expect_nothing_lost(rig: &Rig, camera: &str) {
    rig.stop().await;
    let topics = &rig.mqtt.topics;
    let upload: Upload = rig.mqtt.last(&topics.upload(camera));
    let verify: Verify = rig.mqtt.last(&topics.verify(camera));
    let stored = stored(rig, camera).await as u64;
    let counts = [upload.fragments_sent, upload.fragments_persisted, verify.identical];
    assert_eq!(counts, [stored; 3], "sent, persisted, identical against stored: {upload:#?} {verify:#?}");
    assert_eq!((upload.fragments_lost, verify.duplicate), (0, 0), "{upload:#?} {verify:#?}");
    assert_eq!((verify.verdict, upload.reason), (Verdict::Ok, None), "{upload:#?} {verify:#?}");
}

async fn a_wrong_secret_key_is_told_and_a_corrected_file_is_taken_without_a_restart() {
    let rig = Rig::builder()
        .file("other-secret", "not-the-secret-of-kvs-local")
        .set("aws.secret_access_key_file", "\"other-secret\"")
        .camera(Camera::new("cam"))
        .start();
    let Some(rig) = rig.await else { return };
    let upload = refused(&rig, "cam", Reason::Credentials).await;
    assert_eq!(upload.state, UploadState::Failed, "{upload:#?}");
    assert!(upload.detail.unwrap_or_default().contains("signature"));
    let secret = &Credentials::local().secret_key;
    std::fs::write(rig.folder().join("other-secret"), secret).expect("the rig's folder can be written to");
    // The next attempt is half a minute away, or at a stop.
    expect_nothing_lost(&rig, "cam").await;
    let output = rig.daemon().output().join("\n");
    assert!(!output.contains(secret) && !output.contains("not-the-secret"), "keys are in the log");
}

async fn an_unknown_key_is_told() {
    let rig = Rig::builder()
        .file("other-id", "AKIDNOBODY")
        .set("aws.access_key_id_file", "\"other-id\"")
        .camera(Camera::new("cam"))
        .start();
    let Some(rig) = rig.await else { return };
    let upload = refused(&rig, "cam", Reason::Credentials).await;
    assert!(upload.fragments_persisted == 0 && upload.detail.is_some(), "{upload:#?}");
    std::fs::write(rig.folder().join("other-id"), Credentials::local().access_key)
        .expect("it can be written");
    eventually("an upload with the right key", async || (stored(&rig, "cam").await > 2).then_some(())).await;
    rig.caught_up("cam").await;
    expect_nothing_lost(&rig, "cam").await;
}

async fn a_fresh_token_replaces_an_expired_one_while_the_box_runs() {
    let rig = Rig::builder()
        .kvs(|options| options.credentials = vec![Credentials::local().with_token("fresh")])
        .file("aws-token", "stale")
        .set("aws.session_token_file", "\"aws-token\"")
        .camera(Camera::new("cam"))
        .start();
    let Some(rig) = rig.await else { return };
    let upload = refused(&rig, "cam", Reason::Credentials).await;
    assert!(upload.detail.as_ref().is_some_and(|text| text.contains("expired")), "{upload:#?}");
    // As a rotation does it: the new file takes the name of the old one.
    let (new, name) = (rig.folder().join("aws-token.new"), rig.folder().join("aws-token"));
    std::fs::write(&new, "fresh\n").and_then(|()| std::fs::rename(new, name)).expect("it can be replaced");
    eventually("an upload with the new token", async || (stored(&rig, "cam").await > 2).then_some(())).await;
    rig.caught_up("cam").await;
    expect_nothing_lost(&rig, "cam").await;
}

async fn a_clock_that_is_an_hour_off_is_noticed_and_the_footage_still_arrives() {
    let an_hour_ahead = Clock::simulated(Clock::system().wall() + Duration::from_secs(3600));
    let rig = Rig::builder().kvs(move |options| options.clock = an_hour_ahead).camera(Camera::new("cam"));
    let Some(rig) = rig.start().await else { return };
    rig.fragments("cam", 3).await;
    let refused = rig.daemon().line("RequestTimeTooSkewed").await;
    assert!(refused.contains("WARN"), "{refused}");
    rig.online("cam").await;
    expect_nothing_lost(&rig, "cam").await;
}

async fn a_stream_that_is_missing_or_keeps_nothing_is_told_and_taken_once_it_is_right() {
    let rig = Rig::builder()
        .kvs(|options| options.create_streams = vec![("keeps-nothing".to_owned(), 0)])
        .set("upload.ack_timeout_s", "5")
        .camera(Camera::new("missing"))
        .camera(Camera::new("keeps-nothing"))
        .start();
    let Some(rig) = rig.await else { return };
    let missing = refused(&rig, "missing", Reason::StreamMissing).await;
    assert_eq!(missing.state, UploadState::Failed);
    assert!(missing.detail.is_some_and(|text| text.contains("missing")), "the stream's name is told");
    let client = streams_client(&rig.kvs.endpoint());
    let stream = CreateStreamInput {
        stream_name: "missing".to_owned(),
        data_retention_in_hours: Some(24),
        ..CreateStreamInput::default()
    };
    client.create_stream(&stream).await.expect("it can be created");

    rig.daemon().line("retention 0 h").await;
    let nothing = refused(&rig, "keeps-nothing", Reason::StreamSettings).await;
    assert_eq!(nothing.state, UploadState::Failed);
    assert!(nothing.detail.is_some_and(|text| text.contains("retention")));
    client.ensure_retention(&StreamId::name("keeps-nothing"), 24).await.expect("it can be changed");

    for camera in ["missing", "keeps-nothing"] {
        // 30 s lie between two attempts that only an operator's change can make succeed.
        let what = format!("uploads of {camera}");
        eventually(&what, async || (rig.kvs.stored(camera).await.len() > 2).then_some(())).await;
        rig.caught_up(camera).await;
    }
    rig.stop().await;
    for camera in ["missing", "keeps-nothing"] {
        rig.expect_everything_proven(camera).await.expect_no_picture_missing();
    }
}

async fn a_full_disk_in_the_cloud_holds_the_upload_up_and_loses_nothing() {
    let rig = Rig::builder()
        .kvs(|options| options.disk_limit_bytes = Some(200_000))
        .camera(Camera::new("cam").clip(|clip| clip.bitrate_kbps = 120))
        .start();
    let Some(rig) = rig.await else { return };
    let full = |upload: &Upload| upload.detail.as_ref().is_some_and(|text| text.contains("5001"));
    let full: Upload = rig.mqtt.wait(&rig.mqtt.topics.upload("cam"), full).await;
    assert_eq!((full.reason, full.fragments_lost), (Some(Reason::UploadFailed), 0), "{full:#?}");
    let local = rig.kvs.local();
    let mut removed = 0;
    for fragment in local.fragments("cam").await.expect("it is there") {
        local.delete_fragment("cam", &fragment.number).await.expect("it is there");
        removed += 1;
    }
    rig.more_fragments("cam", 4).await;
    rig.caught_up("cam").await;
    rig.stop().await;
    let upload: Upload = rig.mqtt.last(&rig.mqtt.topics.upload("cam"));
    let stored = rig.kvs.stored("cam").await;
    let counts = (upload.fragments_sent, upload.fragments_persisted, upload.fragments_lost);
    let all = removed + stored.len() as u64;
    assert_eq!(counts, (all, all, 0), "{upload:#?}");
    let mut times: Vec<_> = stored.iter().map(|fragment| fragment.timecode_ms()).collect();
    times.dedup();
    assert_eq!(times.len(), stored.len(), "stored twice");
}

async fn https_needs_the_right_authority_and_says_so() {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls = || Tls { certificate_pem: certificate.clone().into(), key_pem: key.clone().into() };
    let (with, without) = (tls(), tls());
    let trusting = Rig::builder()
        .kvs(move |options| options.tls = Some(with))
        .file("ca.pem", &certificate)
        .set("aws.ca_file", "\"ca.pem\"")
        .camera(Camera::new("cam"))
        .start();
    let Some(trusting) = trusting.await else { return };
    let doubting =
        Rig::builder().kvs(move |options| options.tls = Some(without)).camera(Camera::new("cam")).start();
    let Some(doubting) = doubting.await else { return };
    let upload = refused(&doubting, "cam", Reason::UploadFailed).await;
    let detail = upload.detail.unwrap_or_default();
    for word in ["TLS", "127.0.0.1", "certificate", "CA file"] {
        assert!(detail.contains(word), "{word} in: {detail}");
    }
    trusting.fragments("cam", 3).await;
    assert!(trusting.kvs.endpoint().starts_with("https://"));
    expect_nothing_lost(&trusting, "cam").await;
}
