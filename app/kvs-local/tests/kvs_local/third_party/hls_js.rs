//! A web page in a real browser: hls.js in headless Chromium plays what the server has stored. The pictures say which they are.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{absent, output};
use crate::client::Rig;
use crate::film::{Film, PICTURE_MS, read_png};
use crate::mkv::recorded;

const BROWSER: &str = "chromium";
/// A browser that says nothing for so long has failed; nothing depends on how fast it is.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the page tells.
#[derive(Debug)]
struct Told {
    what: String,
    /// Behind the question mark.
    query: String,
    body: Bytes,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A browser that shows the page. Dropped, it ends.
struct Browser {
    child: Child,
    told: mpsc::Receiver<Told>,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// `None`, and a word about it, where browser or player are not installed.
    async fn play(url: &str) -> Option<Self> {
        let Some(player) = std::env::var_os("KVS_EDGE_TEST_HLS_JS") else {
            absent("hls.js (KVS_EDGE_TEST_HLS_JS; cargo xtask test)");
            return None;
        };
        let mut version = Command::new(BROWSER);
        version.arg("--version");
        output(version).await?;
        let player = std::fs::read(player).expect("hls.js, as one file");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let page = format!("http://{}/#{url}", listener.local_addr().expect("bound"));
        let (sender, told) = mpsc::channel(64);
        tokio::spawn(serve(listener, player.into(), sender));
        let folder = tempfile::tempdir().expect("a folder");
        let child = Command::new(BROWSER)
            // As root, and in containers, its sandbox does not start.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--mute-audio", "--autoplay-policy=no-user-gesture-required"])
            .args(["--disable-background-networking", "--disable-component-update", "--window-size=640,400"])
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .arg(page)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts: its version was told");
        Some(Self { child, told, _folder: folder })
    }

    /// The next word of the page; errors that the player cannot get over end the test.
    async fn next(&mut self) -> Told {
        let told = self.any().await;
        assert!(told.what != "error" || told.json()["fatal"] == json!(false), "{}", told.json());
        told
    }

    /// The next word of the page.
    async fn any(&mut self) -> Told {
        let told = tokio::time::timeout(DEADLINE, self.told.recv()).await;
        let told = told.unwrap_or_else(|_| panic!("nothing from the page within {DEADLINE:?}"));
        told.expect("the page is served as long as the browser runs")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Debian's program is a script that becomes the browser; its helpers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve(listener: TcpListener, player: Bytes, told: mpsc::Sender<Told>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (player, told) = (player.clone(), told.clone());
        let handler = service_fn(move |request| answer(request, player.clone(), told.clone()));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), handler),
        );
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    player: Bytes,
    told: mpsc::Sender<Told>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let (kind, content) = match (&parts.method, path) {
        (&Method::GET, "/") => ("text/html", Bytes::from_static(include_bytes!("player.html"))),
        (&Method::GET, "/hls.js") => ("text/javascript", player),
        (&Method::POST, _) => {
            let body = body.collect().await?.to_bytes();
            let what = path.trim_start_matches("/told/").to_owned();
            let query = parts.uri.query().unwrap_or("").to_owned();
            // Nobody listens once the test is over.
            let _ = told.send(Told { what, query, body }).await;
            ("text/plain", Bytes::new())
        }
        _ => ("text/plain", Bytes::new()),
    };
    let mut response = Response::new(Full::new(content));
    response.headers_mut().insert("content-type", kind.parse().expect("ASCII"));
    Ok(response)
}

/// Milliseconds on the player's timeline, and the number in the picture.
fn picture(told: &Told) -> (i64, i64) {
    let ms = told.query.replace('.', "").parse().expect("seconds with three decimals");
    let (.., number) = read_png(&told.body);
    (ms, number.expect("the whole picture, with its strip").into())
}

/// A session's URL over `rig`'s socket.
async fn session(rig: &Rig, mut input: Value) -> String {
    input["StreamName"] = json!("cam1");
    let answer = rig.client.call("/getHLSStreamingSessionURL", input).await.json();
    answer["HLSStreamingSessionURL"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn on_demand(rig: &Rig) -> String {
    let now_s = kvs::api::seconds(rig.client.clock.wall_ms());
    let times = json!({ "StartTimestamp": now_s - 3_600.0, "EndTimestamp": now_s + 3_600.0 });
    let selector = json!({ "FragmentSelectorType": "SERVER_TIMESTAMP", "TimestampRange": times });
    let mode = json!({ "PlaybackMode": "ON_DEMAND", "HLSFragmentSelector": selector, "DiscontinuityMode": "ON_DISCONTINUITY" });
    session(rig, mode).await
}

#[tokio::test]
async fn hls_js_plays_a_range_to_its_end_and_shows_each_picture_at_its_time() {
    for b_frames in [0, 2] {
        let (rig, film) = (Rig::new(24).await, Film::h264(25, b_frames));
        let begin_ms = rig.client.clock.wall_ms() - 60_000;
        for fragment in 0..4 {
            film.put(&rig, fragment, begin_ms + fragment * film.fragment_ms()).await;
        }
        let Some(mut browser) = Browser::play(&on_demand(&rig).await).await else { return };
        let mut pictures = Vec::new();
        let end = loop {
            let told = browser.next().await;
            match told.what.as_str() {
                "picture" => pictures.push(picture(&told)),
                "ended" => break told.json(),
                _ => {}
            }
        };
        let seconds = |name: &str| end[name].as_f64().unwrap_or_else(|| panic!("{end}"));
        assert!(
            (seconds("duration") - 4.0).abs() < 0.05 && seconds("currentTime") >= seconds("duration"),
            "{end}"
        );
        assert!(end["totalVideoFrames"].as_u64() > end["droppedVideoFrames"].as_u64(), "{end}");
        assert!(!pictures.is_empty());
        let begin = pictures[0].0 - pictures[0].1 * i64::try_from(PICTURE_MS).expect("small");
        for (ms, number) in &pictures {
            let due = begin + number * i64::try_from(PICTURE_MS).expect("small");
            assert!(ms.abs_diff(due) <= 1, "picture {number} at {ms} ms, {pictures:?}");
        }
        // The timeline of a player begins with the first picture, or two pictures later where they are reordered.
        assert!((0..=80).contains(&begin), "{begin}");
    }
}

#[tokio::test]
async fn hls_js_is_told_why_a_session_is_refused() {
    let (rig, film) = (Rig::new(24).await, Film::h264(25, 0));
    film.put(&rig, 0, rig.client.clock.wall_ms()).await;
    let url = on_demand(&rig).await.replace("SessionToken=", "SessionToken=0");
    let Some(mut browser) = Browser::play(&url).await else { return };
    loop {
        let told = browser.any().await;
        if told.what == "error" && told.json()["fatal"] == json!(true) {
            assert_eq!(told.json()["status"], json!(403), "{}", told.json());
            return;
        }
    }
}

#[tokio::test]
async fn hls_js_plays_sound_beside_the_pictures() {
    let rig = Rig::new(24).await;
    rig.client.put_whole("cam1", &recorded("av_put_001.mkv")).await;
    let Some(mut browser) = Browser::play(&on_demand(&rig).await).await else { return };
    loop {
        let told = browser.next().await;
        match told.what.as_str() {
            "manifest" => {
                let codecs = told.json()["codecs"][0].as_str().map(str::to_owned);
                assert!(
                    codecs.is_some_and(|codecs| codecs.contains("avc1.") && codecs.contains("mp4a.40.2"))
                );
            }
            "ended" => {
                let end = told.json();
                assert!(end["totalVideoFrames"].as_u64() > end["droppedVideoFrames"].as_u64(), "{end}");
                return;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn hls_js_follows_a_live_stream() {
    let (rig, film) = (Rig::new(24).await, Film::h264(25, 0));
    let begin_ms = rig.client.clock.wall_ms();
    let fragments = film.fragments();
    let put = async |n: u64| film.put(&rig, n % fragments, begin_ms + n * film.fragment_ms()).await;
    // What a playlist lists, before anybody looks.
    let first = 5;
    for n in 0..first {
        put(n).await;
    }
    let url =
        session(&rig, json!({ "HLSFragmentSelector": { "FragmentSelectorType": "PRODUCER_TIMESTAMP" } }))
            .await;
    let Some(mut browser) = Browser::play(&url).await else { return };
    // A camera gives one fragment in the time that one lasts.
    let mut camera = tokio::time::interval(Duration::from_millis(film.fragment_ms()));
    let (mut sent, mut begin, mut before) = (first, None, 0);
    let per_fragment = i64::try_from(film.pictures()).expect("small");
    loop {
        let told = tokio::select! {
            _ = camera.tick() => {
                put(sent).await;
                sent += 1;
                continue;
            }
            told = browser.next() => told,
        };
        match told.what.as_str() {
            "playlist" => assert_eq!(told.json()["live"], json!(true)),
            "picture" => {
                let (ms, number) = picture(&told);
                // The clip repeats: which picture of the stream it is follows from when it is shown.
                let ms_each = i64::try_from(PICTURE_MS).expect("small");
                let nth = (ms + ms_each / 2) / ms_each;
                let in_clip = per_fragment * i64::try_from(fragments).expect("small");
                let begin = *begin.get_or_insert((number - nth).rem_euclid(in_clip));
                assert_eq!((nth + begin).rem_euclid(in_clip), number, "picture {number} at {ms} ms");
                assert!(ms >= before, "{ms} ms after {before} ms");
                before = ms;
                // Of fragments that came after the player had begun.
                if nth > (i64::try_from(first).expect("small") + 3) * per_fragment {
                    return;
                }
            }
            _ => {}
        }
    }
}
