//! What waits for the broker: the newest value of every retained topic and a bounded queue of messages.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Qos;

/// Limits of the queue, not counting retained states. When either is reached the oldest QoS 0 message goes first, then
/// a new QoS 0 message is refused, then the oldest QoS 1 message goes. Statistics of 16 cameras make two messages a
/// second, so this is ten minutes without a broker.
pub(super) const QUEUE_LIMIT: usize = 1024;
pub(super) const QUEUE_LIMIT_BYTES: usize = 4 << 20;
/// Distinct retained topics; a new one beyond is refused. 64 cameras have about 200.
pub(super) const RETAINED_LIMIT: usize = 1024;

/// One PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

impl Message {
    fn size_bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    latest: BTreeMap<String, Message>,
    /// Empty values of topics that are no more; told again on the next connection, where the first telling may have
    /// been lost with the last one.
    cleared: Vec<Message>,
    /// Retained messages in it are also in `latest`, and at most one of each topic.
    queue: VecDeque<Message>,
    /// Of the messages in `queue` that are not retained.
    queued: usize,
    queued_bytes: usize,
    dropped: u64,
}

impl Outbox {
    /// Adds a message; a retained one takes the place of an older one of its topic.
    pub(super) fn push(&mut self, message: Message) {
        if !message.retain {
            return self.push_bounded(message);
        }
        if !self.latest.contains_key(&message.topic) && self.latest.len() >= RETAINED_LIMIT {
            self.dropped += 1;
            return;
        }
        self.cleared.retain(|cleared| cleared.topic != message.topic);
        self.latest.insert(message.topic.clone(), message.clone());
        match self.queue.iter_mut().find(|queued| queued.retain && queued.topic == message.topic) {
            Some(older) => *older = message,
            None => self.queue.push_back(message),
        }
    }

    /// The broker forgets a retained topic; so does this box, once that was told on a connection.
    pub(super) fn clear(&mut self, topic: &str) {
        let Some(mut last) = self.latest.remove(topic) else { return };
        self.queue.retain(|queued| !(queued.retain && queued.topic == topic));
        last.payload = Bytes::new();
        if self.cleared.len() == RETAINED_LIMIT {
            self.cleared.remove(0);
        }
        self.cleared.push(last.clone());
        self.queue.push_back(last);
    }

    /// Retained topics that begin with `prefix`.
    pub(super) fn topics_below(&self, prefix: &str) -> Vec<String> {
        let below = self.latest.range(prefix.to_owned()..).take_while(|(topic, _)| topic.starts_with(prefix));
        below.map(|(topic, _)| topic.clone()).collect()
    }

    fn push_bounded(&mut self, message: Message) {
        while self.queued >= QUEUE_LIMIT || self.queued_bytes + message.size_bytes() > QUEUE_LIMIT_BYTES {
            self.dropped += 1;
            let position = |qos| self.queue.iter().position(|queued| !queued.retain && queued.qos == qos);
            let victim = match position(Qos::AtMostOnce) {
                Some(oldest) => Some(oldest),
                None if message.qos == Qos::AtMostOnce => None,
                None => position(Qos::AtLeastOnce),
            };
            let Some(victim) = victim else { return };
            self.remove(victim);
        }
        self.queued += 1;
        self.queued_bytes += message.size_bytes();
        self.queue.push_back(message);
    }

    fn remove(&mut self, index: usize) -> Option<Message> {
        let message = self.queue.remove(index)?;
        if !message.retain {
            self.queued -= 1;
            self.queued_bytes -= message.size_bytes();
        }
        Some(message)
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        self.remove(0)
    }

    /// Puts back what a lost connection had not delivered, oldest first. Limits are not applied: it was within them.
    /// Retained values need no return, [`Outbox::connected`] sends them all.
    pub(super) fn undelivered(&mut self, messages: impl DoubleEndedIterator<Item = Message>) {
        for message in messages.rev().filter(|message| !message.retain && message.qos == Qos::AtLeastOnce) {
            self.queued += 1;
            self.queued_bytes += message.size_bytes();
            self.queue.push_front(message);
        }
    }

    /// A new connection: the newest value of every retained topic goes out first, then `last`, then the queue.
    pub(super) fn connected(&mut self, last: Message) {
        self.queue.retain(|queued| !queued.retain);
        self.queue.push_front(last);
        for message in self.latest.values().rev() {
            self.queue.push_front(message.clone());
        }
        for message in self.cleared.iter().rev() {
            self.queue.push_front(message.clone());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Messages given up because a limit was reached.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn count_dropped(&mut self) {
        self.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &str, qos: Qos, retain: bool) -> Message {
        Message { topic: topic.into(), payload: Bytes::copy_from_slice(payload.as_bytes()), qos, retain }
    }

    fn state(topic: &str, payload: &str) -> Message {
        message(topic, payload, Qos::AtLeastOnce, true)
    }

    fn event(payload: &str) -> Message {
        message("event", payload, Qos::AtLeastOnce, false)
    }

    fn stats(payload: &str) -> Message {
        message("stats", payload, Qos::AtMostOnce, false)
    }

    fn payloads(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.pop())
            .map(|message| String::from_utf8_lossy(&message.payload).into_owned())
            .collect()
    }

    #[test]
    fn newest_state_takes_the_place_of_the_older() {
        let mut outbox = Outbox::default();
        for message in [state("a", "a1"), event("e1"), state("b", "b1"), state("a", "a2")] {
            outbox.push(message);
        }
        assert_eq!(outbox.len(), 3);
        assert_eq!(payloads(&mut outbox), ["a2", "e1", "b1"]);
        assert_eq!(outbox.dropped(), 0);
    }

    #[test]
    fn connection_sends_every_state_then_online_then_the_queue() {
        let mut outbox = Outbox::default();
        outbox.push(state("b", "b1"));
        outbox.push(state("a", "a1"));
        outbox.push(event("e1"));
        assert_eq!(payloads(&mut outbox), ["b1", "a1", "e1"]);
        outbox.push(event("e2"));
        outbox.push(state("a", "a2"));
        outbox.undelivered([state("b", "b1"), event("e1"), stats("s1")].into_iter());
        outbox.connected(state("availability", "online"));
        assert_eq!(payloads(&mut outbox), ["a2", "b1", "online", "e1", "e2"]);
    }

    #[test]
    fn a_state_that_is_no_more_is_emptied_now_and_on_the_next_connection() {
        let mut outbox = Outbox::default();
        for topic in ["box/cam/a/status", "box/cam/a/upload", "box/cam/ab/status", "box/info"] {
            outbox.push(state(topic, topic));
        }
        assert_eq!(outbox.topics_below("box/cam/a/"), ["box/cam/a/status", "box/cam/a/upload"]);
        outbox.topics_below("box/cam/a/").iter().for_each(|topic| outbox.clear(topic));
        outbox.clear("never/published");
        assert_eq!(payloads(&mut outbox), ["box/cam/ab/status", "box/info", "", ""]);
        outbox.push(state("box/cam/a/status", "back"));
        outbox.connected(state("online", "online"));
        assert_eq!(payloads(&mut outbox), ["", "back", "box/cam/ab/status", "box/info", "online"]);
    }

    #[test]
    fn full_queue_gives_up_statistics_first_and_states_never() {
        let mut outbox = Outbox::default();
        outbox.push(state("a", "a1"));
        outbox.push(event("e0"));
        outbox.push(stats("s0"));
        for i in 1..QUEUE_LIMIT {
            outbox.push(event(&format!("e{i}")));
        }
        assert_eq!(outbox.dropped(), 1, "the statistics");
        outbox.push(stats("s1"));
        assert_eq!(outbox.dropped(), 2, "statistics do not push events out");
        outbox.push(event("newest"));
        assert_eq!(outbox.dropped(), 3, "events push the oldest event out");
        outbox.push(state("b", "b1"));
        let rest = payloads(&mut outbox);
        assert_eq!(rest.len(), QUEUE_LIMIT + 2);
        assert_eq!(
            (&*rest[0], &*rest[1], &*rest[QUEUE_LIMIT], &*rest[QUEUE_LIMIT + 1]),
            ("a1", "e1", "newest", "b1")
        );
    }

    #[test]
    fn queue_is_bounded_in_bytes_too() {
        let mut outbox = Outbox::default();
        let big = "x".repeat(QUEUE_LIMIT_BYTES / 4);
        for _ in 0..8 {
            outbox.push(event(&big));
        }
        assert_eq!((outbox.len(), outbox.dropped()), (3, 5));
        outbox.push(event(&"x".repeat(QUEUE_LIMIT_BYTES)));
        assert_eq!(outbox.len(), 0, "what can never fit leaves nothing behind");
        assert_eq!(outbox.queued_bytes, 0);
    }
}
