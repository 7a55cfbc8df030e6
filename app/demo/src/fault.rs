//! What can go wrong in the demo.

use camera_sim::{CameraSim, Fault as CameraFault};
use clap::ValueEnum;
use kvs_local::{AckKind, At, Fault, FaultKind, KvsLocal};

/// Each hits the first camera or its stream; every one but `corrupt` must end with everything accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoFault {
    /// The camera closes the connection.
    CameraHangup,
    /// The camera stops sending but keeps answering.
    CameraStall,
    /// The camera restarts its encoder: other SSRC, sequence and time.
    CameraRestart,
    /// The camera's RTP time jumps back by 5 s.
    CameraTimeJump,
    /// The camera changes its resolution.
    CameraResize,
    /// 40 packets are lost.
    PacketLoss,
    /// KVS breaks the PutMedia connection in the middle of a fragment.
    CutUpload,
    /// KVS could not persist a fragment (error ack 5001).
    AckError,
    /// KVS refuses five PutMedia requests in a row.
    Refuse,
    /// One PERSISTED ack never comes.
    LostAck,
    /// The read-back connection breaks.
    CutReadback,
    /// KVS gives back a fragment with one byte changed: the demo must notice, and fail.
    Corrupt,
}

impl DemoFault {
    pub(crate) fn describe(self) -> String {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    pub(crate) fn inject(self, sim: &CameraSim, kvs: &KvsLocal) {
        let camera = |fault| {
            sim.faults(0).inject(fault);
        };
        let cloud = |kind| kvs.faults().inject(Fault::on("cam0", kind));
        match self {
            Self::CameraHangup => camera(CameraFault::HangUp),
            Self::CameraStall => camera(CameraFault::Stall { answer_keepalive: true }),
            Self::CameraRestart => camera(CameraFault::NewSource),
            Self::CameraTimeJump => camera(CameraFault::TimestampJumpMs(-5000)),
            Self::CameraResize => camera(CameraFault::SwitchParameters),
            Self::PacketLoss => camera(CameraFault::DropPackets(40)),
            Self::CutUpload => cloud(FaultKind::CutPutMedia { after_bytes: 200_000 }),
            Self::AckError => cloud(FaultKind::AckError { id: 5001, fragment: 1, at: At::Persist }),
            Self::Refuse => {
                cloud(FaultKind::RefusePutMedia {
                    error_type: "ConnectionLimitExceededException".to_owned(),
                    status: 400,
                    count: 5,
                });
                cloud(FaultKind::CutPutMedia { after_bytes: 0 });
            }
            Self::LostAck => cloud(FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 1 }),
            Self::CutReadback => cloud(FaultKind::CutGetMedia { after_bytes: 100_000 }),
            Self::Corrupt => cloud(FaultKind::CorruptChunk { count: 1 }),
        }
    }
}
