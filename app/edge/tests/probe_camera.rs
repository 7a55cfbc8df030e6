//! What `kvs-edge probe` adds to the look at a camera.

use std::time::Duration;

use camera_sim::{CameraSim, ClipSpec};
use clock::Clock;
use kvs_edge::probe;
use rtsp::probe::ProbeOptions;

#[tokio::test(flavor = "multi_thread")]
async fn the_decoder_of_this_box_is_named() {
    let sim = CameraSim::builder().clip(ClipSpec::small()).start().await.expect("a simulated camera");
    let url = sim.url(0).parse().expect("a URL");
    let watch = Duration::from_millis(500);
    let options = ProbeOptions { watch, ..ProbeOptions::new(url) };
    let report = probe::run(options, Clock::system()).await.expect("a report");
    let decoder = report.decoder.as_ref().expect("video to decode");
    assert!(decoder.chosen.is_some(), "{decoder:?}");
    // Software decoders come behind those of boards and cards, and each of them says why not.
    assert!(decoder.skipped.iter().all(|skipped| !skipped.why.is_empty()), "{decoder:?}");
    assert!(report.to_string().contains("\ndecoder "), "{report}");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["decoder"]["chosen"].as_str(), decoder.chosen.as_deref());
    assert_eq!(json["video"]["parameter_sets"], "sdp");
}
