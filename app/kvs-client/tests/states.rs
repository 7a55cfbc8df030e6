//! How a source stands, and what it tells of itself, over the life of a stream; client and server in memory on paused time.

use std::time::Duration;

#[allow(dead_code, reason = "only a little is filmed here")]
mod film;
#[allow(dead_code, reason = "not all of it is moved here")]
mod pair;

use kvs::api::path;
use kvs_client::kvs;
use kvs_client::source::{Source, SourceMode, SourceOptions, StreamSource};
use kvs_local::{Fault, FaultKind};
use media::{Feed, SourceState, UnitSource};

use film::{PICTURES, film, stream, upload};
use pair::Pair;

const S: Duration = Duration::from_secs(1);

fn refuse(pair: &Pair, path: &str, count: u64) {
    let (error_type, status) = ("InternalFailure".to_owned(), 500);
    pair.server.faults().inject(Fault::any(FaultKind::Refuse {
        path: path.to_owned(),
        error_type,
        status,
        count,
    }));
}

/// What comes within a second.
async fn look(source: &mut Source) -> Option<Feed> {
    tokio::time::timeout(S, source.next()).await.unwrap_or(None)
}

/// State, its number and its word, and whether it is healthy.
fn told(source: &Source) -> (SourceState, u8, &'static str, bool) {
    let figures = source.figures();
    assert_eq!(figures.state, source.state());
    (figures.state, figures.connection_state(), figures.state_name(), source.is_healthy())
}

#[tokio::test(start_paused = true)]
async fn states_health_and_figures_are_those_of_the_stream() {
    for (mode, opens) in
        [(SourceMode::GetMedia, path::GET_MEDIA), (SourceMode::Hls, path::GET_HLS_STREAMING_SESSION_URL)]
    {
        let pair = Pair::new(64 * 1024, |_| {}).await;
        upload(&pair, 0..1).await;
        let mut source = Source::new(&pair.client(), &stream(), &SourceOptions::new(mode)).expect("good");
        assert_eq!(told(&source), (SourceState::Disconnected, 0, "disconnected", false), "{mode}");
        refuse(&pair, opens, 1);
        assert!(look(&mut source).await.is_none());
        assert_eq!(told(&source), (SourceState::Connecting, 1, "connecting", false), "{mode}");
        assert!(source.last_error().is_some_and(|error| error.contains("InternalFailure")), "{mode}");

        let Some(Feed::Video(unit)) = source.next().await else { panic!("{mode}: no picture") };
        assert_eq!(told(&source), (SourceState::Connected, 2, "connected", true), "{mode}");
        let figures = source.figures();
        let now_ms = pair.clock.wall_ms();
        assert_eq!(figures.latency_ms, Some(now_ms - unit.timestamp.as_millis()), "{mode}");
        assert_eq!(figures.last_frame_timestamp, Some(kvs::api::seconds(now_ms)), "{mode}");
        assert_eq!((figures.mode, figures.frames_read, figures.read_errors), (mode, 1, 1));
        assert!(figures.bytes_received > 100 && figures.parse_errors == 0, "{mode}");
        for _ in 1..PICTURES {
            source.next().await.expect("a picture");
        }

        // Nothing is filmed: 30 s later it is not healthy, whatever its state.
        while pair.clock.wall_ms() < now_ms + 30_001 {
            look(&mut source).await;
        }
        assert!(!source.is_healthy(), "{mode}");
        // The service is gone, and comes back with footage.
        refuse(&pair, opens, 3);
        while source.state() != SourceState::Reconnecting {
            look(&mut source).await;
        }
        assert_eq!(told(&source), (SourceState::Reconnecting, 3, "reconnecting", false), "{mode}");
        let camera = film(&pair, vec![(S, 20..120)]);
        while !matches!(source.next().await.expect("it goes on"), Feed::Video(_)) {}
        assert_eq!(told(&source), (SourceState::Connected, 2, "connected", true), "{mode}");
        assert_eq!(source.last_error().is_some(), source.figures().fragments_processed < 2, "{mode}");
        assert!(source.figures().connection_resets > 0, "{mode}");
        camera.await.expect("filmed");

        // For good.
        refuse(&pair, opens, 1_000);
        while source.next().await.is_some() {}
        assert_eq!(told(&source), (SourceState::Failed, 4, "error", false), "{mode}");
        let text = source.figures().prometheus("gate");
        let state = format!("{}_connection_state{{camera_id=\"gate\"}} 4\n", mode.metrics_prefix());
        assert!(text.contains(&state), "{text}");
    }
}
