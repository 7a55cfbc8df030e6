//! A camera that is a KVS stream is looked at as any other.

use std::collections::BTreeSet;

use camera_sim::{Fault, FaultPlan, HandshakeStep};
use kvs_edge_tests::{Camera, Rig};
use messages::{CameraState, Event, EventKind, Info, Reason, Stats};

use crate::analytics::{camera, event, rig_with_detection};

/// One camera records, and two others are its stream.
async fn rig() -> Option<Rig> {
    rig_with_detection()
        .camera(camera("street").set("detect.enabled", "false"))
        .camera(Camera::of_stream("live", "getmedia", "street").set("timeouts.stall_s", "4"))
        .camera(Camera::of_stream("archived", "hls", "street"))
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn detection_runs_on_a_kvs_stream_as_on_a_camera() {
    let Some(rig) = rig().await else { return };
    rig.online("street").await;
    let mut told = Vec::new();
    for id in ["live", "archived"] {
        assert_eq!(rig.online(id).await.reason, None);
        event(&rig, 0, id, |event| event.kind == EventKind::New).await;
        let known = |event: &Event| event.clip.persisted && event.clip.fragment.is_some();
        told.push(event(&rig, 0, id, known).await);
    }
    let stored = rig.kvs.local().fragments("street").await.expect("the stream");
    for event in &told {
        assert_eq!(event.clip.kvs_stream, "street");
        // The fragment that it names is there, and holds its first picture.
        let number = event.clip.fragment.as_ref().expect("it is known");
        let place = stored.iter().position(|fragment| fragment.number == *number).expect("it is stored");
        let begins_ms = stored[place].producer_ms;
        let ends_ms = stored.get(place + 1).map_or(u64::MAX, |next| next.producer_ms);
        assert!((begins_ms..ends_ms).contains(&event.clip.producer_ts_ms), "{event:#?}");
    }
    let topics = &rig.mqtt.topics;
    let stats: Stats = rig.mqtt.wait(&topics.stats("live"), |stats: &Stats| stats.fps.input > 1.0).await;
    assert_eq!((stats.transport.as_deref(), stats.size), (Some("getmedia"), Some([640, 360])));
    // Nothing is uploaded or proven, and nothing is told of that.
    for topic in ["live", "archived"].iter().flat_map(|id| [topics.upload(id), topics.verify(id)]) {
        assert_eq!(rig.mqtt.texts(&topic), Vec::<String>::new(), "{topic}");
    }
    let info: Info = rig.mqtt.last(&topics.info());
    let streams: BTreeSet<_> = info.cameras.iter().map(|camera| camera.stream.as_str()).collect();
    assert_eq!((info.cameras.len(), streams), (3, BTreeSet::from(["street"])));

    // The producer stops: that is told, and it is waited for.
    let mark = rig.mqtt.mark();
    rig.faults("street").set(FaultPlan { hang: Some(HandshakeStep::Connect), ..FaultPlan::default() });
    assert_eq!(rig.faults("street").inject(Fault::HangUp), 1);
    let down = rig.status(mark, "live", |status| status.state == CameraState::Offline).await;
    assert_eq!(down.reason, Some(Reason::Stalled), "{down:#?}");
    assert!(down.detail.as_ref().is_some_and(|detail| detail.contains("stream `street`")), "{down:#?}");
    let mark = rig.mqtt.mark();
    rig.faults("street").set(FaultPlan::default());
    rig.status(mark, "live", |status| status.state == CameraState::Online).await;
    event(&rig, mark, "live", |event| event.kind == EventKind::New).await;
    rig.stop().await;
    let loud: Vec<_> = rig.daemon().output().into_iter().filter(|line| line.contains("ERROR")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
}
