//! What players fetch by a session's URL: the request, its session, and media as an answer.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Response, StatusCode, Uri};
use kvs::FragmentNumber;
use media::mp4::write::{init_segment, media_segment};
use tokio::sync::mpsc;

use crate::errors::ServiceError;
use crate::faults::FetchFault;
use crate::footage::Footage;
use crate::server::{Body, BrokenOff};
use crate::service::Service;
use crate::session::{Asked, Session, no_fragments};
use crate::stream::{Place, Stored};

/// One GET of a player, allowed and counted.
pub(crate) struct Fetch<'a> {
    pub(crate) session: Arc<Session>,
    query: &'a str,
    fault: Option<FetchFault>,
}

impl<'a> Fetch<'a> {
    /// `path`: the known one that the URI names.
    pub(crate) fn admit(
        service: &'a Arc<Service>,
        uri: &'a Uri,
        path: &'static str,
        asked: Asked,
    ) -> Result<Self, ServiceError> {
        let query = uri.query().unwrap_or("");
        let session = service.sessions.find(parameter(query, "SessionToken"), service.now())?;
        service.count_fetch(path);
        let track = parameter(query, "TrackNumber").and_then(|track| track.parse().ok());
        if let Some((kind, status)) = service.faults.refusal(&session.stream.name, track, path) {
            return Err(ServiceError::operation(&kind, status, "Refused by an injected fault."));
        }
        session.count(asked, service.now())?;
        let fault = service.faults.fetch(&session.stream.name, track, path);
        Ok(Self { session, query, fault })
    }

    /// The answer, or what a fault makes of it.
    pub(crate) fn answer(&self, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
        let (mut response, body) = (answer(kind, Bytes::new()), body.into());
        *response.body_mut() = match &self.fault {
            None => Body::full(body),
            Some(FetchFault::Answer { status, content_type, location, body }) => {
                let header =
                    |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("?"));
                *response.status_mut() = StatusCode::from_u16(*status).unwrap_or_default();
                response.headers_mut().insert(CONTENT_TYPE, header(content_type));
                if let Some(location) = location {
                    response.headers_mut().insert(LOCATION, header(location));
                }
                Body::full(body.clone())
            }
            Some(FetchFault::Cut { after_bytes }) => {
                let (sender, receiver) = mpsc::channel(2);
                let kept = usize::try_from(*after_bytes).unwrap_or(usize::MAX).min(body.len());
                sender.try_send(Ok(body.slice(..kept))).expect("room for two");
                sender.try_send(Err(BrokenOff)).expect("room for two");
                Body::Channel(receiver)
            }
            Some(FetchFault::Garble) => {
                let mut body = body.to_vec();
                body.iter_mut().skip(4).take(32).for_each(|byte| *byte = b'x');
                Body::full(body)
            }
        };
        response
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&'a str> {
        parameter(self.query, name)
    }

    /// A number in the query; `None`: it is not there.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ServiceError> {
        let wrong = |_| ServiceError::invalid_argument(format!("{name} is no number of this session."));
        self.parameter(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// The number of the track as players count, 1 where the query names none.
    pub(crate) fn track(&self) -> Result<u32, ServiceError> {
        Ok(self.number("TrackNumber")?.unwrap_or(1))
    }

    /// The fragment that the query names, by its number or by its place in the session.
    pub(crate) async fn stored(&self) -> Result<Arc<Stored>, ServiceError> {
        let number: Option<FragmentNumber> = self.number("FragmentNumber")?;
        let number = match (number, self.number("SequenceNumber")?) {
            (Some(number), _) => number,
            (None, Some(sequence)) => self.session.fragment(sequence).await.ok_or_else(no_fragments)?,
            (None, None) => return Err(ServiceError::invalid_argument("FragmentNumber is missing.")),
        };
        let stored = self.session.stream.stored(number);
        stored.filter(|stored| matches!(stored.place, Place::Disk(_))).ok_or_else(|| {
            let message = format!("Fragment {number} is not found.");
            ServiceError::operation("ResourceNotFoundException", 404, message)
        })
    }

    /// The initialisation of one track.
    pub(crate) async fn init(&self) -> Result<Response<Body>, ServiceError> {
        let tracks = self.session.tracks(self.number("SequenceNumber")?).await?;
        let wanted = self.track()?;
        let mut numbered = tracks.numbered();
        numbered.retain(|track| track.id == wanted);
        if numbered.is_empty() {
            return Err(no_track(wanted));
        }
        Ok(self.answer("video/mp4", init_segment(&numbered)))
    }

    /// One track of one fragment.
    pub(crate) async fn fragment(&self) -> Result<Response<Body>, ServiceError> {
        let wanted = self.track()?;
        let footage = Footage::read(&*self.stored().await?, self.session.playback.player).await?;
        let runs = footage.runs(|track| track == wanted)?;
        if runs.is_empty() {
            return Err(no_track(wanted));
        }
        Ok(self.answer("video/mp4", media_segment(1, &runs).concat()))
    }
}

fn no_track(wanted: u32) -> ServiceError {
    ServiceError::invalid_argument(format!("TrackNumber {wanted} is none of this session."))
}

/// Names and values of ours need no escaping.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// Players in a web page come from elsewhere.
pub(crate) fn answer(kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}
