//! Boxes into tracks: the same object across pictures keeps its id.

/// What of one class makes tracks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassRule {
    /// Boxes of other classes are ignored.
    pub wanted: bool,
    /// A box with at least this score begins a track, 0.0..=1.0.
    pub begin_score: f32,
    /// Boxes that cover less (or more) of the picture are ignored, 0.0..=1.0.
    pub min_area: f32,
    pub max_area: f32,
}

impl Default for ClassRule {
    fn default() -> ClassRule {
        ClassRule { wanted: true, begin_score: 0.5, min_area: 0.0, max_area: 1.0 }
    }
}

/// How boxes become tracks.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackerConfig {
    /// By class; classes beyond the end follow [`ClassRule::default`].
    pub classes: Vec<ClassRule>,
    /// Boxes below this score are noise, 0.0..=1.0. Those between it and the class's `begin_score` only continue a
    /// track.
    pub low_score: f32,
    /// Pictures in which an object is seen before its track is confirmed, at least 1.
    pub confirm_hits: u32,
    /// A confirmed track that is not seen for longer has ended, milliseconds.
    pub lost_after_ms: u64,
    /// Most tracks at a time; the boxes with the lowest scores are left out.
    pub max_tracks: usize,
}

impl Default for TrackerConfig {
    fn default() -> TrackerConfig {
        let confirm_hits = 3;
        TrackerConfig { classes: Vec::new(), low_score: 0.1, confirm_hits, lost_after_ms: 2_000, max_tracks: 500 }
    }
}
