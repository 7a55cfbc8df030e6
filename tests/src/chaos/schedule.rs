//! What goes wrong when, drawn from a seed: the same seed makes the same schedule.

use camera_sim::Fault as CameraFault;
use kvs::ack::{AckError, Reaction};
use kvs::api::path;
use kvs_local::{AckKind, At, FaultKind};

use crate::link::Weather;

/// Cameras of a storm, which are the names of their streams.
pub const CAMERAS: [&str; 3] = ["dock", "gate", "yard"];

/// What panics, by the names of `kvs_edge::fault`.
const STAGES: [&str; 5] = ["ingest", "upload", "spool", "proof", "records"];

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// From `low` on, below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    pub fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        let at = usize::try_from(self.below(of.len() as u64)).expect("an index");
        of[at].clone()
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (1..all.len()).rev() {
            let at = usize::try_from(self.below(end as u64 + 1)).expect("an index");
            all.swap(at, end);
        }
    }
}

/// Something done to the box or to what surrounds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// kill -9.
    KillDaemon,
    /// SIGTERM.
    StopDaemon,
    StartDaemon,
    KillCloud,
    StartCloud,
    Weather(Weather),
    /// The connections of the moment pass nothing on any more.
    Freeze,
    /// Of a camera.
    Camera(&'static str, CameraFault),
    /// The clock of the box is set so far from the true time.
    Clock {
        offset_s: i64,
    },
    /// Every write of the box to a file fails, or works again.
    DiskRefuses(bool),
    /// Of a camera's stream.
    Cloud(&'static str, FaultKind),
    /// The cloud forgets its faults.
    EndFaults,
    /// A stage of a camera panics, the next time it comes by its worst moment.
    Panic(&'static str, &'static str),
    BrokerAway,
    BrokerBack,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    pub at_ms: u64,
    pub action: Action,
}

/// Everything that goes wrong, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub seed: u64,
    pub moments: Vec<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KillDaemon,
    RestartDaemon,
    KillCloud,
    Cut,
    Frozen,
    Slow,
    Lossy,
    Camera,
    Clock,
    Disk,
    AckError,
    AckTrouble,
    Expired,
    Throttled,
    ListsOnly,
    Panics,
    Broker,
}

const KINDS: [Kind; 16] = [
    Kind::KillDaemon,
    Kind::RestartDaemon,
    Kind::KillCloud,
    Kind::Cut,
    Kind::Frozen,
    Kind::Slow,
    Kind::Lossy,
    Kind::Camera,
    Kind::Clock,
    Kind::Disk,
    Kind::AckError,
    Kind::AckTrouble,
    Kind::Expired,
    Kind::Throttled,
    Kind::ListsOnly,
    Kind::Broker,
];

impl Schedule {
    /// Each kind of fault once, before anything comes a second time, until `length_ms` is over. `patient`: refusals that wait for
    /// an operator come too, and panics of stages, and with an odd seed outages may be long. Then the clock is never far off: a box that starts with a
    /// clock that is wrong, and finds no service for 15 s, stamps by it, and its pictures could not be told from others.
    pub fn storm(seed: u64, length_ms: u64, patient: bool) -> Schedule {
        let mut random = Random::new(seed);
        let long_outages = patient && !seed.is_multiple_of(2);
        let mut draft =
            Draft { random: random.clone(), patient, long_outages, at_ms: 0, moments: Vec::new() };
        let mut bag = Vec::new();
        // The first fragments.
        draft.at_ms = 2_000;
        while draft.at_ms < length_ms {
            if bag.is_empty() {
                bag = KINDS.to_vec();
                if patient {
                    bag.push(Kind::Panics);
                }
                random.shuffle(&mut bag);
            }
            if let Some(kind) = bag.pop() {
                draft.fault(kind);
            }
            draft.at_ms += draft.random.between(200, if patient { 4_000 } else { 1_800 });
        }
        let mut moments = draft.moments;
        moments.sort_by_key(|moment| moment.at_ms);
        Schedule { seed, moments }
    }
}

struct Draft {
    random: Random,
    patient: bool,
    long_outages: bool,
    at_ms: u64,
    moments: Vec<Moment>,
}

impl Draft {
    fn now(&mut self, action: Action) {
        self.moments.push(Moment { at_ms: self.at_ms, action });
    }

    /// `action` now and `end` later.
    fn for_a_while(&mut self, action: Action, end: Action) {
        let longest = match self.random.below(4) {
            0 if self.long_outages => 40_000,
            _ => 3_500,
        };
        let later = self.at_ms + self.random.between(200, longest);
        self.now(action);
        self.moments.push(Moment { at_ms: later, action: end });
    }

    fn stream(&mut self) -> &'static str {
        self.random.one_of(&CAMERAS)
    }

    fn cloud(&mut self, kind: FaultKind) {
        let stream = self.stream();
        self.now(Action::Cloud(stream, kind));
    }

    fn weather(&mut self, weather: Weather) {
        self.for_a_while(Action::Weather(weather), Action::Weather(Weather::Fair));
    }

    fn refuse(&mut self, paths: &[&str], error_type: &str, status: u16, count: u64) {
        let stream = self.stream();
        for path in paths {
            let (path, error_type) = ((*path).to_owned(), error_type.to_owned());
            self.now(Action::Cloud(stream, FaultKind::Refuse { path, error_type, status, count }));
        }
    }

    fn fault(&mut self, kind: Kind) {
        match kind {
            Kind::KillDaemon => self.for_a_while(Action::KillDaemon, Action::StartDaemon),
            Kind::RestartDaemon => self.for_a_while(Action::StopDaemon, Action::StartDaemon),
            Kind::KillCloud => self.for_a_while(Action::KillCloud, Action::StartCloud),
            Kind::Cut => self.weather(Weather::Cut),
            Kind::Frozen if self.random.below(2) == 0 => self.weather(Weather::Still),
            Kind::Frozen => self.now(Action::Freeze),
            Kind::Slow => {
                // Three cameras deliver about 120 kB/s.
                let bytes_per_s = self.random.between(10_000, 150_000);
                self.weather(Weather::Slow { bytes_per_s });
            }
            Kind::Lossy => {
                let bytes = self.random.between(500, 200_000);
                self.weather(Weather::Lossy { bytes });
            }
            Kind::Camera => self.camera(),
            Kind::Clock => {
                let offset_s = match self.patient {
                    false => -60,
                    true if self.long_outages => self.random.one_of(&[-1, 1, 0]),
                    true => self.random.one_of(&[-60, 60, -3_600, 45, -5, 0]),
                };
                self.now(Action::Clock { offset_s });
            }
            Kind::Disk => self.for_a_while(Action::DiskRefuses(true), Action::DiskRefuses(false)),
            Kind::AckError => {
                let id = loop {
                    let ids: Vec<_> = AckError::known_ids().collect();
                    let id = self.random.one_of(&ids);
                    if self.patient || AckError::from_id(id).reaction() != Reaction::Stop {
                        break id;
                    }
                };
                let at = self.random.one_of(&[At::Start, At::End, At::Persist]);
                let fragment = self.random.between(1, 4);
                self.cloud(FaultKind::AckError { id, fragment, at });
            }
            Kind::AckTrouble => {
                let kinds = [AckKind::Buffering, AckKind::Received, AckKind::Persisted].map(Some);
                let (ack, count) = (self.random.one_of(&kinds), self.random.between(1, 4));
                let delay_ms = self.random.between(100, 8_000);
                let garbage = b"{\"EventType\":\"PERS".to_vec();
                let kind = self.random.one_of(&[
                    FaultKind::DropAck { ack, count },
                    FaultKind::DuplicateAck { ack, count },
                    FaultKind::DelayAck { ack, delay_ms, count },
                    FaultKind::GarbageAck { bytes: garbage },
                    FaultKind::CutPutMedia { after_bytes: delay_ms * 10 },
                ]);
                self.cloud(kind);
            }
            Kind::Expired => {
                let all = [path::PUT_MEDIA, path::GET_MEDIA, path::LIST_FRAGMENTS];
                let paths = &all[..1 + usize::try_from(self.random.below(3)).expect("small")];
                self.refuse(paths, "ExpiredTokenException", 403, 2);
                // A running session goes on with the old token; the next one asks.
                self.cloud(FaultKind::CutPutMedia { after_bytes: 0 });
            }
            Kind::Throttled => {
                let all = [path::PUT_MEDIA, path::LIST_FRAGMENTS, path::GET_MEDIA_FOR_FRAGMENT_LIST];
                let path = self.random.one_of(&all);
                self.refuse(&[path], "ClientLimitExceededException", 400, 2);
            }
            Kind::ListsOnly => {
                let refusal = FaultKind::RefusePutMedia {
                    error_type: "ServiceUnavailable".to_owned(),
                    status: 503,
                    count: 1_000_000,
                };
                for stream in CAMERAS {
                    self.now(Action::Cloud(stream, FaultKind::CutPutMedia { after_bytes: 0 }));
                    self.now(Action::Cloud(stream, refusal.clone()));
                }
                let later = self.at_ms + self.random.between(500, 4_000);
                self.moments.push(Moment { at_ms: later, action: Action::EndFaults });
            }
            Kind::Panics => {
                let mut stages = STAGES;
                self.random.shuffle(&mut stages);
                for stage in stages {
                    let (camera, at_ms) = (self.stream(), self.at_ms + self.random.below(2_000));
                    self.moments.push(Moment { at_ms, action: Action::Panic(camera, stage) });
                }
            }
            Kind::Broker => self.for_a_while(Action::BrokerAway, Action::BrokerBack),
        }
    }

    fn camera(&mut self) {
        let camera = self.stream();
        let jump = [-5_000, 3_000, 400_000];
        let fault = match self.random.below(7) {
            0 => CameraFault::HangUp,
            1 => CameraFault::Bye,
            2 => CameraFault::NewSource,
            3 => CameraFault::TimestampJumpMs(self.random.one_of(&jump)),
            4 => CameraFault::SwitchParameters,
            5 => CameraFault::DropPackets(3),
            _ => {
                let stall = CameraFault::Stall { answer_keepalive: self.random.below(2) == 0 };
                let resume = Action::Camera(camera, CameraFault::Resume);
                return self.for_a_while(Action::Camera(camera, stall), resume);
            }
        };
        self.now(Action::Camera(camera, fault));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_schedule_and_other_seeds_make_others() {
        let storm = |seed| Schedule::storm(seed, 60_000, false);
        assert_eq!(storm(7), storm(7));
        assert_ne!(storm(7).moments, storm(8).moments);
        assert!(storm(7).moments.is_sorted_by_key(|moment| moment.at_ms));
    }

    #[test]
    fn what_is_switched_off_is_switched_on_again() {
        for seed in 0..50 {
            let moments = Schedule::storm(seed, 120_000, true).moments;
            let count = |wanted: &Action| moments.iter().filter(|moment| moment.action == *wanted).count();
            assert_eq!(count(&Action::KillCloud), count(&Action::StartCloud));
            assert_eq!(count(&Action::BrokerAway), count(&Action::BrokerBack));
            assert_eq!(count(&Action::DiskRefuses(true)), count(&Action::DiskRefuses(false)));
            let ends = count(&Action::KillDaemon) + count(&Action::StopDaemon);
            assert_eq!(ends, count(&Action::StartDaemon));
        }
    }
}
