//! Ground truth: what can be seen where in each frame.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    Person,
    Vehicle,
}

/// One visible object. `x`, `y` is its left top corner; all four numbers are parts of the frame's width or height,
/// 0.0..=1.0, and enclose the visible pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TruthBox {
    pub label: Label,
    /// The same object has the same number in all frames of one loop.
    pub track: u32,
    pub x: f32,
    pub y: f32,
    pub w: f32,
    pub h: f32,
    /// Part of the object that is neither hidden nor outside of the picture, 0.3..=1.0.
    pub visible: f32,
}

/// One line of a ground truth file: the objects of one frame that are at least 30 % visible.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameTruth {
    /// Index within the loop, the one that strip and burnt-in counter show.
    pub frame: u32,
    pub objects: Vec<TruthBox>,
}
