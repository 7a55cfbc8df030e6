//! HLS: master playlist, media playlists, initialisation and media segments (RFC 8216).
//!
//! ```text
//! getHLSMasterPlaylist.m3u8 -> getHLSMediaPlaylist.m3u8, one per track -> getMP4InitFragment.mp4
//!                                                                      -> getMP4MediaFragment.mp4, getTSFragment.ts
//! ```

use std::fmt::Write;
use std::sync::Arc;

use hyper::{Response, Uri};
use kvs::api::{ContainerFormat, PlaybackMode, session as path};
use media::ProducerTimestamp;
use media::mkv::elements::TrackFormat;

use crate::errors::ServiceError;
use crate::footage::{Footage, Tracks};
use crate::player::Fetch;
use crate::server::Body;
use crate::service::Service;
use crate::session::{Asked, Listed, Listing, Session};

const PLAYLIST: &str = "application/x-mpegURL";

pub(crate) async fn handle(service: &Arc<Service>, uri: &Uri) -> Result<Response<Body>, ServiceError> {
    let admit = |path, asked| Fetch::admit(service, uri, path, asked);
    match uri.path() {
        path::HLS_MASTER => {
            let fetch = admit(path::HLS_MASTER, Asked::Playlist)?;
            let listing = fetch.session.look(service).await?;
            Ok(fetch.answer(PLAYLIST, master(&fetch.session, &listing)))
        }
        path::HLS_MEDIA => {
            let fetch = admit(path::HLS_MEDIA, Asked::Playlist)?;
            let track = fetch.track()?;
            let mut listing = fetch.session.look(service).await?;
            let text = media(&fetch.session, &listing, track);
            let first = listing.first_text.entry(track).or_insert_with(|| text.clone());
            let old = service.faults.gives_old_playlist(&fetch.session.stream.name, track);
            Ok(fetch.answer(PLAYLIST, if old { first.clone() } else { text }))
        }
        path::HLS_INIT => admit(path::HLS_INIT, Asked::Init)?.init().await,
        path::HLS_FRAGMENT => admit(path::HLS_FRAGMENT, Asked::Fragment)?.fragment().await,
        path::HLS_TS => {
            let fetch = admit(path::HLS_TS, Asked::Fragment)?;
            let footage = Footage::read(&*fetch.stored().await?, fetch.session.playback.player).await?;
            Ok(fetch.answer("video/mp2t", footage.transport_stream()?))
        }
        _ => Err(ServiceError::unknown_operation()),
    }
}

fn master(session: &Session, listing: &Listing) -> String {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:1\n".to_owned();
    let Some(last) = listing.fragments.back() else { return text };
    let tracks = last.outline.tracks.numbered();
    let url =
        |track: u32| format!("getHLSMediaPlaylist.m3u8?SessionToken={}&TrackNumber={track}", session.token);
    let apart = session.playback.container == ContainerFormat::FragmentedMp4;
    let sound = tracks.iter().find(|track| track.id == 2 && apart);
    if let Some(sound) = sound {
        let _ = writeln!(
            text,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",DEFAULT=YES,AUTOSELECT=YES,URI=\"{}\"",
            url(sound.id)
        );
    }
    let codecs: Vec<String> = tracks.iter().map(Tracks::codecs).collect();
    let _ =
        write!(text, "#EXT-X-STREAM-INF:BANDWIDTH={},CODECS=\"{}\"", bandwidth(listing), codecs.join(","));
    if let Some(TrackFormat::Video(format)) = tracks.first().map(|track| &track.format) {
        let rate = format.frame_rate.filter(|rate| (1.0..=240.0).contains(rate)).or_else(|| measured(last));
        let _ = write!(text, ",RESOLUTION={}x{}", format.width, format.height);
        if let Some(rate) = rate {
            let _ = write!(text, ",FRAME-RATE={rate:.3}");
        }
    }
    if sound.is_some() {
        text.push_str(",AUDIO=\"audio\"");
    }
    let _ = writeln!(text, "\n{}", url(1));
    text
}

/// The highest of any fragment that is listed, bits per second.
fn bandwidth(listing: &Listing) -> u64 {
    let rates = listing.fragments.iter().map(|listed| {
        let outline = &listed.outline;
        outline.bytes.saturating_mul(8_000) / outline.duration_ms.max(1)
    });
    rates.max().unwrap_or(0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a fragment has hundreds of pictures and thousands of milliseconds"
)]
fn measured(listed: &Listed) -> Option<f64> {
    let outline = &listed.outline;
    (outline.duration_ms > 0).then(|| outline.pictures as f64 * 1_000.0 / outline.duration_ms as f64)
}

fn media(session: &Session, listing: &Listing, track: u32) -> String {
    let (playback, token) = (&session.playback, &session.token);
    let mp4 = playback.container == ContainerFormat::FragmentedMp4;
    let mut text = "#EXTM3U\n#EXT-X-VERSION:7\n".to_owned();
    if playback.mode == PlaybackMode::OnDemand {
        text.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n");
    }
    let first = listing.fragments.front().map_or(0, |listed| listed.sequence);
    let _ = writeln!(text, "#EXT-X-TARGETDURATION:{}", listing.target_seconds);
    let _ = writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{first}");
    if listing.discontinuities_before > 0 {
        let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", listing.discontinuities_before);
    }
    text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    let mut init = None;
    for (index, listed) in listing.fragments.iter().enumerate() {
        // In front of the first one it is counted, not written.
        if listed.discontinuity && index > 0 {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if mp4 && init.replace(listed.init) != Some(listed.init) {
            let _ = writeln!(
                text,
                "#EXT-X-MAP:URI=\"getMP4InitFragment.mp4?SessionToken={token}&TrackNumber={track}&SequenceNumber={}\"",
                listed.init
            );
        }
        if playback.show_timestamp {
            let _ = writeln!(
                text,
                "#EXT-X-PROGRAM-DATE-TIME:{}",
                ProducerTimestamp::from_millis(listed.start_ms)
            );
        }
        let (ms, number) = (listed.outline.duration_ms, listed.outline.number);
        let _ = writeln!(text, "#EXTINF:{}.{:03},", ms / 1_000, ms % 1_000);
        let _ = if mp4 {
            writeln!(
                text,
                "getMP4MediaFragment.mp4?FragmentNumber={number}&SessionToken={token}&TrackNumber={track}"
            )
        } else {
            writeln!(
                text,
                "getTSFragment.ts?FragmentNumber={number}&SessionToken={token}&TrackNumber={track}"
            )
        };
    }
    if listing.complete {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}
