//! The thread that reads the source and feeds the decoder.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use decode::{Decoder, DecoderOptions};
use kvs::read::units::Origin;
use media::{AccessUnit, Feed, ProducerTimestamp, SourceState, VideoFormat};
use vision::rgb::{Order, Resizer, Rgb};

use super::queue::{Queue, Status};
use super::{ChannelOrder, Frame, FrameOptions, FramesError};
use crate::source::StreamSource;

/// How often the status is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// Of a wait for the decoder before it is asked whether to go on.
const TURN: Duration = Duration::from_millis(200);
/// Access units in front of the decoder: the source waits for it, so that few are enough.
const QUEUE_UNITS: usize = 4;
/// Pictures whose origins are remembered: more than a decoder ever keeps back.
const ORIGINS: usize = 256;

type Origins = Arc<Mutex<VecDeque<(ProducerTimestamp, Origin)>>>;

pub(super) fn start(
    source: impl StreamSource + 'static,
    options: FrameOptions,
    queue: Arc<Queue>,
) -> Result<JoinHandle<()>, FramesError> {
    let origins = Origins::default();
    let decoder = decoder(&options, queue.clone(), origins.clone())?;
    let failed = |error: std::io::Error| FramesError::Thread { reason: error.to_string() };
    // A runtime of its own: whoever calls may have none.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let name: String = options.name.chars().filter(char::is_ascii_alphanumeric).take(7).collect();
    let run = move || {
        let mut feeder = Feeder { source, decoder, queue, origins, format: None };
        let end = runtime.block_on(feeder.run());
        feeder.publish();
        feeder.queue.end(end);
        // Connections end within their runtime.
        runtime.block_on(async move { drop(feeder) });
    };
    std::thread::Builder::new().name(format!("frames-{name}")).spawn(run).map_err(failed)
}

fn decoder(options: &FrameOptions, queue: Arc<Queue>, origins: Origins) -> Result<Decoder, FramesError> {
    let order = match options.order {
        ChannelOrder::Rgb => Order::Rgb,
        ChannelOrder::Bgr => Order::Bgr,
    };
    let channel_order = options.order;
    let resizer: Mutex<Option<((usize, usize), Resizer)>> = Mutex::new(None);
    let callback = move |decoded: Arc<decode::Frame>| {
        let picture = decoded.picture();
        let (width, height) = (picture.width, picture.height);
        let mut rgb = Rgb::default();
        {
            let mut resizer = resizer.lock().unwrap_or_else(PoisonError::into_inner);
            if resizer.as_ref().is_some_and(|(size, _)| *size != (width, height)) {
                *resizer = None;
            }
            let (_, resizer) =
                resizer.get_or_insert_with(|| ((width, height), Resizer::new(width, height).in_order(order)));
            resizer.fill(&picture, &mut rgb);
        }
        let at = decoded.timestamp();
        let origin = {
            let mut origins = origins.lock().unwrap_or_else(PoisonError::into_inner);
            origins.iter().position(|(time, _)| *time == at).and_then(|n| origins.remove(n))
        };
        let origin = origin.map(|(_, origin)| origin).unwrap_or_default();
        // The decoder's memory goes back before this may wait.
        drop(decoded);
        queue.put(Frame {
            data: rgb.bytes,
            width,
            height,
            order: channel_order,
            producer_timestamp: at,
            server_timestamp_ms: origin.server_timestamp_ms,
            fragment: origin.number,
        });
    };
    let decoder_options = DecoderOptions {
        name: options.name.clone(),
        preference: options.decoder.clone(),
        rate: options.target_fps.unwrap_or(f64::INFINITY),
        queue_units: QUEUE_UNITS,
        clock: options.clock.clone(),
        ..DecoderOptions::default()
    };
    Ok(Decoder::start(decoder_options, callback)?)
}

struct Feeder<S> {
    source: S,
    decoder: Decoder,
    queue: Arc<Queue>,
    origins: Origins,
    format: Option<Arc<VideoFormat>>,
}

impl<S: StreamSource> Feeder<S> {
    /// Until the source ends, or somebody stops it; what comes behind the last picture.
    async fn run(&mut self) -> FramesError {
        loop {
            let queue = self.queue.clone();
            let item = tokio::select! {
                item = self.source.next() => Some(item),
                () = tokio::time::sleep(LOOK) => None,
                () = queue.stopping.notified() => None,
            };
            self.publish();
            if self.queue.is_stopped() {
                return FramesError::Stopped;
            }
            match item {
                None => {}
                Some(Some(item)) => self.take(item),
                Some(None) => break,
            }
        }
        self.finish();
        let reason = self.source.last_error();
        match (self.source.state(), reason) {
            (SourceState::Failed, Some(reason)) => FramesError::Failed { reason },
            (SourceState::Failed, None) => FramesError::Failed { reason: "it does not say why".to_owned() },
            _ => FramesError::Ended,
        }
    }

    fn take(&mut self, item: Feed) {
        match item {
            Feed::Video(unit) => self.decode(unit),
            Feed::Break | Feed::NewTimeline => self.decoder.discontinuity(),
            Feed::Audio(_) | Feed::AudioTrack(_) => {}
        }
    }

    fn decode(&mut self, unit: AccessUnit) {
        if self.format.as_ref().is_some_and(|format| *format != unit.format) {
            // Another decoder may follow: what this one keeps back comes first.
            self.finish();
        }
        self.format = Some(unit.format.clone());
        {
            let origin = self.source.origin().unwrap_or_default();
            let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
            if origins.len() == ORIGINS {
                origins.pop_front();
            }
            origins.push_back((unit.timestamp, origin));
        }
        while !self.decoder.wait_for_room(TURN) {
            if self.queue.is_stopped() {
                return;
            }
            self.publish();
        }
        self.decoder.push(unit);
    }

    /// What the decoder keeps back comes out.
    fn finish(&mut self) {
        while !self.queue.is_stopped() && !self.decoder.finish(TURN) {
            self.publish();
        }
    }

    fn publish(&self) {
        let report = self.decoder.report();
        let decoder_error = report.last_problem.as_ref().map(ToString::to_string);
        self.queue.publish(Status {
            figures: self.source.figures(),
            healthy: self.source.is_healthy(),
            last_error: self.source.last_error().or(decoder_error),
            decoder: Some(report),
        });
    }
}
