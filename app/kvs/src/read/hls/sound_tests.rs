use std::ops::Range;

use media::SourceState;

use super::*;
use crate::api::StreamId;
use crate::epoch;
use crate::read::hls::{Action, Failure, Hls, HlsConfig, Play};

const T0: u64 = 1_795_186_073_000;
const SOUND: &str = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",URI=\"sound.m3u8\"\n";

fn number(n: u64) -> FragmentNumber {
    FragmentNumber::new(n, T0 + n * 2_000, 7)
}

fn master(has_sound: bool) -> String {
    let (sound, group) = if has_sound { (SOUND, ",AUDIO=\"audio\"") } else { ("", "") };
    format!("#EXTM3U\n{sound}#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"avc1.64001e\"{group}\nmedia.m3u8\n")
}

/// The list of one track; its initialisation is named for it and `init`.
fn list(track: &str, init: u64, fragments: Range<u64>) -> String {
    let first = fragments.start;
    let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
    text += &format!("#EXT-X-MAP:URI=\"{track}-init{init}\"\n");
    for n in fragments {
        let begins = media::ProducerTimestamp::from_millis(T0 + n * 2_000);
        text += &format!("#EXT-X-PROGRAM-DATE-TIME:{begins}\n#EXTINF:2.000,\n");
        text += &format!("{track}?FragmentNumber={}\n", number(n));
    }
    text
}

enum Answer {
    Text(String),
    Media,
    Fails(Failure),
}

struct Rig {
    hls: Hls,
    now: Instant,
    has_sound: bool,
    pictures: String,
    sound: String,
}

impl Rig {
    /// A live stream with sound, of which the newest fragment is 11.
    fn new(change: impl FnOnce(&mut HlsConfig)) -> Self {
        let mut config = HlsConfig::default();
        change(&mut config);
        let hls = Hls::new(config, StreamId::name("cam1"), Play::Live).expect("valid");
        let (pictures, sound) = (list("picture", 0, 10..12), list("sound", 0, 10..12));
        Self { hls, now: epoch(), has_sound: true, pictures, sound }
    }

    fn lists(&mut self, pictures: Range<u64>, sound: Range<u64>) {
        (self.pictures, self.sound) = (list("picture", 0, pictures), list("sound", 0, sound));
    }

    /// Does what is to be done next; returns it in a word or two.
    fn step(&mut self, answer: &mut dyn FnMut(Asked) -> Option<Answer>) -> String {
        let (asked, uri) = match self.hls.next_action(self.now) {
            Action::Open(_) => {
                self.hls.opened("/hls/v1/master.m3u8".to_owned(), self.now);
                return "open".to_owned();
            }
            Action::Wait(until) => {
                let ms = (until - self.now).as_millis();
                self.now = until;
                return format!("wait {ms}");
            }
            Action::Get(asked, uri) => (asked, uri),
            other => return format!("{other:?}"),
        };
        let usual = match asked {
            Asked::Master => Answer::Text(master(self.has_sound)),
            Asked::Playlist => Answer::Text(self.pictures.clone()),
            Asked::SoundPlaylist => Answer::Text(self.sound.clone()),
            _ => Answer::Media,
        };
        match answer(asked).unwrap_or(usual) {
            Answer::Text(text) => self.hls.text(&text, self.now).expect("a playlist"),
            Answer::Media => self.hls.fetched(),
            Answer::Fails(failure) => self.hls.failed(failure, self.now, 0.5),
        }
        let name = uri.strip_prefix("/hls/v1/").expect("of one folder");
        match name.split_once("?FragmentNumber=") {
            Some((track, number)) => {
                format!("{track} {}", number.parse::<FragmentNumber>().expect("a number").sequence())
            }
            None => name.to_owned(),
        }
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        self.check_with(expected, |_| None);
    }

    #[track_caller]
    fn check_with(&mut self, expected: &[&str], mut answer: impl FnMut(Asked) -> Option<Answer>) {
        let found: Vec<String> = expected.iter().map(|_| self.step(&mut answer)).collect();
        assert_eq!(found, expected);
    }

    /// Plays fragment 11, and waits for the next look.
    fn begun(mut self) -> Self {
        let begin = ["open", "master.m3u8", "media.m3u8", "sound.m3u8"];
        self.check(&begin);
        self.check(&["sound-init0", "sound 11", "picture-init0", "picture 11", "wait 1000"]);
        self
    }
}

#[test]
fn the_sound_of_a_fragment_comes_before_its_pictures() {
    let mut rig = Rig::new(|_| {}).begun();
    rig.lists(11..14, 11..14);
    let next = ["media.m3u8", "sound.m3u8", "sound 12", "picture 12", "sound 13", "picture 13", "wait 1000"];
    rig.check(&next);
    rig.check(&["media.m3u8", "wait 1000"]);
    assert_eq!((rig.hls.without_sound(), rig.hls.consecutive_errors()), (0, 0));
}

#[test]
fn without_sound_none_is_asked_for() {
    let pictures =
        ["open", "master.m3u8", "media.m3u8", "picture-init0", "picture 11", "wait 1000", "media.m3u8"];
    Rig::new(|config| config.sound = false).check(&pictures);
    let mut rig = Rig::new(|_| {});
    rig.has_sound = false;
    rig.check(&pictures);
}

#[test]
fn sound_that_is_listed_late_is_waited_for() {
    let mut rig = Rig::new(|_| {}).begun();
    rig.lists(11..13, 10..12);
    rig.check(&["media.m3u8", "sound.m3u8", "wait 1000"]);
    rig.check(&["sound.m3u8", "wait 1000"]);
    rig.lists(11..13, 11..13);
    rig.check(&["sound.m3u8", "sound 12", "picture 12", "media.m3u8"]);
    assert_eq!(rig.hls.without_sound(), 0);
}

#[test]
fn sound_that_will_not_come_is_not_waited_for() {
    // It lists a later one, or has ended.
    let mut rig = Rig::new(|_| {}).begun();
    rig.lists(11..14, 13..14);
    rig.check(&["media.m3u8", "sound.m3u8", "picture 12", "sound 13", "picture 13", "wait 1000"]);
    rig.lists(11..15, 10..12);
    rig.sound += "#EXT-X-ENDLIST\n";
    rig.check(&["media.m3u8", "sound.m3u8", "picture 14", "wait 1000"]);
    assert_eq!(rig.hls.without_sound(), 2);
}

#[test]
fn a_stalled_list_of_sound_does_not_hold_the_pictures_back_for_long() {
    let mut rig = Rig::new(|_| {}).begun();
    rig.lists(11..14, 10..12);
    rig.check(&["media.m3u8", "sound.m3u8", "wait 1000", "sound.m3u8", "wait 1000", "sound.m3u8"]);
    rig.check(&["picture 12", "picture 13", "media.m3u8", "wait 1000"]);
    rig.lists(11..15, 10..12);
    rig.check(&["media.m3u8", "sound.m3u8", "picture 14", "wait 1000"]);
    assert_eq!(rig.hls.without_sound(), 3);
    // It is there again, and then waited for again.
    rig.lists(11..16, 11..16);
    rig.check(&["media.m3u8", "sound.m3u8", "sound 15", "picture 15", "wait 1000"]);
    rig.lists(11..17, 11..16);
    rig.check(&["media.m3u8", "sound.m3u8", "wait 1000", "sound.m3u8"]);
}

#[test]
fn sound_that_fails_is_tried_again_and_never_ends_the_pictures() {
    let fails =
        |failing: Asked, failure: Failure| move |asked| (asked == failing).then_some(Answer::Fails(failure));
    for failure in [Failure::Soon, Failure::Unreadable, Failure::Slower] {
        let mut rig = Rig::new(|_| {}).begun();
        rig.lists(11..14, 11..14);
        let expected = ["media.m3u8", "sound.m3u8", "sound 12", "wait 5000", "sound 12", "wait 10000"];
        rig.check_with(&expected, fails(Asked::SoundSegment, failure));
        assert_eq!((rig.hls.consecutive_errors(), rig.hls.state()), (2, SourceState::Reconnecting));
        let expected = ["sound 12", "picture 12", "sound 13", "picture 13"];
        rig.check_with(&expected, fails(Asked::SoundSegment, failure));
        assert_eq!((rig.hls.without_sound(), rig.hls.consecutive_errors()), (2, 0), "{failure:?}");
        rig.lists(11..15, 11..15);
        rig.check(&["media.m3u8", "sound.m3u8", "sound 14", "picture 14"]);
        assert_eq!((rig.hls.without_sound(), rig.hls.state()), (2, SourceState::Connected));
    }
    let mut rig = Rig::new(|config| config.max_consecutive_errors = Some(1)).begun();
    rig.lists(11..13, 11..13);
    let expected = ["media.m3u8", "sound.m3u8", "picture 12", "wait 1000"];
    rig.check_with(&expected, fails(Asked::SoundPlaylist, Failure::Soon));
    assert_eq!((rig.hls.without_sound(), rig.hls.state()), (1, SourceState::Connected));
}

#[test]
fn a_token_that_wears_out_at_the_sound_is_replaced_and_one_that_never_plays_sound_is_kept() {
    let refused = |asked| (asked == Asked::SoundPlaylist).then_some(Answer::Fails(Failure::Refused));
    let mut rig = Rig::new(|_| {}).begun();
    rig.lists(11..13, 11..13);
    rig.check_with(&["media.m3u8", "sound.m3u8"], refused);
    rig.check(&["open", "master.m3u8", "media.m3u8", "sound.m3u8", "sound-init0", "sound 12"]);
    let mut rig = Rig::new(|_| {}).begun();
    rig.lists(11..13, 11..13);
    let replaced =
        ["media.m3u8", "sound.m3u8", "open", "master.m3u8", "media.m3u8", "sound.m3u8", "wait 10000"];
    rig.check_with(&replaced, refused);
    let kept = ["open", "master.m3u8", "media.m3u8", "sound.m3u8", "picture-init0", "picture 12"];
    rig.check_with(&kept, refused);
    assert_eq!(rig.hls.without_sound(), 1);
}

#[test]
fn tracks_that_come_go_or_change_are_noticed_at_their_first_fragment() {
    let mut rig = Rig::new(|_| {});
    rig.has_sound = false;
    rig.check(&["open", "master.m3u8", "media.m3u8", "picture-init0", "picture 11", "wait 1000"]);
    // Sound begins with 13.
    let (before, behind) = (list("picture", 0, 11..13), list("picture", 13, 13..14));
    let segments = |text: &str| text.split_once("#EXT-X-MAP").expect("one").1.to_owned();
    rig.pictures = format!("{before}#EXT-X-MAP{}", segments(&behind));
    (rig.has_sound, rig.sound) = (true, list("sound", 13, 13..14));
    rig.check(&["media.m3u8", "picture 12", "master.m3u8", "sound.m3u8", "sound-init13", "sound 13"]);
    rig.check(&["picture-init13", "picture 13", "wait 1000"]);
    // And ends with 14.
    rig.pictures = list("picture", 14, 14..15);
    rig.has_sound = false;
    rig.check(&["media.m3u8", "master.m3u8", "picture-init14", "picture 14", "wait 1000"]);
    assert_eq!(rig.hls.without_sound(), 0);
}

#[test]
fn an_initialisation_that_the_service_does_not_have_is_asked_for_once() {
    let mut rig = Rig::new(|_| {});
    rig.pictures = list("picture", 0, 11..12);
    rig.sound = list("sound", 0, 11..14);
    let no_track = |asked| (asked == Asked::SoundInit).then_some(Answer::Fails(Failure::Gone));
    let begin =
        ["open", "master.m3u8", "media.m3u8", "sound.m3u8", "sound-init0", "picture-init0", "picture 11"];
    rig.check_with(&begin, no_track);
    rig.pictures = list("picture", 0, 11..14);
    rig.check(&["wait 1000", "media.m3u8", "picture 12", "picture 13", "wait 1000"]);
    assert_eq!(rig.hls.without_sound(), 0, "there is none");
}

#[test]
fn sound_that_leads_elsewhere_is_no_playlist_of_ours() {
    let mut rig = Rig::new(|_| {});
    rig.check(&["open", "master.m3u8", "media.m3u8"]);
    assert!(matches!(rig.hls.next_action(rig.now), Action::Get(Asked::SoundPlaylist, _)));
    let elsewhere = rig.sound.replace("sound?", "https://elsewhere/sound?");
    assert_eq!(rig.hls.text(&elsewhere, rig.now), Err(TextError::OtherHost));
    let elsewhere = rig.sound.replace("\"sound-init", "\"//elsewhere/sound-init");
    assert_eq!(rig.hls.text(&elsewhere, rig.now), Err(TextError::OtherHost));
    let mut rig = Rig::new(|_| {});
    rig.check(&["open"]);
    assert!(matches!(rig.hls.next_action(rig.now), Action::Get(Asked::Master, _)));
    let elsewhere = master(true).replace("sound.m3u8", "https://elsewhere/sound.m3u8");
    assert_eq!(rig.hls.text(&elsewhere, rig.now), Err(TextError::OtherHost));
}
