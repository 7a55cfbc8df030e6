//! DASH: a manifest of one period (ISO/IEC 23009-1), with the same initialisation and media segments as HLS.
//!
//! Media are named by their sequence number in the session; the fragment numbers stand in `kvs:fn` on request. The service allows no change of the codec private data inside a session: with it the manifest is refused.

use std::fmt::Write;
use std::sync::Arc;

use hyper::{Response, Uri};
use kvs::api::{PlaybackMode, session as path};
use media::ProducerTimestamp;
use media::mkv::elements::TrackFormat;

use crate::errors::ServiceError;
use crate::footage::Tracks;
use crate::player::Fetch;
use crate::server::Body;
use crate::service::Service;
use crate::session::{Asked, Listing, Session};

pub(crate) async fn handle(service: &Arc<Service>, uri: &Uri) -> Result<Response<Body>, ServiceError> {
    let admit = |path, asked| Fetch::admit(service, uri, path, asked);
    match uri.path() {
        path::DASH_MANIFEST => {
            let fetch = admit(path::DASH_MANIFEST, Asked::Playlist)?;
            let listing = fetch.session.look(service).await?;
            let first = listing.fragments.front().map(|listed| listed.init);
            if listing.fragments.iter().any(|listed| Some(listed.init) != first) {
                let message = "The codec private data changed inside the session.";
                return Err(ServiceError::operation("InvalidCodecPrivateDataException", 400, message));
            }
            Ok(fetch.answer("application/dash+xml", manifest(&fetch.session, &listing, service.now_ms())))
        }
        path::DASH_INIT => admit(path::DASH_INIT, Asked::Init)?.init().await,
        path::DASH_FRAGMENT => admit(path::DASH_FRAGMENT, Asked::Fragment)?.fragment().await,
        _ => Err(ServiceError::unknown_operation()),
    }
}

/// The period begins with the epoch, so that media times are the producer's.
fn manifest(session: &Session, listing: &Listing, now_ms: u64) -> String {
    let (playback, token) = (&session.playback, &session.token);
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let (Some(first), Some(last)) = (listing.fragments.front(), listing.fragments.back()) else {
        return text;
    };
    let begin_ms = first.outline.producer_ms;
    let length_ms = (last.outline.producer_ms + last.outline.duration_ms).saturating_sub(begin_ms);
    let seconds = |ms: u64| format!("PT{}.{:03}S", ms / 1_000, ms % 1_000);
    let _ = write!(
        text,
        "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" xmlns:kvs=\"http://aws.amazon.com/kinesis/video/schema/1\" \
         profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" minBufferTime=\"PT{}S\" ",
        listing.target_seconds
    );
    let _ = if playback.mode == PlaybackMode::OnDemand || listing.complete {
        writeln!(text, "type=\"static\" mediaPresentationDuration=\"{}\">", seconds(length_ms))
    } else {
        writeln!(
            text,
            "type=\"dynamic\" availabilityStartTime=\"{}\" publishTime=\"{}\" minimumUpdatePeriod=\"PT1S\" \
             timeShiftBufferDepth=\"{}\">",
            ProducerTimestamp::from_millis(begin_ms),
            ProducerTimestamp::from_millis(now_ms),
            seconds(length_ms)
        )
    };
    let _ = writeln!(text, "<Period id=\"1\" start=\"PT0S\">");
    for track in first.outline.tracks.numbered() {
        let timescale = u64::from(track.timescale());
        let (kind, mime) = match &track.format {
            TrackFormat::Video(_) => ("video", "video/mp4"),
            TrackFormat::Audio(_) => ("audio", "audio/mp4"),
        };
        let _ = writeln!(
            text,
            "<AdaptationSet contentType=\"{kind}\" mimeType=\"{mime}\" segmentAlignment=\"true\" startWithSAP=\"1\">"
        );
        let bits = listing
            .fragments
            .iter()
            .map(|listed| listed.outline.bytes.saturating_mul(8_000) / listed.outline.duration_ms.max(1));
        let _ = write!(
            text,
            "<Representation id=\"{}\" codecs=\"{}\" bandwidth=\"{}\"",
            track.id,
            Tracks::codecs(&track),
            bits.max().unwrap_or(0)
        );
        let _ = match &track.format {
            TrackFormat::Video(format) => {
                writeln!(text, " width=\"{}\" height=\"{}\">", format.width, format.height)
            }
            TrackFormat::Audio(format) => writeln!(text, " audioSamplingRate=\"{}\">", format.sample_rate),
        };
        let _ = writeln!(
            text,
            "<SegmentTemplate timescale=\"{timescale}\" presentationTimeOffset=\"{}\" startNumber=\"{}\" \
             initialization=\"getMP4InitFragment.mp4?SessionToken={token}&amp;TrackNumber={}&amp;SequenceNumber={}\" \
             media=\"getMP4MediaFragment.mp4?SessionToken={token}&amp;TrackNumber={}&amp;SequenceNumber=$Number$\">\n\
             <SegmentTimeline>",
            begin_ms * timescale / 1_000,
            first.sequence,
            track.id,
            first.init,
            track.id
        );
        for listed in &listing.fragments {
            let outline = &listed.outline;
            let _ = write!(
                text,
                "<S t=\"{}\" d=\"{}\"",
                outline.producer_ms * timescale / 1_000,
                outline.duration_ms * timescale / 1_000
            );
            if playback.show_timestamp {
                let _ = write!(text, " kvs:ts=\"{}\"", kvs::tag::format_seconds(listed.start_ms));
            }
            if playback.show_number {
                let _ = write!(text, " kvs:fn=\"{}\"", outline.number);
            }
            text.push_str("/>\n");
        }
        text.push_str("</SegmentTimeline>\n</SegmentTemplate>\n</Representation>\n</AdaptationSet>\n");
    }
    text.push_str("</Period>\n</MPD>\n");
    text
}
