//! Playing what is archived: HLS and DASH sessions, clips. Time is simulated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvs::api::seconds;
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::mp4::read::{Movie, MovieFormat, Sample};
use media::{AudioFormat, VideoCodec, VideoFormat};
use serde_json::{Value, json};

use crate::client::{Answer, BEGIN_MS, Rig, hash, persisted};
use crate::mkv;

const S: Duration = Duration::from_secs(1);
/// 640x360 of x264.
const AVCC: &[u8] = b"\x01\x64\x00\x1e\xff\xe1\x00\x1e\x67\x64\x00\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\x00\x00\x03\x00\x20\x00\x00\x07\x91\xe2\xc5\xb2\xc0\x01\x00\x05\x68\xeb\xec\xb2\x2c\xfd\xf8\xf8\x00";
/// Of one fragment: 25 pictures a second.
const PICTURES: i16 = 50;
const FRAGMENT_MS: u64 = 2_000;

fn video() -> Track {
    let record = Bytes::from_static(AVCC);
    Track::Video(Arc::new(VideoFormat::from_codec_private(VideoCodec::H264, record).expect("a record")))
}

fn aac() -> Track {
    Track::Audio(Arc::new(AudioFormat::aac(Bytes::from_static(&[0x14, 0x08])).expect("a config")))
}

fn pcmu() -> Track {
    Track::Audio(Arc::new(AudioFormat::pcmu(8_000, 1)))
}

fn picture(cluster_ms: u64, index: i16) -> Vec<u8> {
    let kind = if index == 0 { 0x65 } else { 0x41 };
    [&[0, 0, 0, 12, kind][..], &cluster_ms.to_be_bytes(), &[1], &index.to_be_bytes()].concat()
}

/// Two seconds of pictures, of key frame 0 and others behind it, each 40 ms after the one before.
fn footage(at_ms: u64) -> Vec<u8> {
    let blocks = (0..PICTURES).map(|index| {
        let data = picture(at_ms, index);
        [&block_head(1, index * 40, index == 0, data.len())[..], &data].concat()
    });
    [cluster_start(at_ms).to_vec(), blocks.collect::<Vec<_>>().concat()].concat()
}

fn head(tracks: &[Track]) -> Vec<u8> {
    header([7; 16], "test", tracks).to_vec()
}

async fn put(rig: &Rig, tracks: &[Track], clusters: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
    let clusters: Vec<u8> = clusters.into_iter().flatten().collect();
    let acks = rig.client.put_whole("cam1", &[head(tracks), clusters].concat()).await;
    persisted(&acks).iter().map(ToString::to_string).collect()
}

/// One fragment; time passes by as much as it lasts.
async fn record(rig: &Rig, at_ms: u64) -> String {
    let number = put(rig, &[video()], [footage(at_ms)]).await.remove(0);
    rig.client.clock.sleep(Duration::from_millis(FRAGMENT_MS)).await;
    number
}

async fn open(rig: &Rig, mut input: Value) -> Answer {
    input["StreamName"] = json!("cam1");
    rig.client.call("/getHLSStreamingSessionURL", input).await
}

async fn session(rig: &Rig, input: Value) -> Player<'_> {
    let answer = open(rig, input).await;
    let url = answer.json()["HLSStreamingSessionURL"].as_str().map(str::to_owned);
    let url = url.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&answer.body)));
    let (host, path) = url.split_at(url.find("/hls/").expect("a session's path"));
    assert_eq!(host, rig.server.endpoint());
    let token = path.strip_prefix("/hls/v1/getHLSMasterPlaylist.m3u8?SessionToken=").expect("as it is known");
    assert!(token.ends_with('~'));
    Player { rig, master: path.to_owned() }
}

struct Player<'a> {
    rig: &'a Rig,
    master: String,
}

/// A media playlist, as far as it matters here.
#[derive(Debug, Default, PartialEq)]
struct Playlist {
    text: String,
    sequence: u64,
    /// Fragment number, length in ms, what stands in front of it.
    fragments: Vec<(String, u64, Vec<String>)>,
    urls: Vec<String>,
    maps: Vec<String>,
    ended: bool,
}

impl Player<'_> {
    async fn get(&self, url: &str) -> Answer {
        let path = if url.starts_with('/') { url.to_owned() } else { format!("/hls/v1/{url}") };
        self.rig.client.get(&path).await
    }

    async fn text(&self, url: &str) -> String {
        let answer = self.get(url).await;
        assert_eq!(answer.status, 200, "{url}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/x-mpegURL");
        String::from_utf8(answer.body.to_vec()).expect("text")
    }

    async fn media_url(&self) -> String {
        self.text(&self.master).await.lines().last().expect("a variant").to_owned()
    }

    async fn playlist(&self) -> Playlist {
        let url = self.media_url().await;
        self.playlist_at(&url).await
    }

    async fn playlist_at(&self, url: &str) -> Playlist {
        let mut found = Playlist { text: self.text(url).await, ..Playlist::default() };
        let (mut before, mut ms) = (Vec::new(), 0);
        for line in found.text.lines() {
            if let Some(number) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                found.sequence = number.parse().expect("a number");
            } else if let Some(map) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
                found.maps.push(map.trim_end_matches('"').to_owned());
                before.push("MAP".to_owned());
            } else if let Some(time) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
                before.push(time.to_owned());
            } else if line == "#EXT-X-DISCONTINUITY" {
                before.push("DISCONTINUITY".to_owned());
            } else if let Some(length) = line.strip_prefix("#EXTINF:") {
                let (whole, part) = length.trim_end_matches(',').split_once('.').expect("a fraction");
                assert_eq!(part.len(), 3);
                ms = format!("{whole}{part}").parse().expect("milliseconds");
            } else if line == "#EXT-X-ENDLIST" {
                found.ended = true;
            } else if !line.starts_with('#') {
                found.urls.push(line.to_owned());
                let number = line.split_once("FragmentNumber=").expect("named").1[..47].to_owned();
                found.fragments.push((number, ms, std::mem::take(&mut before)));
            }
        }
        found
    }

    async fn movie(&self, playlist: &Playlist, index: usize) -> Movie {
        let answer = self.get(&playlist.maps[index]).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_bytes()), (200, &b"video/mp4"[..]));
        Movie::parse(&answer.body).expect("an initialisation segment")
    }

    async fn samples(&self, movie: &Movie, url: &str) -> Vec<Sample> {
        let answer = self.get(url).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_bytes()), (200, &b"video/mp4"[..]));
        movie.samples(&answer.body).expect("a media segment")
    }
}

fn numbers(playlist: &Playlist) -> Vec<&str> {
    playlist.fragments.iter().map(|(number, ..)| number.as_str()).collect()
}

fn range(kind: &str, from_ms: u64, to_ms: Option<u64>) -> Value {
    let mut range = json!({ "StartTimestamp": seconds(from_ms) });
    if let Some(to_ms) = to_ms {
        range["EndTimestamp"] = json!(seconds(to_ms));
    }
    json!({ "FragmentSelectorType": kind, "TimestampRange": range })
}

fn on_demand(kind: &str, from_ms: u64, to_ms: u64) -> Value {
    json!({ "PlaybackMode": "ON_DEMAND", "HLSFragmentSelector": range(kind, from_ms, Some(to_ms)) })
}

#[tokio::test(start_paused = true)]
async fn a_live_session_lists_the_newest_and_the_media_are_those_that_were_sent() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let mut sent = Vec::new();
    for n in 0..7 {
        sent.push(record(&rig, 1_000_000 + n * FRAGMENT_MS).await);
    }
    let player = session(&rig, json!({ "DisplayFragmentTimestamp": "ALWAYS" })).await;
    let master = player.text(&player.master).await;
    let lines: Vec<&str> = master.lines().collect();
    assert_eq!(lines[..2], ["#EXTM3U", "#EXT-X-VERSION:1"]);
    // 50 pictures of 16 bytes and their heads, twice a second.
    assert!(lines[2].starts_with("#EXT-X-STREAM-INF:BANDWIDTH="), "{master}");
    assert!(lines[2].ends_with(",CODECS=\"avc1.64001e\",RESOLUTION=640x360,FRAME-RATE=30.000"), "{master}");
    assert_eq!(lines.len(), 4);

    let first = player.playlist().await;
    assert!(
        first
            .text
            .starts_with("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n")
    );
    assert_eq!((numbers(&first), first.ended), (sent[2..].iter().map(String::as_str).collect(), false));
    assert!(first.fragments.iter().all(|(_, ms, _)| *ms == FRAGMENT_MS));
    // By server time, as is the default: they were received 2 s apart from the beginning on.
    assert_eq!(first.fragments[0].2, ["MAP", "2026-11-20T15:08:38.000Z"]);
    assert_eq!(first.fragments[1].2, ["DISCONTINUITY", "2026-11-20T15:08:40.000Z"]);

    let movie = player.movie(&first, 0).await;
    let MovieFormat::Known(media::mkv::elements::TrackFormat::Video(format)) = &movie.tracks[0].format else {
        panic!("{movie:?}")
    };
    assert_eq!((movie.tracks.len(), format.width, &format.codec_private[..]), (1, 640, AVCC));
    for (index, url) in first.urls.iter().enumerate() {
        let at_ms = 1_000_000 + (index as u64 + 2) * FRAGMENT_MS;
        let samples = player.samples(&movie, url).await;
        let found: Vec<_> =
            samples.iter().map(|s| (s.data.to_vec(), s.time, s.duration, s.key_frame)).collect();
        let begin = i64::try_from(at_ms).expect("small");
        let expected: Vec<_> =
            (0..PICTURES).map(|n| (picture(at_ms, n), begin + i64::from(n) * 40, 40, n == 0)).collect();
        assert_eq!(found, expected, "fragment {index}");
    }

    // Two come: two leave, and the numbers go on. Then six at once: one is never listed, and counts.
    for n in 7..9 {
        sent.push(record(&rig, 1_000_000 + n * FRAGMENT_MS).await);
    }
    let later = player.playlist().await;
    assert_eq!((later.sequence, numbers(&later)), (2, sent[4..].iter().map(String::as_str).collect()));
    for n in 9..15 {
        sent.push(record(&rig, 1_000_000 + n * FRAGMENT_MS).await);
    }
    let latest = player.playlist().await;
    assert_eq!((latest.sequence, numbers(&latest)), (8, sent[10..].iter().map(String::as_str).collect()));
    assert!(latest.text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:"));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_it_expires_and_not_before() {
    let rig = Rig::in_memory(24, |_| {}).await;
    for (asked, lasts) in [(None, 300), (Some(300), 300), (Some(43_200), 43_200)] {
        let begin_ms = rig.client.clock.wall_ms();
        put(&rig, &[video()], [footage(begin_ms)]).await;
        let mut input = on_demand("PRODUCER_TIMESTAMP", begin_ms, begin_ms + 1_000);
        if let Some(asked) = asked {
            input["Expires"] = json!(asked);
        }
        let player = session(&rig, input).await;
        let playlist = player.playlist().await;
        rig.client.clock.sleep(S * lasts - Duration::from_millis(1)).await;
        assert_eq!(player.playlist().await, playlist);
        rig.client.clock.sleep(Duration::from_millis(1)).await;
        for url in [&player.master, &playlist.maps[0], &playlist.urls[0], &player.master] {
            let answer = player.get(url).await;
            assert_eq!(answer.error(), (403, "AccessDeniedException".to_owned()), "{url}");
            assert_eq!(answer.json()["Message"], "Streaming session token is expired");
            assert_eq!(answer.headers["access-control-allow-origin"], "*", "a web page may read why");
        }
    }
    let answer = rig.client.get("/hls/v1/getHLSMasterPlaylist.m3u8?SessionToken=0123~").await;
    assert_eq!(
        (answer.status, answer.json()["Message"].as_str()),
        (403, Some("Streaming session token is invalid"))
    );
    assert_eq!(rig.client.get("/hls/v1/getHLSMasterPlaylist.m3u8").await.status, 403);
    // As with a wrong path of an operation.
    let answer = rig.client.get("/hls/v1/gethlsmasterplaylist.m3u8?SessionToken=0123~").await;
    assert!(
        answer.json()["Output"]["__type"].as_str().expect("named").ends_with("#UnknownOperationException")
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_30_s_ends_a_live_session_until_footage_comes_again() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let not_found = (404, "ResourceNotFoundException".to_owned());
    assert_eq!(open(&rig, json!({})).await.error(), not_found, "nothing was ever sent");
    let first = record(&rig, 5_000).await;
    let player = session(&rig, json!({})).await;
    let media = player.media_url().await;
    // The fragment was received at once, and is 1.96 s long from first to last picture.
    rig.client.clock.sleep(Duration::from_millis(30_000 - 40)).await;
    assert_eq!(numbers(&player.playlist_at(&media).await), [&first]);
    rig.client.clock.sleep(Duration::from_millis(1)).await;
    assert_eq!(player.get(&media).await.error(), not_found);
    assert_eq!(player.get(&player.master).await.error(), not_found);
    assert_eq!(open(&rig, json!({})).await.error(), not_found);
    let second = record(&rig, 50_000).await;
    assert_eq!(numbers(&player.playlist_at(&media).await), [&first, &second]);
}

#[tokio::test(start_paused = true)]
async fn on_demand_plays_a_range_once_and_for_all() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let mut sent = Vec::new();
    for n in 0..6 {
        sent.push(record(&rig, 100_000 + n * FRAGMENT_MS).await);
    }
    // Starts at the borders count; what began before does not, and what goes on behind does.
    let player = session(&rig, on_demand("PRODUCER_TIMESTAMP", 102_000, 106_000)).await;
    let playlist = player.playlist().await;
    assert_eq!(numbers(&playlist), [&sent[1], &sent[2], &sent[3]]);
    assert!(playlist.ended && playlist.text.contains("#EXT-X-PLAYLIST-TYPE:VOD\n"));
    assert!(!playlist.text.contains("DISCONTINUITY"), "NEVER by producer time");
    // The same producer time again, and one in between: the listed ones stay, a new session takes the newest.
    let again = put(&rig, &[video()], [footage(104_000)]).await.remove(0);
    assert_eq!(player.playlist().await, playlist);
    let other = session(&rig, on_demand("PRODUCER_TIMESTAMP", 102_000, 106_000)).await.playlist().await;
    assert_eq!(numbers(&other), [&sent[1], &again, &sent[3]]);
    let mut few = on_demand("SERVER_TIMESTAMP", BEGIN_MS, BEGIN_MS + 60_000);
    few["MaxMediaPlaylistFragmentResults"] = json!(2);
    let few = session(&rig, few).await.playlist().await;
    assert_eq!(numbers(&few), [&sent[0], &sent[1]], "the oldest");
    assert!(few.fragments[1].2.contains(&"DISCONTINUITY".to_owned()), "ALWAYS by server time");
    let answer = open(&rig, on_demand("PRODUCER_TIMESTAMP", 1, 99_999)).await;
    assert_eq!(answer.error(), (404, "ResourceNotFoundException".to_owned()));
    // What is gone from the store is gone from the session.
    rig.server.delete_fragment("cam1", &sent[1]).await.expect("there");
    assert_eq!(player.get(&playlist.urls[0]).await.status, 404);
    assert_eq!(player.get(&playlist.urls[1]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_as_time_passes_and_ends_with_its_range() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let mut sent = Vec::new();
    for n in 0..8 {
        sent.push(record(&rig, 100_000 + n * FRAGMENT_MS).await);
    }
    let mut input = json!({ "PlaybackMode": "LIVE_REPLAY", "MaxMediaPlaylistFragmentResults": 3 });
    input["HLSFragmentSelector"] = range("PRODUCER_TIMESTAMP", 102_000, Some(112_000));
    let player = session(&rig, input).await;
    let media = player.media_url().await;
    let list = async || {
        let playlist = player.playlist_at(&media).await;
        let at = sent.iter().position(|number| *number == playlist.fragments[0].0).expect("one of them");
        (playlist.sequence, at, playlist.fragments.len(), playlist.ended)
    };
    assert_eq!(list().await, (0, 1, 3, false));
    rig.client.clock.sleep(Duration::from_millis(1_999)).await;
    assert_eq!(list().await, (0, 1, 3, false));
    rig.client.clock.sleep(Duration::from_millis(1)).await;
    assert_eq!(list().await, (1, 2, 3, false));
    rig.client.clock.sleep(S * 4).await;
    assert_eq!(list().await, (3, 4, 3, true), "the stream has gone on behind the end of the range");
}

#[tokio::test(start_paused = true)]
async fn discontinuities_stand_where_there_is_a_gap_and_each_format_has_its_map() {
    let rig = Rig::in_memory(1, |_| {}).await;
    // 50 ms more, or 39 less, than where the one before ends is no gap.
    let times = [100_000, 102_050, 104_011, 106_062, 108_062];
    put(&rig, &[video()], times.map(footage)).await;
    let mut other = AVCC.to_vec();
    other[4] = 0xFE; // lengths of NAL units in 3 bytes do not exist, in 2 do
    other[4] = 0xFD;
    let format = VideoFormat::from_codec_private(VideoCodec::H264, other.into()).expect("a record");
    let blocks = [&block_head(1, 0, true, 3)[..], &[0, 1, 0x65]].concat();
    let cluster = [cluster_start(110_062).to_vec(), blocks].concat();
    put(&rig, &[Track::Video(Arc::new(format))], [cluster]).await;
    let mut input = on_demand("PRODUCER_TIMESTAMP", 0, 200_000);
    input["DiscontinuityMode"] = json!("ON_DISCONTINUITY");
    let player = session(&rig, input).await;
    let playlist = player.playlist().await;
    let before: Vec<_> = playlist.fragments.iter().map(|(_, _, before)| before.join(" ")).collect();
    assert_eq!(before, ["MAP", "", "", "DISCONTINUITY", "", "DISCONTINUITY MAP"]);
    // One picture alone lasts as long as its SPS says.
    assert_eq!(playlist.fragments[5].1, 33);
    let (first, second) = (player.movie(&playlist, 0).await, player.movie(&playlist, 1).await);
    assert_ne!(first, second);
    assert_eq!(player.samples(&second, &playlist.urls[5]).await[0].data[..], [0, 1, 0x65]);
}

#[tokio::test(start_paused = true)]
async fn sound_has_a_playlist_of_its_own() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let recorded = mkv::recorded("av_put_001.mkv");
    let sent = persisted(&rig.client.put_whole("cam1", &recorded).await);
    let player = session(&rig, on_demand("SERVER_TIMESTAMP", BEGIN_MS, BEGIN_MS + 60_000)).await;
    let master = player.text(&player.master).await;
    let sound =
        master.lines().find(|line| line.starts_with("#EXT-X-MEDIA:TYPE=AUDIO")).expect("an audio track");
    let url = sound.split_once("URI=\"").expect("a URI").1.trim_end_matches('"');
    assert!(
        url.ends_with("&TrackNumber=2")
            && master.contains("mp4a.40.2")
            && master.contains(",AUDIO=\"audio\"")
    );
    let (video, audio) = (player.playlist().await, player.playlist_at(url).await);
    assert_eq!((numbers(&video), video.fragments.len()), (numbers(&audio), sent.len()));
    let (pictures, sounds) = (player.movie(&video, 0).await, player.movie(&audio, 0).await);
    assert_eq!((pictures.tracks[0].id, sounds.tracks[0].id), (1, 2));
    let (mut frames, mut blocks) = ([0, 0], 0);
    for (video, audio) in video.urls.iter().zip(&audio.urls) {
        frames[0] += player.samples(&pictures, video).await.len();
        frames[1] += player.samples(&sounds, audio).await.len();
    }
    for fragment in rig.server.fragments("cam1").await.expect("there") {
        blocks += fragment.blocks;
    }
    assert!(frames[0] > 0 && frames[1] > 0);
    assert_eq!(frames.iter().sum::<usize>() as u64, blocks, "each block comes back as a sample");
    let none = player.get(&audio.urls[0].replace("TrackNumber=2", "TrackNumber=3")).await;
    assert_eq!(none.error(), (400, "InvalidArgumentException".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_played_is_refused_by_name() {
    let rig = Rig::in_memory(1, |options| *options = options.clone().stream("none", 0)).await;
    let answer = rig.client.call("/getHLSStreamingSessionURL", json!({ "StreamName": "none" })).await;
    assert_eq!(answer.error(), (400, "NoDataRetentionException".to_owned()));
    let answer = rig.client.call("/getHLSStreamingSessionURL", json!({ "StreamName": "nobody" })).await;
    assert_eq!(answer.error(), (404, "ResourceNotFoundException".to_owned()));
    let bare = |record: &'static [u8]| {
        let format = VideoFormat {
            codec: VideoCodec::H264,
            codec_private: Bytes::from_static(record),
            width: 640,
            height: 360,
            frame_rate: None,
        };
        Track::Video(Arc::new(format))
    };
    let cases = [
        (vec![pcmu()], "UnsupportedStreamMediaTypeException"),
        (vec![video(), pcmu()], "UnsupportedStreamMediaTypeException"),
        (vec![aac(), video()], "UnsupportedStreamMediaTypeException"),
        (vec![bare(b"")], "MissingCodecPrivateDataException"),
        (vec![bare(b"\x00\x00\x00\x01\x67\x64")], "InvalidCodecPrivateDataException"),
    ];
    for (n, (tracks, expected)) in (1..).zip(cases) {
        let second = [&block_head(2, 0, true, 3)[..], b"any"].concat();
        let media = [footage(n * 100_000), if tracks.len() == 2 { second } else { Vec::new() }].concat();
        assert_eq!(put(&rig, &tracks, [media]).await.len(), 1);
        let input = on_demand("PRODUCER_TIMESTAMP", n * 100_000, n * 100_000 + 1);
        assert_eq!(open(&rig, input).await.error(), (400, expected.to_owned()), "case {n}");
    }
    // A picture whose NAL units do not fit is found when it is fetched.
    let cluster = [&cluster_start(900_000)[..], &block_head(1, 0, true, 5), &[0, 0, 0, 9, 0x65]].concat();
    put(&rig, &[video()], [cluster]).await;
    for container in ["FRAGMENTED_MP4", "MPEG_TS"] {
        let mut input = on_demand("PRODUCER_TIMESTAMP", 900_000, 900_001);
        input["ContainerFormat"] = json!(container);
        let player = session(&rig, input).await;
        let answer = player.get(&player.playlist().await.urls[0]).await;
        assert_eq!(answer.error(), (400, "InvalidMediaFrameException".to_owned()), "{container}");
    }
}

/// A real clip goes in, and each picture of it comes out of each way to play it, as a parse of the clip that is not ours has it.
#[tokio::test]
async fn a_real_clip_is_played_picture_for_picture() {
    let (Some(clip), Some(oracle)) = (mkv::captured("clusters.mkv"), mkv::oracle()) else { return };
    let clusters = &oracle["parser-library/clusters.mkv"]["documents"][0]["clusters"];
    let clusters = clusters.as_array().expect("clusters");
    let rig = Rig::new(24).await;
    let begin_ms = 1_519_423_067_997;
    let mut upload = rig.client.put_media_as("cam1", "RELATIVE", "1519423067.997").await.expect("accepted");
    upload.send(&clip).await;
    upload.finish();
    assert_eq!(persisted(&upload.rest().await).len(), clusters.len());
    let player = session(&rig, on_demand("PRODUCER_TIMESTAMP", begin_ms, begin_ms + 60_000)).await;
    let playlist = player.playlist().await;
    assert_eq!(playlist.urls.len(), clusters.len());
    let movie = player.movie(&playlist, 0).await;
    let mut all = Vec::new();
    for (url, cluster) in playlist.urls.iter().zip(clusters) {
        let samples = player.samples(&movie, url).await;
        let payload: Vec<u8> = samples.iter().flat_map(|sample| sample.data.to_vec()).collect();
        assert_eq!(samples.len() as u64, cluster["blocks"].as_u64().expect("a count"));
        assert_eq!(hash(&payload), cluster["payload_sha256"].as_str().expect("a sum"));
        let keys = samples.iter().filter(|sample| sample.key_frame).count() as u64;
        assert_eq!(keys, cluster["key_blocks"].as_u64().expect("a count"));
        all.extend(payload);
    }
    let times = json!({ "StartTimestamp": seconds(begin_ms), "EndTimestamp": seconds(begin_ms + 60_000) });
    let selector = json!({ "FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": times });
    let input = json!({ "StreamName": "cam1", "ClipFragmentSelector": selector });
    let answer = rig.client.call("/getClip", input).await;
    let movie = Movie::parse(&answer.body).expect("an MP4");
    let samples = movie.samples(&answer.body).expect("whole");
    assert!(samples.iter().flat_map(|sample| sample.data.to_vec()).eq(all), "the clip has the same pictures");
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_at_its_501st_change_of_the_codec_private_data() {
    let rig = Rig::in_memory(1, |_| {}).await;
    // The same but for the profile's compatibility flags.
    let mut other = AVCC.to_vec();
    other[2] ^= 0x08;
    let other = VideoFormat::from_codec_private(VideoCodec::H264, other.into()).expect("a record");
    let formats = [video(), Track::Video(Arc::new(other))];
    let fragments = 502;
    for n in 0..fragments {
        let tracks = &formats[usize::from(n % 2 == 1)..][..1];
        let cluster = [&cluster_start(n * 1_000)[..], &block_head(1, 0, true, 16), &picture(n, 0)].concat();
        assert_eq!(put(&rig, tracks, [cluster]).await.len(), 1);
    }
    let playlist =
        session(&rig, on_demand("PRODUCER_TIMESTAMP", 0, (fragments - 2) * 1_000)).await.playlist().await;
    assert_eq!((playlist.urls.len(), playlist.maps.len()), (501, 501));
    let answer = open(&rig, on_demand("PRODUCER_TIMESTAMP", 0, (fragments - 1) * 1_000)).await;
    assert_eq!(answer.error(), (400, "InvalidCodecPrivateDataException".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn arguments_are_held_against_their_ranges() {
    let rig = Rig::in_memory(1, |_| {}).await;
    record(&rig, 10_000).await;
    let with_range = |mode: &str, from_ms, to_ms| json!({ "PlaybackMode": mode, "HLSFragmentSelector": range("PRODUCER_TIMESTAMP", from_ms, to_ms) });
    let day = 24 * 3_600_000;
    let wrong = [
        json!({ "Expires": 299 }),
        json!({ "Expires": 43_201 }),
        json!({ "MaxMediaPlaylistFragmentResults": 0 }),
        json!({ "MaxMediaPlaylistFragmentResults": 5_001 }),
        json!({ "PlaybackMode": "ON_DEMAND" }),
        json!({ "PlaybackMode": "LIVE_REPLAY", "HLSFragmentSelector": { "FragmentSelectorType": "SERVER_TIMESTAMP" } }),
        json!({ "PlaybackMode": "NEVER" }),
        json!({ "ContainerFormat": "MP3" }),
        with_range("LIVE", 0, None),
        with_range("ON_DEMAND", 0, None),
        with_range("ON_DEMAND", 10_000, Some(10_000)),
        with_range("ON_DEMAND", 0, Some(day + 1)),
        with_range("LIVE_REPLAY", 10_000, Some(9_999)),
    ];
    for input in wrong {
        assert_eq!(
            open(&rig, input.clone()).await.error(),
            (400, "InvalidArgumentException".to_owned()),
            "{input}"
        );
    }
    for input in [
        json!({ "Expires": 300, "MaxMediaPlaylistFragmentResults": 5_000 }),
        json!({ "HLSFragmentSelector": { "FragmentSelectorType": "PRODUCER_TIMESTAMP" } }),
        with_range("LIVE_REPLAY", 0, None),
        with_range("ON_DEMAND", 0, Some(day)),
    ] {
        assert_eq!(open(&rig, input.clone()).await.status, 200, "{input}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_player_that_asks_too_often_is_slowed_down_and_faults_reach_it() {
    let rig = Rig::in_memory(1, |options| options.limits = kvs_local::Limits::service()).await;
    record(&rig, 10_000).await;
    let player = session(&rig, json!({})).await;
    let playlist = player.playlist().await;
    let limited = (400, "ClientLimitExceededException".to_owned());
    let mut asked = 2;
    while player.get(&player.master).await.status == 200 {
        asked += 1;
    }
    assert_eq!((asked, player.get(&player.master).await.error()), (5, limited.clone()));
    let mut asked = 0;
    while player.get(&playlist.urls[0]).await.status == 200 {
        asked += 1;
    }
    assert_eq!((asked, player.get(&playlist.urls[0]).await.error()), (20, limited));
    rig.client.clock.sleep(S).await;
    assert_eq!(player.playlist().await, playlist);
    let refusal = FaultKind::Refuse {
        path: kvs::api::session::HLS_MEDIA.to_owned(),
        error_type: "InternalFailure".to_owned(),
        status: 500,
        count: 1,
    };
    rig.server.faults().inject(Fault::any(refusal));
    let url = player.media_url().await;
    assert_eq!(player.get(&url).await.status, 500);
    assert_eq!(player.get(&url).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_clip_is_one_movie_and_a_manifest_names_the_same_media() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let mut clusters = Vec::new();
    for n in 0..4 {
        let sound = [&block_head(2, 5, true, 160)[..], &[0xD5; 160]].concat();
        clusters.push([footage(100_000 + n * FRAGMENT_MS), sound].concat());
    }
    let numbers = put(&rig, &[video(), pcmu()], clusters).await;
    let clip = |from_ms: u64, to_ms: u64| {
        let times = json!({ "StartTimestamp": seconds(from_ms), "EndTimestamp": seconds(to_ms) });
        let selector = json!({ "FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": times });
        rig.client.call("/getClip", json!({ "StreamName": "cam1", "ClipFragmentSelector": selector }))
    };
    let answer = clip(102_000, 105_000).await;
    let movie = Movie::parse(&answer.body).expect("an MP4");
    let samples = movie.samples(&answer.body).expect("whole");
    assert_eq!((movie.tracks.len(), samples.len()), (2, 2 * (50 + 1)), "the fragments at 102 and 104 s");
    let sound: Vec<_> =
        samples.iter().filter(|s| s.track == 2).map(|s| (s.time, s.duration, s.data.len())).collect();
    assert_eq!(sound, [(102_005 * 8, 160, 160), (104_005 * 8, 160, 160)]);
    assert_eq!(clip(1, 2).await.error(), (404, "ResourceNotFoundException".to_owned()));
    assert_eq!(clip(2, 1).await.error(), (400, "InvalidArgumentException".to_owned()));
    assert_eq!(clip(0, 24 * 3_600_000 + 1).await.error(), (400, "InvalidArgumentException".to_owned()));

    let input = json!({
        "StreamName": "cam1",
        "PlaybackMode": "ON_DEMAND",
        "DASHFragmentSelector": range("PRODUCER_TIMESTAMP", 100_000, Some(108_000)),
        "DisplayFragmentNumber": "ALWAYS",
        "DisplayFragmentTimestamp": "ALWAYS",
    });
    let answer = rig.client.call("/getDASHStreamingSessionURL", input).await.json();
    let url = answer["DASHStreamingSessionURL"].as_str().expect("a URL");
    let answer = rig.client.get(&url[rig.server.endpoint().len()..]).await;
    let manifest = String::from_utf8(answer.body.to_vec()).expect("text");
    for (n, number) in (0..).zip(&numbers) {
        assert!(
            manifest.contains(&format!("kvs:ts=\"{}.000\" kvs:fn=\"{number}\"", 100 + 2 * n)),
            "{manifest}"
        );
    }
    let path = |attribute: &str| {
        let value = manifest.split_once(&format!(" {attribute}=\"")).expect("there").1;
        format!("/dash/v1/{}", value.split_once('"').expect("closed").0.replace("&amp;", "&"))
    };
    let movie =
        Movie::parse(&rig.client.get(&path("initialization")).await.body).expect("an initialisation segment");
    let samples = movie
        .samples(&rig.client.get(&path("media").replace("$Number$", "0")).await.body)
        .expect("a media segment");
    assert_eq!((samples.len(), samples[0].time), (50, 100_000));
}
