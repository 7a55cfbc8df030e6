//! What can go wrong with a camera, on demand.
//!
//! Each fault can be asked for in the query of a URL (for that client only), or through a [`Faults`] handle (for
//! all clients of a camera, now and later). Where both speak, the URL wins.
//!
//! | query | effect |
//! |---|---|
//! | `drop=P` | each RTP packet is lost with probability P (0..=1) |
//! | `reorder=P` | each RTP packet changes places with the next one with probability P |
//! | `fault_seed=N` | other random choices than with 0; the same seed always loses the same packets |
//! | `stall_after=S` | no more media S seconds after PLAY; keepalives are answered |
//! | `stall_keepalive=0` | with a stall: nothing is answered either |
//! | `resume_after=S` | the stall ends S seconds after PLAY |
//! | `hangup_after=S` | the connection is closed |
//! | `bye_after=S` | RTCP BYE, then silence; keepalives are answered |
//! | `ssrc_after=S` | another source: SSRC, sequence and time begin anew |
//! | `seq_jump_after=S`, `seq_jump=N` | the sequence number jumps by N (default 40000) |
//! | `ts_jump_after=S`, `ts_jump_ms=N` | the RTP clock jumps by N ms (default -5000) |
//! | `switch_after=S` | other parameter sets and resolution from the next random access point |
//! | `no_sr` | no RTCP sender reports |
//! | `no_rtp_info` | PLAY is answered without RTP-Info |
//! | `no_sprop` | no parameter sets in the SDP |
//! | `no_keepalive` | OPTIONS and GET_PARAMETER are not answered while playing; media flows |
//! | `hang=connect\|describe\|setup\|play` | that step is never answered (connect: nothing is) |
//! | `burst` | all packets of a picture at once instead of spread over the frame interval |
//! | `bframes=N` | the clip has N B pictures in a row (encoded at the first request, then cached) |
//! | `gop=N` | the clip has a random access point every N pictures (encoded at the first request, then cached) |
//! | `go2rtc` | a new Session id per SETUP, no RTP-Info, no RTCP, 461 for UDP, OPTIONS without method list |
//! | `refuse_udp` | 461 for UDP |
//! | `not_found` | 404 for this path, as for every unknown one |
//! | `audio_only` | no video track |
//! | `foreign=jpeg\|vp8` | the SDP offers only this codec for video, and no video is sent |
//! | `clock_offset=S` | the clock of the sender reports is wrong by S seconds (may be negative) |
//! | `sr_after=S` | the first sender report of each track comes S seconds after PLAY, behind the first pictures |
//! | `sr_rtp_offset=S` | the RTP time in the sender reports is wrong by S seconds (may be negative), their NTP time is not |
//! | `timeout=S` | session timeout that is announced and enforced (default 60) |
//! | `start=idr\|now` | not a fault: the first picture is the next random access point (default), or just the next |

use std::sync::Arc;

use tokio::sync::{broadcast, watch};

/// Faults that happen once, at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The TCP connection is closed, without farewell.
    HangUp,
    /// No more media. `answer_keepalive`: whether requests are still answered.
    Stall {
        answer_keepalive: bool,
    },
    /// The end of a stall; continues with the picture of the moment.
    Resume,
    /// RTCP BYE, then as a stall with answers.
    Bye,
    /// New SSRC, sequence and timestamp offset, as after a restart of the encoder.
    NewSource,
    SequenceJump(u16),
    TimestampJumpMs(i32),
    /// To the other resolution at the next random access point, or back.
    SwitchParameters,
    /// The next so many video packets are lost.
    DropPackets(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeStep {
    Connect,
    Describe,
    Setup,
    Play,
}

/// A video codec that H.264 and H.265 clients do not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignCodec {
    Jpeg,
    Vp8,
}

/// Where a client is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the next IDR or CRA picture.
    #[default]
    Idr,
    /// At the next picture, whatever it is.
    Now,
}

/// Faults that last, and those that come by themselves. The default has none. See the module's table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    /// 0.0..=1.0
    pub drop: f64,
    /// 0.0..=1.0
    pub reorder: f64,
    pub seed: u64,
    /// Seconds after PLAY, and what happens then.
    pub scheduled: Vec<(f64, Fault)>,
    pub no_sr: bool,
    pub no_rtp_info: bool,
    pub no_sprop: bool,
    pub no_keepalive: bool,
    pub hang: Option<HandshakeStep>,
    pub burst: bool,
    pub b_frames: Option<u32>,
    pub gop: Option<u32>,
    pub go2rtc: bool,
    pub refuse_udp: bool,
    pub not_found: bool,
    pub audio_only: bool,
    pub foreign: Option<ForeignCodec>,
    /// Seconds that the camera's clock is ahead.
    pub clock_offset_s: f64,
    /// Seconds from PLAY to the first sender report of each track; by default it comes before the first packet.
    pub first_report_after_s: f64,
    /// Seconds that the RTP time in sender reports is ahead of that of the pictures.
    pub report_rtp_offset_s: f64,
    pub session_timeout_s: Option<u32>,
    pub start: Option<Start>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum FaultError {
    #[error("unknown fault `{0}`; `camera-sim --print-faults` lists them")]
    Unknown(String),
    #[error("fault `{key}` is `{value}`, expected {expected}")]
    Value { key: String, value: String, expected: &'static str },
}

impl FaultPlan {
    /// Reads the query part of a URL, without the question mark.
    pub fn from_query(query: &str) -> Result<FaultPlan, FaultError> {
        let mut plan = FaultPlan::default();
        let (mut keepalive, mut sequence, mut time_ms) = (true, 40_000_u16, -5_000_i32);
        let mut moments: Vec<(f64, &str)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "1"));
            match key {
                "drop" => plan.drop = probability(key, value)?,
                "reorder" => plan.reorder = probability(key, value)?,
                "fault_seed" => plan.seed = number(key, value)?,
                "stall_after" | "resume_after" | "hangup_after" | "bye_after" | "ssrc_after"
                | "seq_jump_after" | "ts_jump_after" | "switch_after" => {
                    moments.push((seconds(key, value)?, key))
                }
                "stall_keepalive" => keepalive = flag(key, value)?,
                "seq_jump" => sequence = number(key, value)?,
                "ts_jump_ms" => time_ms = number(key, value)?,
                "no_sr" => plan.no_sr = flag(key, value)?,
                "no_rtp_info" => plan.no_rtp_info = flag(key, value)?,
                "no_sprop" => plan.no_sprop = flag(key, value)?,
                "no_keepalive" => plan.no_keepalive = flag(key, value)?,
                "hang" => {
                    let steps = [
                        ("connect", HandshakeStep::Connect),
                        ("describe", HandshakeStep::Describe),
                        ("setup", HandshakeStep::Setup),
                        ("play", HandshakeStep::Play),
                    ];
                    plan.hang = Some(choice(key, value, &steps, "connect, describe, setup or play")?);
                }
                "burst" => plan.burst = flag(key, value)?,
                "bframes" => plan.b_frames = Some(number(key, value)?),
                "gop" => plan.gop = Some(number(key, value)?),
                "go2rtc" => plan.go2rtc = flag(key, value)?,
                "refuse_udp" => plan.refuse_udp = flag(key, value)?,
                "not_found" => plan.not_found = flag(key, value)?,
                "audio_only" => plan.audio_only = flag(key, value)?,
                "foreign" => {
                    let codecs = [("jpeg", ForeignCodec::Jpeg), ("vp8", ForeignCodec::Vp8)];
                    plan.foreign = Some(choice(key, value, &codecs, "jpeg or vp8")?);
                }
                "clock_offset" => plan.clock_offset_s = real(key, value, -1e9..=1e9)?,
                "sr_after" => plan.first_report_after_s = seconds(key, value)?,
                "sr_rtp_offset" => plan.report_rtp_offset_s = real(key, value, -1e4..=1e4)?,
                "timeout" => plan.session_timeout_s = Some(number(key, value)?),
                "start" => {
                    plan.start =
                        Some(choice(key, value, &[("idr", Start::Idr), ("now", Start::Now)], "idr or now")?);
                }
                _ => return Err(FaultError::Unknown(key.to_owned())),
            }
        }
        plan.scheduled = moments
            .into_iter()
            .map(|(after_s, key)| {
                let fault = match key {
                    "stall_after" => Fault::Stall { answer_keepalive: keepalive },
                    "resume_after" => Fault::Resume,
                    "hangup_after" => Fault::HangUp,
                    "bye_after" => Fault::Bye,
                    "ssrc_after" => Fault::NewSource,
                    "seq_jump_after" => Fault::SequenceJump(sequence),
                    "ts_jump_after" => Fault::TimestampJumpMs(time_ms),
                    _ => Fault::SwitchParameters,
                };
                (after_s, fault)
            })
            .collect();
        Ok(plan)
    }

    /// This plan where it says something, `other` elsewhere.
    pub(crate) fn over(&self, other: &FaultPlan) -> FaultPlan {
        fn unless<T: PartialEq + Default + Copy>(first: T, second: T) -> T {
            if first == T::default() { second } else { first }
        }
        FaultPlan {
            drop: unless(self.drop, other.drop),
            reorder: unless(self.reorder, other.reorder),
            seed: unless(self.seed, other.seed),
            scheduled: self.scheduled.iter().chain(&other.scheduled).copied().collect(),
            no_sr: self.no_sr || other.no_sr,
            no_rtp_info: self.no_rtp_info || other.no_rtp_info,
            no_sprop: self.no_sprop || other.no_sprop,
            no_keepalive: self.no_keepalive || other.no_keepalive,
            hang: self.hang.or(other.hang),
            burst: self.burst || other.burst,
            b_frames: self.b_frames.or(other.b_frames),
            gop: self.gop.or(other.gop),
            go2rtc: self.go2rtc || other.go2rtc,
            refuse_udp: self.refuse_udp || other.refuse_udp,
            not_found: self.not_found || other.not_found,
            audio_only: self.audio_only || other.audio_only,
            foreign: self.foreign.or(other.foreign),
            clock_offset_s: unless(self.clock_offset_s, other.clock_offset_s),
            first_report_after_s: unless(self.first_report_after_s, other.first_report_after_s),
            report_rtp_offset_s: unless(self.report_rtp_offset_s, other.report_rtp_offset_s),
            session_timeout_s: self.session_timeout_s.or(other.session_timeout_s),
            start: self.start.or(other.start),
        }
    }
}

fn wrong(key: &str, value: &str, expected: &'static str) -> FaultError {
    FaultError::Value { key: key.to_owned(), value: value.to_owned(), expected }
}

fn real(key: &str, value: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, FaultError> {
    value
        .parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| wrong(key, value, "a number in range"))
}

fn seconds(key: &str, value: &str) -> Result<f64, FaultError> {
    real(key, value, 0.0..=1e6).map_err(|_| wrong(key, value, "seconds"))
}

fn probability(key: &str, value: &str) -> Result<f64, FaultError> {
    real(key, value, 0.0..=1.0).map_err(|_| wrong(key, value, "a probability from 0 to 1"))
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, FaultError> {
    value.parse().map_err(|_| wrong(key, value, "a whole number in range"))
}

fn flag(key: &str, value: &str) -> Result<bool, FaultError> {
    choice(key, value, &[("1", true), ("true", true), ("0", false), ("false", false)], "0 or 1")
}

fn choice<T: Copy>(
    key: &str,
    value: &str,
    of: &[(&str, T)],
    expected: &'static str,
) -> Result<T, FaultError> {
    of.iter()
        .find(|(name, _)| *name == value)
        .map(|(_, choice)| *choice)
        .ok_or_else(|| wrong(key, value, expected))
}

/// The faults of one camera, to be changed while it runs. Clones speak of the same camera.
#[derive(Clone, Debug)]
pub struct Faults {
    plan: Arc<watch::Sender<Arc<FaultPlan>>>,
    /// 64 are kept for a session that is slow to look; more in that time are lost to it.
    events: broadcast::Sender<Fault>,
}

impl Faults {
    pub(crate) fn new(plan: FaultPlan) -> Faults {
        Faults { plan: Arc::new(watch::Sender::new(Arc::new(plan))), events: broadcast::Sender::new(64) }
    }

    /// Lets a fault happen to all sessions that play now; returns how many these are.
    pub fn inject(&self, fault: Fault) -> usize {
        self.events.send(fault).unwrap_or(0)
    }

    /// Replaces the lasting faults. Packet faults change at once; those of the handshake with the next one;
    /// scheduled ones count from the next PLAY.
    pub fn set(&self, plan: FaultPlan) {
        self.plan.send_replace(Arc::new(plan));
    }

    /// Changes some of the lasting faults, as with [`Faults::set`].
    pub fn update(&self, change: impl FnOnce(&mut FaultPlan)) {
        self.plan.send_modify(|plan| change(Arc::make_mut(plan)));
    }

    pub fn plan(&self) -> FaultPlan {
        self.plan.borrow().as_ref().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<FaultPlan>> {
        self.plan.subscribe()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Fault> {
        self.events.subscribe()
    }
}

/// The table of faults, for people.
pub const TABLE: &str = "\
drop=P             each RTP packet is lost with probability P (0..1)
reorder=P          each RTP packet changes places with the next one with probability P
fault_seed=N       other random choices; the same seed always loses the same packets
stall_after=S      no more media S seconds after PLAY; keepalives are answered
stall_keepalive=0  with a stall: nothing is answered either
resume_after=S     the stall ends S seconds after PLAY
hangup_after=S     the connection is closed
bye_after=S        RTCP BYE, then silence
ssrc_after=S       another source: SSRC, sequence and time begin anew
seq_jump_after=S   the sequence number jumps by seq_jump=N (default 40000)
ts_jump_after=S    the RTP clock jumps by ts_jump_ms=N (default -5000)
switch_after=S     other parameter sets and resolution from the next random access point
no_sr              no RTCP sender reports
no_rtp_info        PLAY is answered without RTP-Info
no_sprop           no parameter sets in the SDP
no_keepalive       OPTIONS and GET_PARAMETER are not answered while playing
hang=STEP          connect, describe, setup or play is never answered
burst              all packets of a picture at once
bframes=N          N B pictures in a row
gop=N              a random access point every N pictures
go2rtc             a new Session id per SETUP, no RTP-Info, no RTCP, 461 for UDP, bare OPTIONS
refuse_udp         461 for UDP
not_found          404 for this path
audio_only         no video track
foreign=CODEC      the SDP offers only jpeg or vp8 for video
clock_offset=S     the clock of the sender reports is wrong by S seconds
sr_after=S         the first sender report comes S seconds after PLAY
sr_rtp_offset=S    the RTP time in the sender reports is wrong by S seconds
timeout=S          session timeout, announced and enforced (default 60)
start=idr|now      first picture: the next random access point (default), or just the next
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_a_plan() {
        let plan =
            FaultPlan::from_query("drop=0.001&stall_after=5&stall_keepalive=0&no_sr&hang=setup&gop=250")
                .unwrap();
        let expected = FaultPlan {
            drop: 0.001,
            scheduled: vec![(5.0, Fault::Stall { answer_keepalive: false })],
            no_sr: true,
            hang: Some(HandshakeStep::Setup),
            gop: Some(250),
            ..FaultPlan::default()
        };
        assert_eq!(plan, expected);
        assert_eq!(FaultPlan::from_query("").unwrap(), FaultPlan::default());
    }

    #[test]
    fn mistakes_in_a_query_are_told() {
        assert_eq!(FaultPlan::from_query("dorp=1"), Err(FaultError::Unknown("dorp".into())));
        for query in ["drop=2", "drop=x", "hang=teardown", "stall_after=-1", "no_sr=maybe", "seq_jump=70000"]
        {
            assert!(matches!(FaultPlan::from_query(query), Err(FaultError::Value { .. })), "{query}");
        }
    }

    #[test]
    fn every_key_of_the_printed_table_is_understood() {
        for line in TABLE.lines() {
            let key = line.split_whitespace().next().unwrap();
            let query = key.replace("=P", "=0.5").replace("=S", "=3").replace("=N", "=2");
            let query = query.replace("hang=3TEP", "hang=play").replace("CODEC", "jpeg").replace("|now", "");
            assert!(FaultPlan::from_query(&query).is_ok(), "{query}");
        }
    }

    #[test]
    fn the_url_wins_over_the_camera() {
        let url = FaultPlan { drop: 0.5, ..FaultPlan::default() };
        let camera = FaultPlan { drop: 0.1, burst: true, gop: Some(9), ..FaultPlan::default() };
        assert_eq!(url.over(&camera), FaultPlan { drop: 0.5, ..camera });
    }
}
