//! A camera's footage goes to KVS and is proven back; the box tells about it.

use camera_sim::Audio;
use kvs_edge::messages::{
    CameraState, ClockSource, Health, Info, OFFLINE, ONLINE, Stats, Verdict, VerifyMethod,
};
use kvs_edge_tests::{Camera, Rig, program};

#[tokio::test(flavor = "multi_thread")]
async fn footage_is_stored_proven_and_told_of_and_a_stop_completes_it() {
    let rig = Rig::builder()
        .camera(Camera::new("h264"))
        .camera(Camera::new("h265").h265().clip(|clip| clip.audio = Audio::Aac))
        .start();
    let Some(rig) = rig.await else { return };
    for camera in ["h264", "h265"] {
        rig.online(camera).await;
        rig.fragments(camera, 4).await;
    }
    rig.stop().await;
    for camera in ["h264", "h265"] {
        let footage = rig.expect_everything_proven(camera).await;
        footage.expect_no_picture_missing();
        println!(
            "{camera} {} {:?} {:?}",
            footage.pictures.len(),
            footage.worst_time_error_ms(),
            footage.stats.last()
        );
    }
}
