//! KVS does not let the box in, as its files say: the box says why, loses nothing, and goes on by itself once they are
//! right. Every other refusal is tested without a daemon in `app/edge/tests/upload.rs`.

use kvs_edge_tests::{Camera, Rig, eventually};
use kvs_local::{Credentials, Tls};
use messages::{CameraState, Reason, Upload, UploadState, Verdict, Verify};

/// Each case is a box of its own, because what is wrong concerns all its cameras.
#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_is_not_let_in_says_why_and_loses_nothing_once_it_is() {
    tokio::join!(
        a_wrong_secret_key_is_told_and_a_corrected_file_is_taken_without_a_restart(),
        a_fresh_token_replaces_an_expired_one_while_the_box_runs(),
        https_needs_the_right_authority_and_says_so(),
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

async fn a_fresh_token_replaces_an_expired_one_while_the_box_runs() {
    let rig = Rig::builder()
        .kvs(|options| options.credentials = vec![Credentials::local().with_token("fresh")])
        .file("aws-token", "stale")
        .set("aws.session_token_file", "\"aws-token\"")
        .camera(Camera::new("cam"))
        .start();
    let Some(rig) = rig.await else { return };
    let upload = refused(&rig, "cam", Reason::TokenExpired).await;
    assert!(upload.detail.as_ref().is_some_and(|text| text.contains("expired")), "{upload:#?}");
    // As a rotation does it: the new file takes the name of the old one.
    let (new, name) = (rig.folder().join("aws-token.new"), rig.folder().join("aws-token"));
    std::fs::write(&new, "fresh\n").and_then(|()| std::fs::rename(new, name)).expect("it can be replaced");
    eventually("an upload with the new token", async || (stored(&rig, "cam").await > 2).then_some(())).await;
    rig.caught_up("cam").await;
    expect_nothing_lost(&rig, "cam").await;
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
    let upload = refused(&doubting, "cam", Reason::TlsFailed).await;
    let detail = upload.detail.unwrap_or_default();
    for word in ["TLS", "127.0.0.1", "certificate", "CA file"] {
        assert!(detail.contains(word), "{word} in: {detail}");
    }
    trusting.fragments("cam", 3).await;
    assert!(trusting.kvs.endpoint().starts_with("https://"));
    expect_nothing_lost(&trusting, "cam").await;
}
