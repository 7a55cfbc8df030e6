//! What the broker is told when the cameras of the box change.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clock::Clock;
use health::{CameraFacts, Pictures, judge};
use kvs::proof::schedule::Verdict;
use kvs_edge::camera::CameraView;
use kvs_edge::cameras::Views;
use kvs_edge::publish::{Device, Publisher};
use kvs_edge::record::proof::ProofReport;
use kvs_edge::record::{SharedLedger, UploadReport, UploadState};
use kvs_edge::status::{BoxStatus, CameraStatus};
use messages::{CameraState, Info, Status, Topics};
use mqtt::{Heard, Listener, Mqtt};
use rtsp::source::IngestReport;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Far beyond what any event takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(30);

fn broker_config(address: std::net::SocketAddr, client_id: &str) -> config::Mqtt {
    config::Mqtt {
        host: address.ip().to_string(),
        port: address.port(),
        prefix: "kvs-edge".into(),
        username: None,
        password: None,
        client_id: client_id.into(),
        tls: None,
        protocol: config::MqttProtocol::V5,
        proxy: None,
        keep_alive: Duration::from_secs(30),
    }
}

fn view(id: &str) -> CameraView {
    let url = "rtsp://192.0.2.10/stream1".parse().expect("a URL");
    CameraView {
        config: Arc::new(config::Camera::new(id, url)),
        ingest: watch::channel(IngestReport::new(SystemTime::UNIX_EPOCH)).1,
        upload: watch::channel(UploadReport::new(SystemTime::UNIX_EPOCH)).1,
        ledger: SharedLedger::default(),
        orders: Default::default(),
        verify: watch::channel(ProofReport::new(SystemTime::UNIX_EPOCH)).1,
        records: watch::channel(Default::default()).1,
        analytics: None,
    }
}

fn status(views: &[CameraView]) -> Arc<BoxStatus> {
    let camera = |view: &CameraView| {
        let facts = CameraFacts {
            enabled: true,
            stopping: false,
            pictures: Pictures::Live,
            problems: Vec::new(),
            notices: Vec::new(),
        };
        CameraStatus {
            id: view.config.id.clone(),
            health: judge(facts, SystemTime::UNIX_EPOCH),
            since: SystemTime::UNIX_EPOCH,
            attempts: 0,
            upload: UploadState::Sending,
            upload_problem: None,
            fragments_lost: 0,
            verdict: Verdict::Unknown,
            record: None,
            verify_problem: None,
        }
    };
    Arc::new(BoxStatus {
        cameras: views.iter().map(camera).collect(),
        problems: Vec::new(),
        ..BoxStatus::default()
    })
}

/// The next message on `topic` that `wanted` accepts; others are passed over.
async fn heard(messages: &mut mpsc::Receiver<Heard>, topic: &str, wanted: impl Fn(&Bytes) -> bool) -> Bytes {
    let next = async {
        loop {
            match messages.recv().await.expect("the broker runs") {
                Heard::Message { topic: of, payload } if of == topic && wanted(&payload) => return payload,
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, next).await.unwrap_or_else(|_| panic!("nothing on {topic}"))
}

fn cameras_of(info: &Bytes) -> Vec<String> {
    let info: Info = serde_json::from_slice(info).expect("an info body");
    info.cameras.into_iter().map(|camera| camera.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_is_removed_leaves_nothing_on_the_broker() {
    let broker = demo::broker::Broker::start().expect("a broker");
    let topics = Topics::new("kvs-edge", "box");
    let listener = loop {
        // The broker's thread may not listen yet.
        match Listener::connect(broker_config(broker.address(), "reader"), vec![topics.everything()]).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let (sender, mut messages) = Listener::channel();
    let stop = CancellationToken::new();
    let reading = tokio::spawn(listener.run(sender, stop.clone()));
    let clock = Clock::system();
    let config = broker_config(broker.address(), "box");
    let (mqtt, connection) = Mqtt::start(config, &topics, clock.clone(), stop.clone());

    let both = vec![view("gate"), view("yard")];
    let (views, views_out) = watch::channel(Views::new(both.clone()));
    let (state, state_out) = watch::channel(status(&both));
    let identity = host::identity(&clock);
    let device = Device { id: "box".into(), name: None, started: SystemTime::UNIX_EPOCH, identity };
    let (reason, stop_reason) = watch::channel(None);
    let publisher = Publisher {
        mqtt: Some(mqtt),
        topics: topics.clone(),
        device,
        cameras: views_out,
        status: state_out,
        interval: Duration::from_secs(3600),
        watchdog_margin: watch::channel(None).1,
        stop_reason,
        worker: None,
        clock,
    };
    let publishing = tokio::spawn(publisher.run(stop.clone()));
    let body = heard(&mut messages, &topics.status("yard"), |body| !body.is_empty()).await;
    let told: Status = serde_json::from_slice(&body).expect("a status body");
    assert_eq!(told.state, CameraState::Online);

    views.send_replace(Views::new(both[..1].to_vec()));
    let info = heard(&mut messages, &topics.info(), |body| cameras_of(body).len() == 1).await;
    assert_eq!(cameras_of(&info), ["gate"]);
    state.send_replace(status(&both[..1]));
    reason.send_replace(Some("the test is over".to_owned()));
    stop.cancel();
    publishing.await.expect("no panic");
    connection.await.expect("no panic");
    reading.await.expect("no panic");

    // Whoever comes later finds what is retained: one camera, and nothing of the other.
    let mut config = broker_config(broker.address(), "later");
    config.client_id = "later".into();
    let listener = Listener::connect(config, vec![topics.everything()]).await.expect("a subscription");
    let (sender, mut messages) = Listener::channel();
    let stop = CancellationToken::new();
    let reading = tokio::spawn(listener.run(sender, stop.clone()));
    let mut retained = std::collections::BTreeSet::new();
    while !retained.contains(&topics.info()) || !retained.contains(&topics.verify("gate")) {
        let next = tokio::time::timeout(DEADLINE, messages.recv()).await.expect("in time");
        if let Some(Heard::Message { topic, payload }) = next {
            assert!(!payload.is_empty());
            retained.insert(topic);
        }
    }
    assert!(retained.iter().all(|topic| !topic.contains("/cam/yard/")), "{retained:?}");
    stop.cancel();
    reading.await.expect("no panic");
}
