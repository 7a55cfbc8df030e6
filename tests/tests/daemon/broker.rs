//! The broker comes and goes: the footage does not care, and whoever asks the broker gets the truth.

use std::process::Command;

use kvs_edge_tests::{Camera, Mosquitto, Observer, Process, Rig, free_port, program, within};
use messages::{CameraState, OFFLINE, ONLINE, Status, Topics};

use crate::service_manager::ServiceManager;

/// Somebody who subscribes now, and what the broker has kept.
pub(crate) async fn newcomer(rig: &Rig, topics: &[String]) -> Observer {
    let observer = Observer::start(rig.broker.port, Topics::new("kvs-edge", "box")).await;
    for topic in topics {
        observer.wait::<serde_json::Value>(topic, |_| true).await;
        let all = observer.all();
        let first = all.iter().find(|message| message.topic == *topic).expect("it was just there");
        assert!(first.retained, "{topic} is not retained");
    }
    observer
}

fn states(topics: &Topics) -> Vec<String> {
    let cameras = [topics.status("cam"), topics.upload("cam"), topics.verify("cam")];
    [topics.info(), topics.health()].into_iter().chain(cameras).collect()
}

/// What was said on `availability` since `mark`.
pub(crate) fn availability(rig: &Rig, mark: usize) -> Vec<String> {
    let topic = rig.mqtt.topics.availability();
    let said = rig.mqtt.all().into_iter().skip(mark).filter(|message| message.topic == topic);
    said.map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_the_start_and_later_gets_the_whole_truth_each_time_it_comes() {
    let Some(mut rig) = Rig::builder().camera(Camera::new("cam")).without_daemon().start().await else {
        return;
    };
    rig.broker.process.signal("TERM");
    rig.broker.process.ended().await;
    rig.spawn_daemon();
    rig.fragments("cam", 2).await;
    let (folder, port) = (rig.folder().to_owned(), rig.broker.port);
    let broker = Mosquitto::start_on(&folder, port).await.flatten();
    rig.broker = broker.expect("its own port is free again");
    let topics = rig.mqtt.topics.clone();
    rig.mqtt.wait_text(0, &topics.availability(), ONLINE).await;
    rig.online("cam").await;
    newcomer(&rig, &states(&topics)).await;
    let said = availability(&rig, 0);
    assert_eq!(said, [ONLINE], "live or retained, whoever of box and observer was there first");

    let mark = rig.mqtt.mark();
    rig.broker.restart(&folder).await;
    rig.mqtt.wait_text(mark, &topics.availability(), ONLINE).await;
    let online = |status: &Status| status.state == CameraState::Online;
    rig.mqtt.wait_after(mark, &topics.status("cam"), online).await;
    let newcomer = newcomer(&rig, &states(&topics)).await;
    newcomer.wait_text(0, &topics.availability(), ONLINE).await;
    rig.more_fragments("cam", 2).await;
    rig.stop().await;
    // A broker that ends in order may still hand out the last will of its clients.
    let said = availability(&rig, mark);
    let since: Vec<_> = said.iter().skip_while(|text| *text == OFFLINE).collect();
    assert_eq!(since, [ONLINE, OFFLINE], "{said:?}");
    rig.expect_everything_proven("cam").await.expect_no_picture_missing();
    let reconnects = rig.mqtt.last::<messages::Health>(&topics.health()).mqtt.reconnects;
    assert_eq!(reconnects, 1);
}

/// Two boxes: one that its broker refuses, and one that has nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_reaches_no_broker_records_and_stops_in_order() {
    tokio::join!(
        a_wrong_broker_password_is_told_in_the_log_and_costs_no_footage(),
        the_box_is_ready_and_stops_in_order_with_nothing_around_it(),
    );
}

async fn a_wrong_broker_password_is_told_in_the_log_and_costs_no_footage() {
    let rig = Rig::builder()
        .file("wrong-password", "not-the-word-of-the-broker")
        .set("mqtt.username", "\"box\"")
        .set("mqtt.password_file", "\"wrong-password\"")
        .camera(Camera::new("cam"))
        .without_daemon()
        .start();
    let Some(mut rig) = rig.await else { return };
    let Some((broker, port)) = broker_with_password(&rig).await else { return };
    rig.set("mqtt.port", &port.to_string());
    rig.spawn_daemon();
    let line = rig.daemon().line("mqtt.password_file").await;
    assert!(line.contains("WARN") && line.contains("mqtt.username"), "{line}");
    assert!(line.contains("127.0.0.1") && line.contains(&port.to_string()), "{line}");
    rig.fragments("cam", 3).await;
    rig.daemon().signal("TERM");
    assert!(rig.daemon().ended().await.success());
    assert!(!rig.daemon().output().join("\n").contains("not-the-word"), "the password is in the log");
    assert!(broker.is_running());
}

/// A second Mosquitto, which knows the user `box`; `None` where its tool is not installed.
async fn broker_with_password(rig: &Rig) -> Option<(Process, u16)> {
    let tool = program("mosquitto_passwd", "mosquitto")?;
    let folder = rig.folder().join("second-broker");
    std::fs::create_dir(&folder).expect("the rig's folder can be written to");
    let (passwords, file, port) = (folder.join("passwords"), folder.join("mosquitto.conf"), free_port());
    let made = Command::new(tool).args(["-b", "-c"]).arg(&passwords).args(["box", "right"]).status();
    assert!(made.expect("it starts").success());
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nuser root\nlog_dest stderr\n",
        passwords.display()
    );
    std::fs::write(&file, text).expect("the rig's folder can be written to");
    let program = program("mosquitto", "mosquitto")?;
    let process = Process::spawn("second mosquitto", Command::new(program).arg("-c").arg(&file));
    within("start of the second broker", process.line("running")).await;
    Some((process, port))
}

async fn the_box_is_ready_and_stops_in_order_with_nothing_around_it() {
    let mut manager = ServiceManager::new();
    let rig = Rig::builder()
        .camera(Camera::at("cam", "rtsp://127.0.0.1:1/none"))
        .set("aws.endpoint", "\"http://127.0.0.1:1\"")
        .set("mqtt.port", "1")
        .env("NOTIFY_SOCKET", &manager.address())
        .without_daemon()
        .start();
    let Some(mut rig) = rig.await else { return };
    rig.spawn_daemon();
    manager.until("READY=1").await;
    manager.until("STATUS=0 of 1 cameras live").await;
    rig.daemon().signal("TERM");
    manager.until("STOPPING=1").await;
    assert!(rig.daemon().ended().await.success());
}
