//! Client and server in memory on paused time: what takes minutes in the field takes milliseconds here, and nothing
//! depends on the machine.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

mod pair;

use aws_credential_types::provider::{ProvideCredentials, future};
use bytes::Bytes;
use kvs::ack::AckEvent;
use kvs::api::{StartSelector, StreamId};
use kvs_client::{
    Clock, Credentials, Error, PutMedia, PutMediaInput, ServiceErrorKind, SharedCredentialsProvider,
    TimecodeType, kvs,
};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start, header};

use pair::{BEGIN_MS, Pair};

fn input(write_timeout_s: Option<u64>) -> PutMediaInput {
    PutMediaInput {
        stream: StreamId::name("cam1"),
        timecode_type: TimecodeType::Absolute,
        start_ms: BEGIN_MS,
        write_timeout: write_timeout_s.map(Duration::from_secs),
    }
}

fn head() -> Bytes {
    header([7; 16], "test", &[Track::Audio(media::AudioFormat::pcmu(8000, 1).into())])
}

fn cluster(timecode_ms: u64, bytes: usize) -> Bytes {
    let block = [&block_head(1, 0, true, bytes)[..], &vec![0x55; bytes]].concat();
    [&cluster_start(timecode_ms)[..], &block].concat().into()
}

/// The next ack of this kind; the errors are the session's.
async fn until(session: &mut PutMedia, event: &AckEvent) -> Result<(), Error> {
    while session.acks.next_ack().await?.expect("the session goes on").event != *event {}
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_reading_is_given_up_after_the_session_s_own_limit() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let mut session = pair.client().put_media(&input(Some(5))).await.unwrap();
    session.sender.send(head()).await.unwrap();
    session.sender.send(cluster(BEGIN_MS, 1_000)).await.unwrap();
    until(&mut session, &AckEvent::Buffering).await.unwrap();
    let stuck = FaultKind::SlowReader { pause_ms: 3_600_000 };
    pair.server.faults().inject(Fault::on("cam1", stuck));
    let begin = pair.clock.now();
    let mut sent_at = begin;
    let error = loop {
        match session.sender.send(cluster(BEGIN_MS + 1_000, 50_000)).await {
            Ok(()) => sent_at = pair.clock.now(),
            Err(error) => break error,
        }
    };
    let limit = Duration::from_secs(5);
    assert!(matches!(error, Error::Stalled { after, .. } if after == limit), "{error:?}");
    assert_eq!(pair.clock.since(sent_at), limit);
    assert_eq!(sent_at, begin, "what fits is taken at once");

    // The next session begins once the old one is gone, and what it sends arrives.
    drop(session);
    pair.server.faults().clear();
    pair.clock.sleep(Duration::from_secs(3_600)).await;
    let mut session = pair.client().put_media(&input(None)).await.unwrap();
    session.sender.send([head(), cluster(BEGIN_MS, 1_000)].concat().into()).await.unwrap();
    session.sender.send(cluster(BEGIN_MS + 1_000, 1_000)).await.unwrap();
    until(&mut session, &AckEvent::Persisted).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_is_noticed_at_once_and_one_that_is_gone_refuses() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let client = pair.client();
    let mut session = client.put_media(&input(None)).await.unwrap();
    session.sender.send(head()).await.unwrap();
    session.acks.accepted().await.unwrap();
    let mut media = client.get_media(&StreamId::name("cam1"), StartSelector::now()).await.unwrap();
    let begin = pair.clock.now();
    let Pair { server, clock, .. } = pair;
    drop(server);
    let error = session.acks.next_ack().await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    while session.sender.send(Bytes::from_static(b"media")).await.is_ok() {}
    assert!(matches!(media.next_bytes().await, Ok(None) | Err(Error::Interrupted { .. })));
    let error = client.describe_stream(&StreamId::name("cam1")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(clock.since(begin), Duration::ZERO, "nobody waited for a limit");
}

/// The service closes what is quiet for 30 s, and what is 45 min old.
#[tokio::test(start_paused = true)]
async fn a_quiet_session_is_closed_by_the_service_and_an_old_one_too() {
    let pair = Pair::new(64 * 1024, |_| {}).await;
    let mut session = pair.client().put_media(&input(None)).await.unwrap();
    let begin = pair.clock.now();
    session.sender.send(head()).await.unwrap();
    session.sender.send(cluster(BEGIN_MS, 1_000)).await.unwrap();
    let mut acks = Vec::new();
    while let Ok(Some(ack)) = session.acks.next_ack().await {
        acks.push(ack.event);
    }
    assert_eq!(pair.clock.since(begin), Duration::from_secs(30));
    assert_eq!(acks.iter().filter(|event| **event == AckEvent::Idle).count(), 5, "{acks:?}");
    drop(session);

    let mut session = pair.client().put_media(&input(None)).await.unwrap();
    let (begin, clock) = (pair.clock.now(), pair.clock.clone());
    session.sender.send(head()).await.unwrap();
    let PutMedia { mut sender, mut acks } = session;
    let sending = async {
        for second in (0..).step_by(2) {
            if sender.send(cluster(BEGIN_MS + second * 1_000, 1_000)).await.is_err() {
                return second;
            }
            clock.sleep(Duration::from_secs(2)).await;
        }
        unreachable!("the service ends it")
    };
    let hearing = async {
        loop {
            match acks.next_ack().await.unwrap().expect("an error first").event {
                AckEvent::Error(error) => return (error.id, clock.since(begin)),
                _ => continue,
            }
        }
    };
    let (_, ended) = tokio::join!(sending, hearing);
    assert_eq!(ended, (4003, Duration::from_secs(45 * 60)));
}

/// Tokens of the wanted age: the server accepts each for its time only.
#[derive(Clone, Debug)]
struct Issuer {
    clock: Clock,
    life: Duration,
    issued: Arc<AtomicU32>,
    failing: Arc<Mutex<bool>>,
}

impl ProvideCredentials for Issuer {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        use aws_credential_types::provider::error::CredentialsError;
        if *self.failing.lock().unwrap() {
            return future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("away")));
        }
        self.issued.fetch_add(1, Ordering::Relaxed);
        let end = self.clock.wall() + self.life;
        let token = Some("token".to_owned());
        let keys = Credentials::new("AKIDKVSLOCAL", "kvs-local-secret", token, Some(end), "test");
        future::ProvideCredentials::ready(Ok(keys))
    }
}

#[tokio::test(start_paused = true)]
async fn temporary_keys_are_renewed_five_minutes_before_their_end_and_used_on_while_nobody_has_new_ones() {
    let keys = kvs_local::Credentials::local().with_token("token");
    let mut pair = Pair::new(64 * 1024, |options| options.credentials = vec![keys]).await;
    let issuer = Issuer {
        clock: pair.clock.clone(),
        life: Duration::from_secs(3_600),
        issued: Arc::default(),
        failing: Arc::default(),
    };
    pair.config.credentials = SharedCredentialsProvider::new(issuer.clone());
    let (client, stream) = (pair.client(), StreamId::name("cam1"));
    for (minute, issued) in [(0, 1), (54, 1), (55, 2), (109, 2), (110, 3)] {
        let at = pair.config.clock.wall_ms();
        let wait = Duration::from_millis(BEGIN_MS + minute * 60_000 - at);
        pair.clock.sleep(wait).await;
        client.describe_stream(&stream).await.unwrap();
        assert_eq!(issuer.issued.load(Ordering::Relaxed), issued, "minute {minute}");
    }
    *issuer.failing.lock().unwrap() = true;
    pair.clock.sleep(Duration::from_secs(59 * 60)).await;
    client.describe_stream(&stream).await.unwrap();
    pair.clock.sleep(Duration::from_secs(60)).await;
    let error = client.describe_stream(&stream).await.unwrap_err();
    assert!(matches!(error, Error::Credentials(_)), "{error:?}");
    *issuer.failing.lock().unwrap() = false;
    client.describe_stream(&stream).await.unwrap();
}

/// A box whose clock somebody sets: each time one call is refused at most, and none once the service was heard.
#[tokio::test(start_paused = true)]
async fn steps_of_the_box_s_clock_cost_at_most_the_first_call() {
    let mut pair = Pair::new(64 * 1024, |_| {}).await;
    let ours = Clock::simulated(UNIX_EPOCH);
    pair.config.clock = ours.clone();
    let (client, stream) = (pair.client(), StreamId::name("cam1"));
    let error = client.describe_stream(&stream).await.unwrap_err();
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::ClockSkew));
    for shift_s in [0_i64, 3_600, -3_600, 40, -86_400] {
        let right = pair.clock.wall();
        let shift = Duration::from_secs(shift_s.unsigned_abs());
        ours.step_to(if shift_s < 0 { right - shift } else { right + shift });
        client.describe_stream(&stream).await.unwrap();
        let known = client.service_time().expect("heard");
        assert!((known.offset_ms + shift_s * 1_000).abs() <= 1_000, "{shift_s}: {known:?}");
        pair.clock.sleep(Duration::from_secs(700)).await;
    }
}
