//! Faults on demand, from Rust and over the admin paths.

use kvs::ack::AckEvent;
use kvs_local::{AckKind, At, Fault, FaultKind};
use serde_json::{Value, json};

use crate::client::{Rig, name, names, persisted};
use crate::mkv::{body, chunks, cluster, end_of_fragment};

async fn rig_with(kind: FaultKind) -> Rig {
    let rig = Rig::in_memory(1, |_| {}).await;
    rig.server.faults().inject(Fault::on("cam1", kind));
    rig
}

#[tokio::test(start_paused = true)]
async fn any_error_can_be_raised_in_any_fragment() {
    for id in kvs::ack::AckError::known_ids() {
        let rig = rig_with(FaultKind::AckError { id, fragment: 2, at: At::Start }).await;
        let mut session = rig.client.put_media("cam1").await;
        session.send(&body(&[1_000, 2_000, 3_000])).await;
        let acks = session.rest().await;
        assert_eq!(names(&acks), ["BUFFERING", "RECEIVED", "BUFFERING", "PERSISTED", &format!("ERROR {id}")]);
        assert_eq!(acks[4].timecode_ms, Some(2_000));
    }
    for (at, expected) in [(At::End, "BUFFERING"), (At::Persist, "RECEIVED")] {
        let rig = rig_with(FaultKind::AckError { id: 5001, fragment: 1, at }).await;
        let mut session = rig.client.put_media("cam1").await;
        session.send(&[body(&[1_000]), end_of_fragment()].concat()).await;
        let acks = names(&session.rest().await);
        assert_eq!(acks[acks.len() - 2..], [expected, "ERROR 5001"]);
        assert_eq!(rig.server.fragments("cam1").await.expect("listed"), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_put_media_breaks_off_and_the_stream_goes_on() {
    let cut = body(&[1_000]).len() as u64 + 50;
    let rig = rig_with(FaultKind::CutPutMedia { after_bytes: cut }).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000])).await;
    session.until("BUFFERING").await;
    session.send(&cluster(2_000)).await;
    while session.ack().await.is_some() {}
    assert_eq!(
        names(&rig.client.put_whole("cam1", &body(&[2_000])).await),
        ["BUFFERING", "RECEIVED", "PERSISTED"]
    );
    assert_eq!(rig.server.faults().waiting(), []);
}

#[tokio::test(start_paused = true)]
async fn acks_can_be_missing_late_doubled_and_preceded_by_garbage() {
    let rig = rig_with(FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 1 }).await;
    let acks = names(&rig.client.put_whole("cam1", &body(&[1_000, 2_000])).await);
    assert_eq!(acks, ["BUFFERING", "RECEIVED", "BUFFERING", "RECEIVED", "PERSISTED"]);
    assert_eq!(rig.server.fragments("cam1").await.expect("listed").len(), 2, "kept all the same");

    let rig = rig_with(FaultKind::DuplicateAck { ack: None, count: 2 }).await;
    let acks = names(&rig.client.put_whole("cam1", &body(&[1_000])).await);
    assert_eq!(acks, ["BUFFERING", "BUFFERING", "RECEIVED", "RECEIVED", "PERSISTED"]);

    let rig = rig_with(FaultKind::DelayAck { ack: Some(AckKind::Received), delay_ms: 5_000, count: 1 }).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&[body(&[1_000]), end_of_fragment()].concat()).await;
    session.until("BUFFERING").await;
    let begin = rig.client.clock.now();
    session.until("RECEIVED").await;
    assert_eq!(rig.client.clock.since(begin).as_millis(), 5_000);

    let rig = rig_with(FaultKind::GarbageAck { bytes: b"<html>".to_vec() }).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000])).await;
    assert_eq!(session.raw().await.as_deref(), Some(&b"<html>"[..]));
}

#[tokio::test(start_paused = true)]
async fn requests_are_refused_as_often_as_told() {
    let refusal = FaultKind::RefusePutMedia {
        error_type: "ClientLimitExceededException".to_owned(),
        status: 400,
        count: 2,
    };
    let rig = rig_with(refusal).await;
    for _ in 0..2 {
        let error = rig.client.put_media_as("cam1", "ABSOLUTE", "0").await.err().expect("refused").error();
        assert_eq!(error, (400, "ClientLimitExceededException".to_owned()));
    }
    assert_eq!(persisted(&rig.client.put_whole("cam1", &body(&[1_000])).await).len(), 1);

    let refusal = FaultKind::Refuse {
        path: "/getDataEndpoint".to_owned(),
        error_type: "InternalFailure".to_owned(),
        status: 500,
        count: 1,
    };
    rig.server.faults().inject(Fault::any(refusal));
    let input = json!({ "StreamName": "cam1", "APIName": "PUT_MEDIA" });
    assert_eq!(
        rig.client.call("/getDataEndpoint", input.clone()).await.error(),
        (500, "InternalFailure".to_owned())
    );
    let answer = rig.client.call("/getDataEndpoint", input).await.json();
    assert_eq!(answer["DataEndpoint"], rig.server.endpoint());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_still_reads_all() {
    let rig = rig_with(FaultKind::SlowReader { pause_ms: 5 }).await;
    let acks = rig.client.put_whole("cam1", &body(&[1_000, 2_000])).await;
    assert_eq!(persisted(&acks).len(), 2);
    rig.server.faults().clear();
}

#[tokio::test(start_paused = true)]
async fn get_media_can_lie_in_every_way() {
    let rig = Rig::in_memory(1, |_| {}).await;
    rig.client.put_whole("cam1", &body(&[1_000, 2_000, 3_000])).await;
    let [a, b, c] = [1_000, 2_000, 3_000].map(cluster);
    let read = async || -> Vec<Vec<u8>> {
        chunks(&rig.client.read_all("cam1").await).into_iter().map(|chunk| chunk.cluster).collect()
    };
    let inject = |kind| rig.server.faults().inject(Fault::on("cam1", kind));

    inject(FaultKind::SkipChunk { count: 1 });
    assert_eq!(read().await, [b.clone(), c.clone()]);
    inject(FaultKind::DuplicateChunk { count: 1 });
    assert_eq!(read().await, [a.clone(), a.clone(), b.clone(), c.clone()]);
    inject(FaultKind::CorruptChunk { count: 1 });
    let answer = read().await;
    let different: Vec<_> = answer[0].iter().zip(&a).filter(|(found, sent)| found != sent).collect();
    assert_eq!((answer.len(), different.len()), (3, 1));
    assert_eq!(answer[1..], [b.clone(), c.clone()]);
    assert_eq!(read().await, [a.clone(), b.clone(), c.clone()], "what is stored stayed whole");

    inject(FaultKind::CutGetMedia { after_bytes: 500 });
    let mut reader = rig.client.get_media("cam1", json!({ "StartSelectorType": "EARLIEST" })).await;
    assert!(reader.end().await.is_err(), "breaks off");
    assert_eq!(reader.bytes.len(), 500);

    let numbers: Vec<_> = rig.server.fragments("cam1").await.expect("listed");
    rig.server.corrupt_fragment("cam1", &numbers[1].number).await.expect("there");
    assert_ne!(
        rig.server.fragments("cam1").await.expect("listed")[1].cluster_sha256,
        numbers[1].cluster_sha256
    );
    let answer = read().await;
    assert_eq!((&answer[0], &answer[2]), (&a, &c));
    assert_eq!((answer[1].len(), answer[1] == b), (b.len(), false));
    rig.server.delete_fragment("cam1", &numbers[1].number).await.expect("there");
    assert_eq!(read().await, [a, c]);
    assert!(rig.server.delete_fragment("cam1", &numbers[1].number).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn get_media_ends_silently_at_a_word_or_at_its_age() {
    let rig = Rig::in_memory(1, |options| options.limits.get_media_idle_end = None).await;
    rig.client.put_whole("cam1", &body(&[1_000])).await;
    let mut reader = rig.client.get_media("cam1", json!({ "StartSelectorType": "EARLIEST" })).await;
    while !reader.bytes.windows(28).any(|window| window == b"AWS_KINESISVIDEO_CONTINUATIO") {
        assert!(reader.more().await.expect("no break"));
    }
    assert_eq!(rig.server.connections("cam1").expect("there").get_media, 1);
    rig.server.end_get_media("cam1").expect("there");
    assert_eq!(chunks(&reader.end().await.expect("ends well")).len(), 1);

    let old = |options: &mut kvs_local::Options| {
        options.limits.get_media_idle_end = None;
    };
    let rig = Rig::in_memory(1, old).await;
    let begin = rig.client.clock.now();
    rig.client.read_all("cam1").await;
    assert_eq!(rig.client.clock.since(begin).as_secs(), 40 * 60);
}

#[tokio::test(start_paused = true)]
async fn the_admin_paths_do_the_same_and_are_off_by_default() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let answer = rig.client.call("/admin/faults", json!({ "fault": "drop_ack" })).await;
    assert_eq!(answer.json()["Output"]["__type"], "com.amazon.coral.service#UnknownOperationException");

    let rig = Rig::in_memory(1, |options| options.admin = true).await;
    let ask = async |method: &str, path: &str, body: Value| -> (u16, Value) {
        let body = crate::client::Sent::whole(body.to_string().into_bytes());
        let request = hyper::Request::builder().method(method).uri(path).body(body).expect("a request");
        let response = rig.client.connect().await.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.expect("whole").to_bytes();
        (parts.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
    };
    let fault = json!({ "fault": "ack_error", "id": 4009, "fragment": 2, "stream": "cam1" });
    assert_eq!(ask("POST", "/admin/faults", fault.clone()).await, (200, json!({})));
    assert_eq!(ask("GET", "/admin/faults", json!({})).await.1[0]["id"], 4009);
    assert_eq!(ask("POST", "/admin/faults", json!({ "fault": "no such" })).await.0, 400);
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000, 2_000])).await;
    let acks = session.rest().await;
    assert_eq!(acks.last().map(name).as_deref(), Some("ERROR 4009"));

    let (_, inside) = ask("GET", "/admin/streams/cam1", json!({})).await;
    assert_eq!(inside["acks"].as_array().map(Vec::len), Some(5));
    assert_eq!(inside["acks"][4]["error_id"], 4009);
    assert_eq!(inside["connections"]["put_media_ever"], 1);
    let fragment = &inside["fragments"][0];
    assert_eq!(fragment["cluster_bytes"], cluster(1_000).len());
    let number = fragment["number"].as_str().expect("text");
    let path = format!("/admin/streams/cam1/fragments/{number}");
    assert_eq!(ask("POST", &format!("{path}/corrupt"), json!({})).await.0, 200);
    assert_eq!(ask("DELETE", &path, json!({})).await.0, 200);
    assert_eq!(ask("DELETE", &path, json!({})).await.0, 404);
    assert_eq!(ask("GET", "/admin/streams", json!({})).await.1, json!(["cam1"]));
    assert_eq!(ask("GET", "/admin/calls", json!({})).await.1, json!({ "/putMedia": 1 }));
    assert_eq!(ask("POST", "/admin/streams/cam1/end-get-media", json!({})).await.0, 200);
    assert_eq!(ask("POST", "/admin/expire", json!({})).await.0, 200);
    assert_eq!(ask("DELETE", "/admin/faults", json!({})).await.0, 200);
    assert_eq!(ask("GET", "/admin/nothing", json!({})).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn an_error_ack_is_read_even_by_a_producer_that_keeps_sending() {
    let rig = rig_with(FaultKind::AckError { id: 4004, fragment: 1, at: At::Start }).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000])).await;
    for timecode in 2..200_u64 {
        session.send(&cluster(timecode * 1_000)).await;
    }
    let acks = session.rest().await;
    assert!(matches!(acks.last().map(|ack| &ack.event), Some(AckEvent::Error(error)) if error.id == 4004));
}
