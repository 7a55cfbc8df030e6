use super::*;
use crate::epoch;

const S: Duration = Duration::from_secs(1);
const MASTER: &str = "/hls/v1/getHLSMasterPlaylist.m3u8?SessionToken=a~";

fn number(sequence: u64) -> FragmentNumber {
    FragmentNumber::new(sequence, 1_795_186_073_000 + sequence * 2_000, 7)
}

/// Fragments of two seconds; the media sequence number of the first, and their sequence numbers.
fn list(first: u64, fragments: impl IntoIterator<Item = u64>) -> String {
    let mut text =
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-MAP:URI=\"init\"\n");
    for n in fragments {
        let begins = media::ProducerTimestamp::from_millis(1_795_186_073_000 + n * 2_000);
        text += &format!(
            "#EXT-X-PROGRAM-DATE-TIME:{begins}\n#EXTINF:2.000,\nmedia?FragmentNumber={}\n",
            number(n)
        );
    }
    text
}

fn ended(first: u64, fragments: impl IntoIterator<Item = u64>) -> String {
    list(first, fragments) + "#EXT-X-ENDLIST\n"
}

struct Rig {
    hls: Hls,
    now: Instant,
}

impl Rig {
    fn new(play: Play) -> Self {
        Self::with(play, HlsConfig::default())
    }

    fn with(play: Play, config: HlsConfig) -> Self {
        Self { hls: Hls::new(config, StreamId::name("cam1"), play).expect("valid"), now: epoch() }
    }

    /// Asks for a session, which is given.
    fn open(&mut self) -> GetHlsStreamingSessionUrlInput {
        let input = match self.hls.next_action(self.now) {
            Action::Open(input) => *input,
            other => panic!("{other:?}"),
        };
        self.hls.opened(MASTER.to_owned(), self.now);
        self.get(Asked::Master);
        let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"avc1.64001e\"\nmedia.m3u8\n";
        self.hls.text(master, self.now).expect("a master playlist");
        input
    }

    fn get(&mut self, asked: Asked) -> String {
        match self.hls.next_action(self.now) {
            Action::Get(found, uri) if found == asked => uri,
            other => panic!("{other:?}, expected {asked:?}"),
        }
    }

    fn list(&mut self, text: &str) {
        assert_eq!(self.get(Asked::Playlist), "/hls/v1/media.m3u8");
        self.hls.text(text, self.now).expect("a playlist");
    }

    /// Plays what is listed; sequence numbers of the fragments, and skips as the number of missing ones.
    fn play(&mut self) -> Vec<Result<u64, Option<u64>>> {
        let mut played = Vec::new();
        while let Action::Get(asked @ (Asked::Init | Asked::Segment), _) = self.hls.next_action(self.now) {
            while let Some(skip) = self.hls.next_skip() {
                played.push(Err(skip.fragments));
            }
            if asked == Asked::Segment {
                played.push(Ok(self.hls.segment().expect("asked for").number.sequence()));
            }
            self.hls.fetched();
        }
        played
    }

    fn wait(&mut self) -> Duration {
        match self.hls.next_action(self.now) {
            Action::Wait(until) => {
                let wait = until - self.now;
                self.now = until;
                wait
            }
            other => panic!("{other:?}"),
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.hls.failed(failure, self.now, 0.5);
    }
}

#[test]
fn a_live_stream_is_played_from_the_newest_on_and_each_fragment_once() {
    let mut rig = Rig::new(Play::Live);
    assert_eq!(rig.hls.state(), SourceState::Disconnected);
    let input = rig.open();
    assert_eq!((input.playback_mode, input.expires), (Some(PlaybackMode::Live), Some(300)));
    assert_eq!(rig.hls.state(), SourceState::Connecting);
    rig.list(&list(0, 10..15));
    assert_eq!(rig.hls.state(), SourceState::Connected);
    assert_eq!(rig.get(Asked::Init), "/hls/v1/init");
    assert_eq!(rig.play(), [Ok(14)]);
    assert_eq!(rig.wait(), S);
    rig.list(&list(0, 10..15));
    assert_eq!(rig.play(), []);
    rig.wait();
    rig.list(&list(2, 12..17));
    assert_eq!(rig.play(), [Ok(15), Ok(16)]);
    rig.wait();
    // Six at once: one has left the playlist unseen.
    rig.list(&list(8, 18..23));
    assert_eq!(rig.play(), [Err(Some(1)), Ok(18), Ok(19), Ok(20), Ok(21), Ok(22)]);
}

#[test]
fn a_url_is_replaced_before_it_expires_and_the_place_is_kept() {
    let mut rig = Rig::new(Play::Live);
    rig.open();
    rig.list(&list(0, 10..15));
    rig.play();
    let mut waited = Duration::ZERO;
    let mut n = 0;
    while waited < S * 270 {
        waited += rig.wait();
        if waited < S * 270 {
            n += 1;
            rig.list(&list(n, 10 + n..15 + n));
            assert_eq!(rig.play(), [Ok(14 + n)]);
        }
    }
    assert_eq!((waited, rig.hls.url_refreshes(), n), (S * 270, 0, 269));
    rig.open();
    assert_eq!((rig.hls.url_refreshes(), rig.hls.reconnects()), (1, 0));
    // Sequence numbers begin anew; one fragment is new.
    rig.list(&list(0, 280..285));
    assert_eq!((rig.play(), rig.hls.state()), (vec![Ok(284)], SourceState::Connected));
}

#[test]
fn between_two_sessions_nothing_is_lost_without_a_word() {
    for (listed, expected) in [
        (284..289, vec![Ok(284), Ok(285), Ok(286), Ok(287), Ok(288)]),
        (285..287, vec![Err(Some(1)), Ok(285), Ok(286)]),
        (280..284, vec![]),
        // Another session of the producer.
        (5_000..5_002, vec![Err(None), Ok(5_000), Ok(5_001)]),
        (3..4, vec![Err(None), Ok(3)]),
    ] {
        let mut rig = Rig::new(Play::Live);
        rig.open();
        rig.list(&list(0, 279..284));
        assert_eq!(rig.play(), [Ok(283)]);
        rig.now += S * 299;
        rig.open();
        rig.list(&list(0, listed.clone()));
        assert_eq!(rig.play(), expected, "{listed:?}");
    }
}

#[test]
fn a_short_session_is_asked_for_at_the_services_least_and_replaced_by_its_own_word() {
    let config = HlsConfig { hls_session_seconds: 60, ..HlsConfig::default() };
    let mut rig = Rig::with(Play::Live, config);
    assert_eq!(rig.open().expires, Some(300));
    rig.list(&list(0, 1..2));
    rig.play();
    rig.now += S * 30;
    rig.open();
    assert_eq!(rig.hls.url_refreshes(), 1);
}

#[test]
fn a_range_is_played_to_its_end_over_several_sessions() {
    let config = HlsConfig { playlist_fragments: Some(3), ..HlsConfig::default() };
    let (from_ms, to_ms) = (1_795_186_073_000, 1_795_186_083_000);
    let mut rig = Rig::with(Play::Range { from_ms, to_ms }, config);
    let start = |input: GetHlsStreamingSessionUrlInput| {
        assert_eq!(input.playback_mode, Some(PlaybackMode::OnDemand));
        let range = input.fragment_selector.and_then(|selector| selector.timestamp_range).expect("a range");
        assert_eq!(range.end_timestamp, Some(seconds(to_ms)));
        range.start_timestamp.map(crate::api::milliseconds)
    };
    assert_eq!(start(rig.open()), Some(from_ms));
    rig.list(&ended(0, 0..3));
    assert_eq!(rig.play(), [Ok(0), Ok(1), Ok(2)]);
    assert_eq!(start(rig.open()), Some(from_ms + 4_001), "behind the last one");
    // Producers may number as they like: what the range lists is all there is.
    rig.list(&ended(0, [3, 5]));
    assert_eq!(rig.play(), [Ok(3), Ok(5)]);
    assert_eq!((rig.hls.next_action(rig.now), rig.hls.state()), (Action::End, SourceState::Disconnected));

    // Exactly as many as a playlist has: the next session finds nothing.
    let config = HlsConfig { playlist_fragments: Some(2), ..HlsConfig::default() };
    let mut rig = Rig::with(Play::Range { from_ms, to_ms }, config);
    rig.open();
    rig.list(&ended(0, 0..2));
    rig.play();
    assert!(matches!(rig.hls.next_action(rig.now), Action::Open(_)));
    rig.fail(Failure::Gone);
    assert_eq!(rig.hls.next_action(rig.now), Action::End);
}

#[test]
fn delays_grow_by_the_multiplier_to_the_cap_with_80_to_120_percent() {
    let mut rig = Rig::new(Play::Live);
    for (random, expected_ms) in [
        (0.5, 5_000),
        (0.0, 8_000),
        (1.0, 24_000),
        (0.5, 40_000),
        (0.5, 60_000),
        (1.0, 72_000),
        (0.0, 48_000),
    ] {
        assert!(matches!(rig.hls.next_action(rig.now), Action::Open(_)));
        rig.hls.failed(Failure::Soon, rig.now, random);
        assert_eq!(rig.wait(), Duration::from_millis(expected_ms));
    }
    assert_eq!((rig.hls.state(), rig.hls.consecutive_errors()), (SourceState::Connecting, 7));
    rig.open();
    rig.list(&list(0, 1..2));
    rig.play();
    assert_eq!(
        (rig.hls.consecutive_errors(), rig.hls.reconnects()),
        (0, 0),
        "it connected for the first time"
    );
    rig.wait();
    rig.get(Asked::Playlist);
    rig.fail(Failure::Soon);
    assert_eq!((rig.wait(), rig.hls.state()), (S * 5, SourceState::Reconnecting));
}

#[test]
fn too_many_errors_are_fatal_unless_it_shall_never_give_up() {
    let mut rig = Rig::new(Play::Live);
    for _ in 0..9 {
        assert!(matches!(rig.hls.next_action(rig.now), Action::Open(_)));
        rig.fail(Failure::Gone);
        rig.wait();
    }
    assert!(matches!(rig.hls.next_action(rig.now), Action::Open(_)));
    rig.fail(Failure::Gone);
    assert_eq!((rig.hls.next_action(rig.now), rig.hls.state()), (Action::GiveUp, SourceState::Failed));
    let config = HlsConfig { max_consecutive_errors: None, ..HlsConfig::default() };
    let mut rig = Rig::with(Play::Live, config);
    for _ in 0..1_000 {
        assert!(matches!(rig.hls.next_action(rig.now), Action::Open(_)));
        rig.fail(Failure::Gone);
        rig.wait();
    }
}

#[test]
fn an_outage_that_kills_the_session_is_outlived_and_reported() {
    let mut rig = Rig::new(Play::Live);
    rig.open();
    rig.list(&list(0, 10..15));
    rig.play();
    rig.wait();
    rig.get(Asked::Playlist);
    rig.fail(Failure::Gone);
    assert_eq!(rig.hls.state(), SourceState::Reconnecting);
    rig.wait();
    rig.open();
    assert_eq!(rig.hls.reconnects(), 1);
    rig.list(&list(0, 18..20));
    assert_eq!(rig.play(), [Err(Some(3)), Ok(18), Ok(19)]);
    assert_eq!(rig.hls.state(), SourceState::Connected);
}

#[test]
fn a_worn_out_token_is_replaced_at_once_and_a_fresh_one_that_is_refused_after_a_pause() {
    let mut rig = Rig::new(Play::Live);
    rig.open();
    rig.list(&list(0, 10..15));
    rig.play();
    rig.wait();
    rig.get(Asked::Playlist);
    rig.fail(Failure::Refused);
    assert!(matches!(rig.hls.next_action(rig.now), Action::Open(_)));
    rig.hls.opened(MASTER.to_owned(), rig.now);
    rig.get(Asked::Master);
    rig.fail(Failure::Refused);
    assert_eq!(rig.wait(), S * 10);
}

#[test]
fn a_segment_is_tried_again_and_left_out_when_it_is_gone_or_unreadable() {
    let mut rig = Rig::new(Play::Live);
    rig.open();
    rig.list(&list(0, 10..11));
    rig.play();
    rig.wait();
    rig.list(&list(1, 11..15));
    rig.get(Asked::Segment);
    rig.fail(Failure::Soon);
    rig.wait();
    rig.get(Asked::Segment);
    rig.fail(Failure::Unreadable);
    rig.wait();
    assert!(rig.get(Asked::Segment).ends_with(&number(11).to_string()));
    rig.fail(Failure::Unreadable);
    assert!(rig.get(Asked::Segment).ends_with(&number(12).to_string()));
    let skip = rig.hls.next_skip().expect("one");
    let expected =
        Skip { after: Some(number(10)), before: number(11), fragments: Some(1), why: SkipReason::Unreadable };
    assert_eq!(skip, expected);
    rig.fail(Failure::Gone);
    assert_eq!(rig.hls.next_skip().map(|skip| (skip.before, skip.why)), Some((number(12), SkipReason::Gone)));
    assert_eq!(rig.play(), [Ok(13), Ok(14)]);
}

#[test]
fn a_playlist_that_goes_back_is_not_played_and_in_the_end_its_session_is_given_up() {
    let mut rig = Rig::new(Play::Live);
    rig.open();
    rig.list(&list(5, 10..15));
    rig.play();
    for round in 1..=3 {
        rig.wait();
        rig.get(Asked::Playlist);
        let error = rig.hls.text(&list(4, 9..14), rig.now).expect_err("it went back");
        assert_eq!(error, TextError::Backwards { seen: 9, found: 8 });
        rig.fail(Failure::Unreadable);
        assert_eq!(rig.hls.consecutive_errors(), round);
    }
    rig.wait();
    rig.open();
    rig.list(&list(0, 12..16));
    assert_eq!(rig.play(), [Ok(15)]);
}

#[test]
fn what_leads_elsewhere_or_says_no_time_is_no_playlist_of_ours() {
    let mut rig = Rig::new(Play::Live);
    rig.open();
    rig.get(Asked::Playlist);
    let text = list(0, 1..2);
    let elsewhere = text.replace("media?", "https://elsewhere/media?");
    assert_eq!(rig.hls.text(&elsewhere, rig.now), Err(TextError::OtherHost));
    let elsewhere = text.replace("\"init\"", "\"//elsewhere/init\"");
    assert_eq!(rig.hls.text(&elsewhere, rig.now), Err(TextError::OtherHost));
    let timeless = text.replace("-PROGRAM-DATE-TIME", "-OTHER");
    assert_eq!(rig.hls.text(&timeless, rig.now), Err(TextError::NoTime { sequence: 0 }));
}

#[test]
fn values_are_held_against_their_ranges() {
    let check = |change: &dyn Fn(&mut HlsConfig), expected: Option<HlsConfigError>| {
        let mut config = HlsConfig::default();
        change(&mut config);
        assert_eq!(config.check().err(), expected);
    };
    check(&|_| {}, None);
    check(&|config| config.hls_session_seconds = 59, Some(HlsConfigError::Session(59)));
    check(&|config| config.hls_session_seconds = 60, None);
    check(&|config| config.hls_session_seconds = 43_200, None);
    check(&|config| config.hls_session_seconds = 43_201, Some(HlsConfigError::Session(43_201)));
    check(&|config| config.url_refresh_margin = S * 300, Some(HlsConfigError::Margin(S * 300)));
    check(&|config| config.reconnect_delay = S * 61, Some(HlsConfigError::Delay(S * 61)));
    check(&|config| config.reconnect_delay = Duration::ZERO, Some(HlsConfigError::Delay(Duration::ZERO)));
    check(&|config| config.backoff_multiplier = 0.9, Some(HlsConfigError::Multiplier(0.9)));
    check(&|config| config.max_consecutive_errors = Some(0), Some(HlsConfigError::Errors));
    check(&|config| config.playlist_fragments = Some(5_001), Some(HlsConfigError::Fragments(5_001)));
}
