//! Streaming sessions: what a URL leads to until it expires.
//!
//! ```text
//! GetHLSStreamingSessionURL, GetDASHStreamingSessionURL -> token -> Session { stream, Playback, Listing }
//! GET /hls/v1/...?SessionToken=  -> hls       GET /dash/v1/...?SessionToken= -> dash
//! ```
//! A listing grows each time somebody looks, by the mode's rules:
//!
//! | mode | lists | then adds |
//! |---|---|---|
//! | LIVE | the newest fragments | each newer one; an older one that comes late is left out |
//! | LIVE_REPLAY | the first ones from the start on | the next one once its own duration has passed |
//! | ON_DEMAND | the first ones of the range, once and for all | |
//!
//! Ours, because the pages do not say: a running LIVE session answers 404 while the newest fragment is older than 30 s and
//! goes on when footage comes again; a session whose initialisation changed more than 500 times is over; LIVE_REPLAY with an
//! end says so once the newest fragment of the stream lies behind it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::Response;
use kvs::FragmentNumber;
use kvs::api::{
    DiscontinuityMode, FragmentSelectorType, GetDashStreamingSessionUrlInput,
    GetDashStreamingSessionUrlOutput, GetHlsStreamingSessionUrlInput, GetHlsStreamingSessionUrlOutput,
    PlaybackMode, StreamId, path, session as session_path,
};

use crate::control::admit;
use crate::errors::ServiceError;
use crate::footage::{Footage, Outline, Tracks};
use crate::playback::Playback;
use crate::rate::Rate;
use crate::server::{Body, json, parse};
use crate::service::Service;
use crate::stream::{Place, Stored, Stream};

/// A LIVE session plays what came within this time.
const LIVE_WINDOW_MS: u64 = 30_000;
/// Expired sessions are remembered, so that their players learn why.
const REMEMBERED: Duration = Duration::from_secs(12 * 3600);
/// A greater gap or overlap is a discontinuity.
const SMALL_GAP_MS: u64 = 50;
/// Fragments that DASH may ask for by their number in the session.
const KNOWN: usize = 10_000;
/// Changes of the codec private data in one session.
const MOST_INITS: usize = 500;

/// The sessions of one server.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<String, Arc<Session>>>);

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) token: String,
    pub(crate) stream: Arc<Stream>,
    pub(crate) playback: Playback,
    ends_at: Instant,
    listing: tokio::sync::Mutex<Listing>,
    playlists: Rate,
    inits: Rate,
    fragments: Rate,
}

/// What has been listed; what a playlist says now.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) fragments: VecDeque<Listed>,
    /// Media sequence number of the next one.
    next_sequence: u64,
    /// Discontinuities in front of the first one that is still listed.
    pub(crate) discontinuities_before: u64,
    /// The longest so far, in whole seconds.
    pub(crate) target_seconds: u64,
    /// The first playlist of each track, for a fault that gives it again.
    pub(crate) first_text: BTreeMap<u32, String>,
    /// Nothing will be added.
    pub(crate) complete: bool,
    /// Tracks from this media sequence number on.
    inits: Vec<(u64, Arc<Tracks>)>,
    /// Of the latest that were listed: sequence number and fragment.
    known: VecDeque<(u64, FragmentNumber)>,
    /// LIVE_REPLAY: since when the next one's duration is passing.
    replayed_until: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) outline: Outline,
    pub(crate) start_ms: u64,
    pub(crate) sequence: u64,
    pub(crate) discontinuity: bool,
    /// Sequence number of the initialisation that it goes by.
    pub(crate) init: u64,
}

/// Which of a session's rates a request counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Playlist,
    Init,
    Fragment,
}

pub(crate) async fn open_hls(service: &Arc<Service>, body: &[u8]) -> Result<Response<Body>, ServiceError> {
    let input: GetHlsStreamingSessionUrlInput = parse(body)?;
    let path = path::GET_HLS_STREAMING_SESSION_URL;
    let token = open(service, path, &input.stream, || Playback::hls(&input)).await?;
    let url = format!("{}{}?SessionToken={token}", data_endpoint(service), session_path::HLS_MASTER);
    json(&GetHlsStreamingSessionUrlOutput { url })
}

pub(crate) async fn open_dash(service: &Arc<Service>, body: &[u8]) -> Result<Response<Body>, ServiceError> {
    let input: GetDashStreamingSessionUrlInput = parse(body)?;
    let path = path::GET_DASH_STREAMING_SESSION_URL;
    let token = open(service, path, &input.stream, || Playback::dash(&input)).await?;
    let url = format!("{}{}?SessionToken={token}", data_endpoint(service), session_path::DASH_MANIFEST);
    json(&GetDashStreamingSessionUrlOutput { url })
}

fn data_endpoint(service: &Service) -> &str {
    service.options.data_endpoint.as_deref().unwrap_or(service.endpoint())
}

/// The token of a new session; only what can be played now gets one.
async fn open(
    service: &Arc<Service>,
    path: &'static str,
    stream: &StreamId,
    check: impl FnOnce() -> Result<Playback, ServiceError>,
) -> Result<String, ServiceError> {
    let stream = service.active_stream(stream)?;
    admit(service, path, &stream.name)?;
    let playback = check()?;
    keeps_data(&stream)?;
    let (now, limits) = (service.now(), &service.options.limits);
    let session = Session {
        token: new_token(),
        stream,
        ends_at: now + playback.lasts,
        playback,
        listing: tokio::sync::Mutex::default(),
        playlists: Rate::new(limits.session_playlists_per_second, now),
        inits: Rate::new(limits.session_playlists_per_second, now),
        fragments: Rate::new(limits.session_fragments_per_second, now),
    };
    // Only a look: what the player gets begins when it asks.
    session.grow(service, &mut Listing::default()).await?;
    Ok(service.sessions.keep(session, now))
}

pub(crate) fn keeps_data(stream: &Stream) -> Result<(), ServiceError> {
    if stream.retention_hours() > 0 {
        return Ok(());
    }
    let message = format!("Stream {} has a data retention of 0.", stream.name);
    Err(ServiceError::operation("NoDataRetentionException", 400, message))
}

pub(crate) fn no_fragments() -> ServiceError {
    let message = "No fragments found in the stream for the streaming request.";
    ServiceError::operation("ResourceNotFoundException", 404, message)
}

/// Ends in a tilde, as those of the service do.
fn new_token() -> String {
    format!("{:032x}{:032x}{:032x}~", rand::random::<u128>(), rand::random::<u128>(), rand::random::<u128>())
}

impl Sessions {
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, session: Session, now: Instant) -> String {
        let token = session.token.clone();
        let mut sessions = self.map();
        sessions.retain(|_, session| now < session.ends_at + REMEMBERED);
        sessions.insert(token.clone(), Arc::new(session));
        token
    }

    /// The session of a token, if it may be used now.
    pub(crate) fn find(&self, token: Option<&str>, now: Instant) -> Result<Arc<Session>, ServiceError> {
        let refused = |message: &str| Err(ServiceError::operation("AccessDeniedException", 403, message));
        let session = token.and_then(|token| self.map().get(token).cloned());
        match session {
            None => refused("Streaming session token is invalid"),
            Some(session) if now >= session.ends_at => refused("Streaming session token is expired"),
            Some(session) if session.stream.deleted.is_cancelled() => {
                Err(ServiceError::stream_not_found(&session.stream.name))
            }
            Some(session) => Ok(session),
        }
    }
}

impl Session {
    /// An error if it is one too many.
    pub(crate) fn count(&self, asked: Asked, now: Instant) -> Result<(), ServiceError> {
        let (rate, what) = match asked {
            Asked::Playlist => (&self.playlists, "playlists"),
            Asked::Init => (&self.inits, "initialisation fragments"),
            Asked::Fragment => (&self.fragments, "media fragments"),
        };
        let points = match asked {
            Asked::Playlist => self.stream.rates.metadata_points.take(self.playback.most as u64, now),
            Asked::Init => true,
            Asked::Fragment => self.stream.rates.media_points.take(1, now),
        };
        if rate.take(1, now) && points {
            return Ok(());
        }
        Err(ServiceError::client_limit(&format!("{what} of one session of stream {}", self.stream.name)))
    }

    /// What to list now, with the newest there is.
    pub(crate) async fn look(
        &self,
        service: &Service,
    ) -> Result<tokio::sync::MutexGuard<'_, Listing>, ServiceError> {
        let mut listing = self.listing.lock().await;
        self.grow(service, &mut listing).await?;
        Ok(listing)
    }

    /// The tracks from a media sequence number on, as it was listed; none: the newest.
    pub(crate) async fn tracks(&self, sequence: Option<u64>) -> Result<Arc<Tracks>, ServiceError> {
        let listing = self.listing.lock().await;
        let found = match sequence {
            Some(sequence) => listing.inits.iter().find(|(from, _)| *from == sequence),
            None => listing.inits.last(),
        };
        found.map(|(_, tracks)| tracks.clone()).ok_or_else(no_fragments)
    }

    /// The fragment of a media sequence number.
    pub(crate) async fn fragment(&self, sequence: u64) -> Option<FragmentNumber> {
        let listing = self.listing.lock().await;
        listing.known.iter().find(|(known, _)| *known == sequence).map(|(_, number)| *number)
    }

    async fn grow(&self, service: &Service, listing: &mut Listing) -> Result<(), ServiceError> {
        let (now, now_ms) = (service.now(), service.now_ms());
        if self.playback.mode == PlaybackMode::OnDemand && listing.complete {
            return Ok(());
        }
        self.stream.expire(&service.options.limits, now_ms).await;
        let candidates = self.candidates(service, now);
        let newest = candidates.iter().map(|stored| stored.meta.server_ms() + stored.meta.length_ms).max();
        match self.playback.mode {
            PlaybackMode::Live => {
                if newest.is_none_or(|newest| newest + LIVE_WINDOW_MS < now_ms) {
                    return Err(no_fragments());
                }
                // Those that leave the playlist before it is seen still count in its numbers.
                let new: Vec<_> = self.behind(listing, &candidates).collect();
                let skipped = new.len().saturating_sub(self.playback.most);
                if listing.next_sequence > 0 {
                    listing.skip(skipped);
                }
                for stored in &new[skipped..] {
                    self.add(service, listing, stored).await?;
                }
            }
            PlaybackMode::LiveReplay => self.replay(service, listing, &candidates, now).await?,
            PlaybackMode::OnDemand => {
                for stored in candidates.iter().take(self.playback.most) {
                    self.add(service, listing, stored).await?;
                }
                listing.complete = !listing.fragments.is_empty();
            }
        }
        if listing.fragments.is_empty() { Err(no_fragments()) } else { Ok(()) }
    }

    async fn replay(
        &self,
        service: &Service,
        listing: &mut Listing,
        candidates: &[Arc<Stored>],
        now: Instant,
    ) -> Result<(), ServiceError> {
        let first = listing.fragments.is_empty();
        let next: Vec<_> = self.behind(listing, candidates).cloned().collect();
        let mut passed = *listing.replayed_until.get_or_insert(now);
        for stored in next {
            if !first || listing.fragments.len() >= self.playback.most {
                let footage = service.outline(&self.stream, &stored, self.playback.player).await?;
                let due = passed + Duration::from_millis(footage.duration_ms);
                if now < due {
                    break;
                }
                passed = due;
            }
            self.add(service, listing, &stored).await?;
        }
        listing.replayed_until = Some(passed);
        let last = listing.fragments.back().map(|listed| listed.outline.number);
        let all_listed = candidates.last().map(|stored| stored.meta.number) == last;
        let passed_end = |to| {
            self.stream.all_stored().iter().any(|stored| self.playback.range.start_ms(&stored.meta) > to)
        };
        listing.complete = all_listed && self.playback.range.to_ms.is_some_and(passed_end);
        Ok(())
    }

    /// Fragments of the range that can be played, in their order.
    fn candidates(&self, service: &Service, now: Instant) -> Vec<Arc<Stored>> {
        in_order(&self.stream, service, self.playback.range, now)
    }

    /// Those behind the last that is listed.
    fn behind<'a>(
        &self,
        listing: &Listing,
        candidates: &'a [Arc<Stored>],
    ) -> impl Iterator<Item = &'a Arc<Stored>> {
        let range = self.playback.range;
        let last = listing.fragments.back().map(|last| (last.start_ms, last.outline.number));
        candidates.iter().filter(move |stored| {
            last.is_none_or(|(start_ms, number)| match range.by {
                FragmentSelectorType::ServerTimestamp => stored.meta.number > number,
                FragmentSelectorType::ProducerTimestamp => range.start_ms(&stored.meta) > start_ms,
            })
        })
    }

    async fn add(
        &self,
        service: &Service,
        listing: &mut Listing,
        stored: &Stored,
    ) -> Result<(), ServiceError> {
        let outline = service.outline(&self.stream, stored, self.playback.player).await?;
        let sequence = listing.next_sequence;
        let same_tracks = listing.inits.last().is_some_and(|(_, tracks)| *tracks == outline.tracks);
        if !same_tracks {
            if listing.inits.len() > MOST_INITS {
                let message = format!("The codec private data changed more than {MOST_INITS} times.");
                return Err(ServiceError::operation("InvalidCodecPrivateDataException", 400, message));
            }
            listing.inits.push((sequence, outline.tracks.clone()));
        }
        let init = listing.inits.last().map_or(sequence, |(from, _)| *from);
        let before = listing.fragments.back().map(|before| &before.outline);
        let discontinuity = match (self.playback.discontinuity, before) {
            (_, None) | (DiscontinuityMode::Never, _) => false,
            (DiscontinuityMode::Always, Some(_)) => true,
            (DiscontinuityMode::OnDiscontinuity, Some(before)) => {
                let end = before.producer_ms + before.duration_ms;
                outline.producer_ms.abs_diff(end) > SMALL_GAP_MS || !same_tracks
            }
        };
        listing.target_seconds = listing.target_seconds.max(outline.duration_ms.div_ceil(1_000)).max(1);
        let start_ms = self.playback.range.start_ms(&stored.meta);
        listing.fragments.push_back(Listed { outline, start_ms, sequence, discontinuity, init });
        listing.known.push_back((sequence, stored.meta.number));
        if listing.known.len() > KNOWN {
            listing.known.pop_front();
        }
        listing.next_sequence += 1;
        while listing.fragments.len() > self.playback.most {
            let gone = listing.fragments.pop_front();
            listing.discontinuities_before += gone.map_or(0, |gone| u64::from(gone.discontinuity));
        }
        Ok(())
    }
}

impl Listing {
    /// So many fragments came and went unseen.
    fn skip(&mut self, fragments: usize) {
        self.next_sequence += fragments as u64;
    }
}

/// Persisted fragments of a range that lists show, in the order of the times that count; of those with the same producer
/// time the newest.
pub(crate) fn in_order(
    stream: &Stream,
    service: &Service,
    range: crate::playback::Range,
    now: Instant,
) -> Vec<Arc<Stored>> {
    let shown = |stored: &Arc<Stored>| {
        matches!(stored.place, Place::Disk(_))
            && stored.since.is_none_or(|since| now >= since + service.options.list_lag)
            && range.accepts(&stored.meta)
    };
    let mut found: Vec<_> = stream.all_stored().into_iter().filter(shown).collect();
    if range.by == FragmentSelectorType::ProducerTimestamp {
        found.sort_by_key(|stored| (stored.meta.producer_ms, std::cmp::Reverse(stored.meta.number)));
        found.dedup_by_key(|stored| stored.meta.producer_ms);
    }
    found
}

impl Service {
    /// What a playlist says of a fragment; read from the disk once.
    pub(crate) async fn outline(
        &self,
        stream: &Stream,
        stored: &Stored,
        player: crate::footage::Player,
    ) -> Result<Outline, ServiceError> {
        let number = stored.meta.number;
        if let Some(outline) = stream.outline(number, player) {
            return Ok(outline);
        }
        let outline = Footage::read(stored, player).await?.outline(stored);
        stream.keep_outline(player, outline.clone());
        Ok(outline)
    }
}
