//! Reads the playlists of KVS (RFC 8216).
//!
//! Strict where it matters: a media sequence number, a length or a date that cannot be read is an error, because with a guess
//! in its place segments would be played twice or left out unnoticed. Tags that say nothing here are passed over.

use std::sync::Arc;

use media::ProducerTimestamp;

use crate::FragmentNumber;

/// A day; what claims more is no segment.
const LONGEST_SEGMENT_MS: u64 = 86_400_000;

/// Why a text is no playlist that can be played. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaylistError {
    #[error("it does not begin with #EXTM3U, but with {found:?}")]
    NoPlaylist { found: String },
    #[error("line {line}: {tag} has {found:?}, expected {expected}")]
    Value { line: usize, tag: &'static str, found: String, expected: &'static str },
    #[error("line {line}: {tag} is not supported")]
    Unsupported { line: usize, tag: String },
    #[error("line {line}: a segment without {missing}")]
    Segment { line: usize, missing: &'static str },
    #[error("line {line}: {tag} without the URI behind it")]
    NoUri { line: usize, tag: &'static str },
    #[error("it lists neither variants nor segments")]
    Empty,
    #[error("it is a {found} playlist, expected a {expected} playlist")]
    Kind { found: &'static str, expected: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Playlist {
    Master(Master),
    Media(Media),
}

/// Which media playlists there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    pub variants: Vec<Variant>,
    /// Sound beside them.
    pub renditions: Vec<Rendition>,
}

/// Sound that is a playlist of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    pub group: String,
    pub uri: String,
    /// It is played unless somebody chooses another one.
    pub default: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub uri: String,
    /// Bits per second.
    pub bandwidth: u64,
    /// As RFC 6381 names them; empty where the playlist does not say.
    pub codecs: String,
    /// The group of its sound, where that is a playlist of its own.
    pub audio: Option<String>,
}

impl Master {
    /// Where the sound of a variant is.
    pub fn sound_of(&self, variant: &Variant) -> Option<&str> {
        let group = variant.audio.as_ref()?;
        let mut renditions = self.renditions.iter().filter(|rendition| rendition.group == *group);
        let first = renditions.clone().next();
        renditions.find(|rendition| rendition.default).or(first).map(|rendition| &*rendition.uri)
    }
}

impl Variant {
    pub fn has_video(&self) -> bool {
        let video = |codec: &str| ["avc", "hvc", "hev"].iter().any(|kind| codec.trim().starts_with(kind));
        self.codecs.is_empty() || self.codecs.split(',').any(video)
    }
}

/// What can be played now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// No segment is longer, in seconds.
    pub target_seconds: u64,
    /// Of the first segment.
    pub sequence: u64,
    pub segments: Vec<Segment>,
    /// Nothing will be added.
    pub ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub uri: String,
    /// The fragment that it is.
    pub number: FragmentNumber,
    pub sequence: u64,
    pub duration_ms: u64,
    /// Its times do not follow those of the one before.
    pub discontinuity: bool,
    /// Where its initialisation is; absent where the container needs none.
    pub init: Option<Arc<str>>,
    /// When it begins, by the time that the session goes by.
    pub begins_ms: Option<u64>,
}

impl Playlist {
    pub fn parse(text: &str) -> Result<Playlist, PlaylistError> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end()));
        let first = lines.next().map_or("", |(_, line)| line.trim_start_matches('\u{feff}'));
        if first != "#EXTM3U" {
            return Err(PlaylistError::NoPlaylist { found: shown(first) });
        }
        let mut reader = Reader::default();
        for (line, text) in lines {
            reader.line(line, text)?;
        }
        reader.finish()
    }

    pub fn into_master(self) -> Result<Master, PlaylistError> {
        match self {
            Self::Master(master) => Ok(master),
            Self::Media(_) => Err(PlaylistError::Kind { found: "media", expected: "master" }),
        }
    }

    pub fn into_media(self) -> Result<Media, PlaylistError> {
        match self {
            Self::Media(media) => Ok(media),
            Self::Master(_) => Err(PlaylistError::Kind { found: "master", expected: "media" }),
        }
    }
}

#[derive(Default)]
struct Reader {
    master: Master,
    media: Media,
    is_media: bool,
    init: Option<Arc<str>>,
    /// Tags in front of the next URI.
    variant: Option<(usize, Variant)>,
    length: Option<(usize, u64)>,
    discontinuity: bool,
    begins_ms: Option<u64>,
}

impl Reader {
    fn line(&mut self, line: usize, text: &str) -> Result<(), PlaylistError> {
        let Some(tag) = text.strip_prefix("#EXT") else {
            return if text.is_empty() || text.starts_with('#') { Ok(()) } else { self.uri(line, text) };
        };
        let (tag, value) = tag.split_once(':').unwrap_or((tag, ""));
        self.is_media |= matches!(tag, "INF" | "-X-TARGETDURATION" | "-X-MEDIA-SEQUENCE" | "-X-ENDLIST");
        let wrong = |tag, expected| PlaylistError::Value { line, tag, found: shown(value), expected };
        match tag {
            "INF" => {
                let length = milliseconds(value.split(',').next().unwrap_or(""));
                let length = length.ok_or_else(|| wrong("EXTINF", "seconds, at most a day"))?;
                self.length = Some((line, length));
            }
            "-X-TARGETDURATION" => {
                let expected = "whole seconds";
                self.media.target_seconds =
                    value.parse().map_err(|_| wrong("EXT-X-TARGETDURATION", expected))?;
            }
            "-X-MEDIA-SEQUENCE" => {
                // Behind a segment it would count that one too.
                let number = value.parse().ok().filter(|_| self.media.segments.is_empty());
                let expected = "a number of 64 bits in front of the first segment";
                self.media.sequence = number.ok_or_else(|| wrong("EXT-X-MEDIA-SEQUENCE", expected))?;
            }
            "-X-DISCONTINUITY" => self.discontinuity = true,
            "-X-ENDLIST" => self.media.ended = true,
            "-X-PROGRAM-DATE-TIME" => {
                let time = ProducerTimestamp::parse_rfc3339(value.trim());
                let expected = "a date and time of RFC 3339";
                let time = time.ok_or_else(|| wrong("EXT-X-PROGRAM-DATE-TIME", expected))?;
                self.begins_ms = Some(time.as_millis());
            }
            "-X-MAP" => {
                let uri = attribute(value, "URI").filter(|uri| !uri.is_empty());
                if attribute(value, "BYTERANGE").is_some() {
                    return Err(PlaylistError::Unsupported {
                        line,
                        tag: "BYTERANGE of EXT-X-MAP".to_owned(),
                    });
                }
                self.init = Some(uri.ok_or_else(|| wrong("EXT-X-MAP", "a URI in quotes"))?.into());
            }
            "-X-KEY" if attribute(value, "METHOD") != Some("NONE") => {
                return Err(PlaylistError::Unsupported { line, tag: "EXT-X-KEY".to_owned() });
            }
            "-X-BYTERANGE" => return Err(PlaylistError::Unsupported { line, tag: format!("EXT{tag}") }),
            "-X-STREAM-INF" => {
                let bandwidth = attribute(value, "BANDWIDTH").and_then(|value| value.parse().ok());
                let bandwidth = bandwidth.ok_or_else(|| wrong("EXT-X-STREAM-INF", "a BANDWIDTH"))?;
                let codecs = attribute(value, "CODECS").unwrap_or("").to_owned();
                let audio = attribute(value, "AUDIO").map(str::to_owned);
                self.variant = Some((line, Variant { uri: String::new(), bandwidth, codecs, audio }));
            }
            "-X-MEDIA" if attribute(value, "TYPE") == Some("AUDIO") => {
                let group = attribute(value, "GROUP-ID").filter(|group| !group.is_empty());
                let group = group.ok_or_else(|| wrong("EXT-X-MEDIA", "a GROUP-ID"))?.to_owned();
                // Without a URI it is in the segments of the pictures.
                if let Some(uri) = attribute(value, "URI").filter(|uri| !uri.is_empty()) {
                    let default = attribute(value, "DEFAULT") == Some("YES");
                    self.master.renditions.push(Rendition { group, uri: uri.to_owned(), default });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn uri(&mut self, line: usize, uri: &str) -> Result<(), PlaylistError> {
        if let Some((_, variant)) = self.variant.take() {
            self.master.variants.push(Variant { uri: uri.to_owned(), ..variant });
            return Ok(());
        }
        let lacks = |missing| PlaylistError::Segment { line, missing };
        let (_, duration_ms) = self.length.take().ok_or_else(|| lacks("EXTINF"))?;
        let number = fragment_number(uri).ok_or_else(|| lacks("a fragment number in its URI"))?;
        let sequence = self.media.sequence.checked_add(self.media.segments.len() as u64);
        let sequence = sequence.ok_or_else(|| lacks("a sequence number of 64 bits"))?;
        self.media.segments.push(Segment {
            uri: uri.to_owned(),
            number,
            sequence,
            duration_ms,
            discontinuity: std::mem::take(&mut self.discontinuity),
            init: self.init.clone(),
            begins_ms: self.begins_ms.take(),
        });
        Ok(())
    }

    fn finish(self) -> Result<Playlist, PlaylistError> {
        if let Some((line, ..)) = self.variant {
            return Err(PlaylistError::NoUri { line, tag: "EXT-X-STREAM-INF" });
        }
        if let Some((line, _)) = self.length {
            return Err(PlaylistError::NoUri { line, tag: "EXTINF" });
        }
        match (self.master.variants.is_empty(), self.is_media) {
            (false, false) => Ok(Playlist::Master(self.master)),
            (_, true) => Ok(Playlist::Media(self.media)),
            (true, false) => Err(PlaylistError::Empty),
        }
    }
}

/// The value of an attribute, without its quotes. Quoted values may have commas.
fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = list;
    loop {
        let (found, behind) = rest.split_once('=')?;
        let (value, next) = match behind.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"')?;
                (value, next.strip_prefix(',').unwrap_or(""))
            }
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        if found.trim() == name {
            return Some(value);
        }
        rest = next;
    }
}

/// `2`, `2.0`, `2.002`; digits behind the milliseconds are cut.
fn milliseconds(seconds: &str) -> Option<u64> {
    crate::tag::parse_seconds(seconds.trim()).filter(|ms| *ms <= LONGEST_SEGMENT_MS)
}

/// From the query of a segment's URI.
pub fn fragment_number(uri: &str) -> Option<FragmentNumber> {
    let (_, query) = uri.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix("FragmentNumber="))?;
    value.parse().ok()
}

/// The path and query that `uri`, found in the answer to `base`, leads to, both on one host. `None`: to another host.
pub fn resolve(base: &str, uri: &str) -> Option<String> {
    let path = base.split(['?', '#']).next().unwrap_or("");
    if uri.starts_with("//") || uri.split(['/', '?', '#']).next().is_some_and(|start| start.contains(':')) {
        return None;
    }
    if uri.starts_with('/') {
        return Some(uri.to_owned());
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{folder}/{uri}"))
}

/// The start of a text that may be anything. A session's token is never in it.
fn shown(text: &str) -> String {
    let text = text.split("SessionToken").next().unwrap_or("");
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(sequence: u64) -> FragmentNumber {
        FragmentNumber::new(sequence, 1_795_186_073_000, 7)
    }

    fn segment_uri(sequence: u64) -> String {
        format!(
            "getMP4MediaFragment.mp4?FragmentNumber={}&SessionToken=secret~&TrackNumber=1",
            number(sequence)
        )
    }

    /// As KVS writes it.
    fn media() -> String {
        format!(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:41\n\
             #EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXT-X-MAP:URI=\"getMP4InitFragment.mp4?SessionToken=secret~&TrackNumber=1&SequenceNumber=41\"\n\
             #EXT-X-PROGRAM-DATE-TIME:2026-11-20T14:47:53.633Z\n#EXTINF:2.002,\n{}\n\
             #EXT-X-DISCONTINUITY\n#EXTINF:1,title\n{}\n#EXT-X-ENDLIST\n",
            segment_uri(1),
            segment_uri(2)
        )
    }

    #[test]
    fn a_media_playlist_is_read() {
        let found = Playlist::parse(&media()).and_then(Playlist::into_media).expect("a playlist");
        let init: Arc<str> =
            "getMP4InitFragment.mp4?SessionToken=secret~&TrackNumber=1&SequenceNumber=41".into();
        let segment = |n: u64, duration_ms, discontinuity, begins_ms| Segment {
            uri: segment_uri(n),
            number: number(n),
            sequence: 40 + n,
            duration_ms,
            discontinuity,
            init: Some(init.clone()),
            begins_ms,
        };
        let segments = vec![segment(1, 2_002, false, Some(1_795_186_073_633)), segment(2, 1_000, true, None)];
        assert_eq!(found, Media { target_seconds: 3, sequence: 41, segments, ended: true });
        let windows = media().replace('\n', "\r\n");
        assert_eq!(Playlist::parse(&windows).and_then(Playlist::into_media), Ok(found));
    }

    #[test]
    fn a_master_playlist_is_read() {
        let text = "#EXTM3U\n#EXT-X-VERSION:1\n\
                    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",URI=\"a.m3u8\"\n\
                    #EXT-X-STREAM-INF:BANDWIDTH=800,CODECS=\"avc1.64001e,mp4a.40.2\",AUDIO=\"audio\"\n\
                    getHLSMediaPlaylist.m3u8?SessionToken=secret~&TrackNumber=1\n";
        let master = Playlist::parse(text).and_then(Playlist::into_master).expect("a playlist");
        let expected = Variant {
            uri: "getHLSMediaPlaylist.m3u8?SessionToken=secret~&TrackNumber=1".to_owned(),
            bandwidth: 800,
            codecs: "avc1.64001e,mp4a.40.2".to_owned(),
            audio: Some("audio".to_owned()),
        };
        assert!(expected.has_video());
        let sound = Rendition { group: "audio".to_owned(), uri: "a.m3u8".to_owned(), default: false };
        assert_eq!(master, Master { variants: vec![expected.clone()], renditions: vec![sound] });
        assert_eq!(master.sound_of(&expected), Some("a.m3u8"));
        assert_eq!(master.sound_of(&Variant { audio: None, ..expected.clone() }), None);
        assert!(!Variant { codecs: "mp4a.40.2".to_owned(), ..expected }.has_video());
        let kind = Playlist::parse(text).and_then(Playlist::into_media).expect_err("a master");
        assert_eq!(kind.to_string(), "it is a master playlist, expected a media playlist");
    }

    #[test]
    fn of_several_sounds_the_default_of_the_variants_own_group_is_taken() {
        let media = |kind: &str, group: &str, more: &str| {
            format!("#EXT-X-MEDIA:TYPE={kind},GROUP-ID=\"{group}\",NAME=\"any\"{more}\n")
        };
        let text = [
            "#EXTM3U\n".to_owned(),
            media("SUBTITLES", "a", ",URI=\"text.m3u8\""),
            media("AUDIO", "b", ",DEFAULT=YES,URI=\"other.m3u8\""),
            media("AUDIO", "a", ""),
            media("AUDIO", "a", ",DEFAULT=NO,URI=\"first.m3u8\""),
            media("AUDIO", "a", ",DEFAULT=YES,URI=\"default.m3u8\""),
            "#EXT-X-STREAM-INF:BANDWIDTH=800,AUDIO=\"a\"\nvideo.m3u8\n".to_owned(),
        ]
        .concat();
        let sound_of = |text: &str| {
            let master = Playlist::parse(text).and_then(Playlist::into_master).expect("a playlist");
            master.sound_of(&master.variants[0]).map(str::to_owned)
        };
        assert_eq!(sound_of(&text).as_deref(), Some("default.m3u8"));
        assert_eq!(sound_of(&text.replace("DEFAULT=YES", "DEFAULT=NO")).as_deref(), Some("first.m3u8"));
        assert_eq!(sound_of(&text.replace("AUDIO=\"a\"", "AUDIO=\"c\"")), None);
        let error = Playlist::parse(&text.replace(",GROUP-ID=\"a\"", "")).expect_err("no group").to_string();
        assert!(error.starts_with("line 4: EXT-X-MEDIA has "), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_not_a_guess() {
        #[track_caller]
        fn check(change: (&str, &str), expected: &str) {
            let text = media().replacen(change.0, change.1, 1);
            let error = Playlist::parse(&text).expect_err("refused").to_string();
            assert_eq!(error, expected);
        }
        check(("#EXTM3U", "<html>"), "it does not begin with #EXTM3U, but with \"<html>\"");
        check(
            ("SEQUENCE:41", "SEQUENCE:99999999999999999999"),
            "line 4: EXT-X-MEDIA-SEQUENCE has \"99999999999999999999\", expected a number of 64 bits in front of the \
             first segment",
        );
        check(("INF:2.002", "INF:abc"), "line 8: EXTINF has \"abc,\", expected seconds, at most a day");
        check(("INF:2.002", "INF:-1"), "line 8: EXTINF has \"-1,\", expected seconds, at most a day");
        check(("INF:2.002", "INF:nan"), "line 8: EXTINF has \"nan,\", expected seconds, at most a day");
        check(("INF:2.002", "INF:86401"), "line 8: EXTINF has \"86401,\", expected seconds, at most a day");
        check(
            ("2026-11-20T14:47:53.633Z", "yesterday"),
            "line 7: EXT-X-PROGRAM-DATE-TIME has \"yesterday\", expected a date and time of RFC 3339",
        );
        check(
            ("MAP:URI=\"get", "MAP:URI=\"\",X=\""),
            "line 6: EXT-X-MAP has \"URI=\\\"\\\",X=\\\"MP4InitFragment.mp4?\", expected a URI in quotes",
        );
        check(("#EXTINF:2.002,\n", ""), "line 8: a segment without EXTINF");
        check(("FragmentNumber=", "Number="), "line 9: a segment without a fragment number in its URI");
        check(("#EXTINF:1,title", "#EXT-X-KEY:METHOD=AES-128"), "line 11: EXT-X-KEY is not supported");
        check(("#EXTINF:1,title", "#EXT-X-BYTERANGE:1@2"), "line 11: EXT-X-BYTERANGE is not supported");
        let cut = Playlist::parse("#EXTM3U\n#EXTINF:2,\n").expect_err("cut");
        assert_eq!(cut.to_string(), "line 2: EXTINF without the URI behind it");
        assert_eq!(Playlist::parse("#EXTM3U\n"), Err(PlaylistError::Empty));
    }

    #[test]
    fn names_lead_to_the_same_host_or_nowhere() {
        #[track_caller]
        fn check(uri: &str, expected: Option<&str>) {
            let base = "/hls/v1/getHLSMasterPlaylist.m3u8?SessionToken=a/b~";
            assert_eq!(resolve(base, uri).as_deref(), expected);
        }
        check("getX?SessionToken=c", Some("/hls/v1/getX?SessionToken=c"));
        check("/other/getX", Some("/other/getX"));
        check("getX?time=12:30", Some("/hls/v1/getX?time=12:30"));
        check("http://elsewhere/getX", None);
        check("//elsewhere/getX", None);
        check("file:getX", None);
    }

    proptest! {
        #[test]
        fn no_damage_panics(at in 0_usize..1_000, text in ".{0,12}", cut in 0_usize..1_000) {
            let mut playlist = media();
            let at = at % playlist.len();
            playlist.insert_str(at, &text);
            let mut cut = cut.min(playlist.len());
            while !playlist.is_char_boundary(cut) {
                cut -= 1;
            }
            playlist.truncate(cut);
            let _ = Playlist::parse(&playlist);
        }
    }
}
