//! The page as Prometheus gets it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use exporter::{Exporter, Registry, Sources};
use kvs_client::source::{SourceFigures, SourceMode};
use media::SourceState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Head and body of the answer.
async fn get(exporter: &Exporter, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(exporter.address()).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("taken");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

fn figures(mode: SourceMode) -> SourceFigures {
    SourceFigures {
        frames_read: 75,
        connection_resets: 2,
        url_refreshes: 1,
        read_errors: 3,
        last_frame_timestamp: Some(1_795_187_314.25),
        latency_ms: Some(1_500),
        ..SourceFigures::new(mode, SourceState::Reconnecting)
    }
}

#[tokio::test]
async fn dashboards_find_the_names_that_they_know_and_the_figures_of_the_moment() {
    let sources = Arc::new(Mutex::new(vec![
        ("front \"gate\"".to_owned(), figures(SourceMode::Hls)),
        ("yard".to_owned(), figures(SourceMode::Hls)),
        ("door".to_owned(), figures(SourceMode::GetMedia)),
    ]));
    let mut registry = Registry::default();
    let asked = sources.clone();
    registry.register_collector(Box::new(Sources::new(move || asked.lock().expect("whole").clone())));
    let exporter = Exporter::start(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, registry).await.expect("a free port");

    let (head, body) = get(&exporter, "/metrics").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("application/openmetrics-text"), "{head}");
    let lines: Vec<&str> = body.lines().collect();
    let cameras = [("hls", "front \\\"gate\\\""), ("hls", "yard"), ("getmedia", "door")];
    for (kind, camera) in cameras {
        let expected = [
            ("reconnects_total", "2"),
            ("frames_total", "75"),
            ("read_errors_total", "3"),
            ("last_frame_timestamp", "1795187314.25"),
            ("connection_state", "3.0"),
            ("latency_seconds", "1.5"),
        ];
        for (name, value) in expected {
            let line = format!("kvs_{kind}_{name}{{camera_id=\"{camera}\"}} {value}");
            assert!(lines.contains(&line.as_str()), "no line {line} in\n{body}");
        }
    }
    assert!(lines.contains(&"kvs_hls_url_refreshes_total{camera_id=\"yard\"} 1"), "{body}");
    assert!(!body.contains("kvs_getmedia_url_refreshes"), "{body}");
    // One head for each family, and the end that OpenMetrics wants.
    let heads = lines.iter().filter(|line| **line == "# TYPE kvs_hls_frames counter").count();
    assert_eq!((heads, lines.last()), (1, Some(&"# EOF")), "{body}");

    sources.lock().expect("whole").truncate(1);
    let (_, body) = get(&exporter, "/metrics").await;
    assert!(!body.contains("yard") && !body.contains("getmedia"), "{body}");
    assert!(get(&exporter, "/").await.0.starts_with("http/1.1 404"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let first = Exporter::start(local, 0, Registry::default()).await.expect("a free port");
    let port = first.address().port();
    let error = Exporter::start(local, port, Registry::default()).await.expect_err("taken").to_string();
    assert!(error.contains(&first.address().to_string()) && error.contains("choose another port"), "{error}");
    // It is free again once the first is gone; who closes a socket is not asked when.
    drop(first);
}
