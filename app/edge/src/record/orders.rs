//! Which footage is to be uploaded where not all of it is: by events, and by whoever asks for a stretch of time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use media::ProducerTimestamp;
use tokio::sync::Notify;

/// Stretches that nobody has taken yet; beyond that the newest are refused. The upload takes them at once.
const PLACES: usize = 1024;
/// Events whose end never came are forgotten, the oldest first.
const MOST_EVENTS: usize = 256;

/// From and to, both included.
pub(super) type Stretch = (ProducerTimestamp, ProducerTimestamp);

/// To one camera's upload; clones are the same. It outlives the upload's crashes.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    stretches: Arc<Mutex<Vec<Stretch>>>,
    told: Arc<Notify>,
}

impl Orders {
    /// False: too many wait already.
    pub fn want(&self, from: ProducerTimestamp, to: ProducerTimestamp) -> bool {
        let mut stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        let has_place = stretches.len() < PLACES;
        if has_place {
            stretches.push((from, to));
            self.told.notify_one();
        }
        has_place
    }

    /// When there is something to take.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    pub(super) fn take(&self) -> Vec<Stretch> {
        std::mem::take(&mut *self.stretches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Orders the footage around events.
#[derive(Clone, Debug)]
pub struct AroundEvents {
    orders: Orders,
    pre: Duration,
    post: Duration,
    /// When each that goes on was seen first.
    open: BTreeMap<String, ProducerTimestamp>,
}

impl AroundEvents {
    /// From `pre` before an event's first picture to `post` behind its last.
    pub fn new(orders: Orders, pre: Duration, post: Duration) -> Self {
        Self { orders, pre, post, open: BTreeMap::new() }
    }

    /// A picture at `at` changed the event. With its end the whole of it is ordered again, also what no change told of.
    pub fn change(&mut self, id: &str, at: ProducerTimestamp, is_end: bool) {
        let first = *self.open.entry(id.to_owned()).or_insert(at);
        if is_end {
            self.open.remove(id);
        } else if self.open.len() > MOST_EVENTS {
            let oldest = self.open.iter().min_by_key(|(_, first)| **first).map(|(id, _)| id.clone());
            oldest.iter().for_each(|id| {
                self.open.remove(id);
            });
        }
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let from = first.min(at).as_millis().saturating_sub(ms(self.pre));
        let to = at.as_millis().saturating_add(ms(self.post));
        let time = ProducerTimestamp::from_millis;
        if !self.orders.want(time(from), time(to)) {
            tracing::warn!(event = id, "too much footage is ordered already: this event's is not");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_orders_what_lies_around_it_and_with_its_end_all_of_it() {
        let orders = Orders::default();
        let mut around = AroundEvents::new(orders.clone(), Duration::from_secs(10), Duration::from_secs(20));
        let at = |s: u64| ProducerTimestamp::from_millis(s * 1000);
        around.change("a", at(100), false);
        around.change("b", at(105), false);
        assert_eq!(orders.take(), [(at(90), at(120)), (at(95), at(125))]);
        around.change("a", at(900), true);
        assert_eq!(orders.take(), [(at(90), at(920))]);
        around.change("c", at(4), true);
        assert_eq!(orders.take(), [(at(0), at(24))], "not before the beginning of time");
        assert_eq!(around.open.len(), 1);
        (0..2000).for_each(|n| around.change(&format!("{n}"), at(n), false));
        assert!(around.open.len() <= MOST_EVENTS + 1);
        assert_eq!(orders.take().len(), PLACES, "who does not take them gets no more");
    }
}
