//! All events that a box publishes.

use std::time::Duration;

use messages::Event;
use mqtt::{Heard, Listener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::measured::{Bench, Error};

/// Events that are kept until they are asked for; a bench of hours has fewer.
const PLACES: usize = 1 << 20;
/// The last ones need a moment.
const QUIET: Duration = Duration::from_millis(300);

/// A subscription to the events of all cameras, as any other program would have it.
pub(crate) struct Events {
    heard: mpsc::Receiver<Heard>,
    listening: JoinHandle<()>,
    stop: CancellationToken,
}

impl Events {
    pub(crate) async fn subscribe(bench: &Bench) -> Result<Self, Error> {
        let mut mqtt = bench.config.mqtt.clone().ok_or("no [mqtt]")?;
        mqtt.client_id.push_str("-events");
        let listener = Listener::connect(mqtt, vec![bench.observer.topics().events("+")]).await?;
        let (sender, heard) = mpsc::channel(PLACES);
        let stop = CancellationToken::new();
        let listening = tokio::spawn(listener.run(sender, stop.clone()));
        Ok(Self { heard, listening, stop })
    }

    /// Waits until as many have come as the box has sent, and returns them.
    pub(crate) async fn finish(mut self) -> Result<Vec<Event>, Error> {
        let mut events: Vec<Event> = Vec::new();
        // `seq` has no holes, so the highest is their number.
        let all_came =
            |events: &[Event]| events.len() as u64 >= events.iter().map(|event| event.seq).max().unwrap_or(0);
        loop {
            match timeout(QUIET, self.heard.recv()).await {
                Ok(Some(Heard::Message { payload, .. })) => events.push(serde_json::from_slice(&payload)?),
                Ok(Some(Heard::Interrupted { why })) => {
                    return Err(format!("the connection to the broker was lost: {why}").into());
                }
                Ok(None) => return Err("the subscription ended".into()),
                Err(_) if all_came(&events) => break,
                Err(_) => {}
            }
        }
        self.stop.cancel();
        self.listening.await?;
        Ok(events)
    }
}
