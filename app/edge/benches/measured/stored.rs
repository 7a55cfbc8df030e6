//! Whether every picture that a camera sent lies in KVS, once and in order.

use std::ops::AddAssign;

use bytes::Bytes;
use camera_sim::Clip;
use media::mkv::read::{EventKind, Limits, Parser};

use demo::rig::Rig;

use super::Error;

#[derive(Clone, Copy, Default)]
pub(crate) struct Stored {
    /// By the simulator, from the daemon's first connection on; the first ones may come before a random access
    /// point, the last ones after the daemon hung up.
    pub(crate) sent: u64,
    pub(crate) pictures: u64,
    /// Between the first and the last that are stored.
    pub(crate) missing: u64,
}

impl AddAssign for Stored {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.pictures += other.pictures;
        self.missing += other.missing;
    }
}

/// Compares one stream with the clip that its camera plays in a loop.
pub(crate) async fn stored(rig: &Rig, camera: usize) -> Result<Stored, Error> {
    let (clip, stream) = (rig.sim.clip(camera), format!("cam{camera}"));
    // The daemon was the first to play.
    let daemons = rig.sim.stats(camera).sent.iter().map(|picture| picture.session).min();
    let sent = rig.sim.stats(camera).sent.iter().filter(|picture| Some(picture.session) == daemons).count();
    let mut stored = Stored { sent: sent as u64, ..Stored::default() };
    let mut expected = None;
    for fragment in rig.kvs.fragments(&stream).await? {
        let (front, cluster, behind) = rig.kvs.fragment(&stream, &fragment.number).await?;
        let mut parser = Parser::new(Limits::default());
        [front, cluster, behind].into_iter().for_each(|bytes| parser.push(bytes));
        while let Some(event) = parser.next_event()? {
            if !matches!(event.kind, EventKind::Block { .. }) {
                continue;
            }
            let found = position(clip, event.body(), expected)
                .ok_or_else(|| format!("{stream} holds a picture that no camera sent"))?;
            let loop_length = clip.pictures().len();
            let skipped = expected.map_or(0, |expected| (found + loop_length - expected) % loop_length);
            stored.missing += skipped as u64;
            stored.pictures += 1;
            expected = Some((found + 1) % loop_length);
        }
    }
    Ok(stored)
}

/// Which picture of the loop this is, looked for from the expected one on.
fn position(clip: &Clip, payload: &[u8], expected: Option<usize>) -> Option<usize> {
    let pictures = clip.pictures();
    let start = expected.unwrap_or(0);
    let last_nal =
        |picture: &camera_sim::Picture| picture.nal_units.last().cloned().unwrap_or_else(Bytes::new);
    (0..pictures.len())
        .map(|step| (start + step) % pictures.len())
        .find(|at| payload.ends_with(&last_nal(&pictures[*at])))
}
