//! Arithmetic on arrays: pictures into tensors, tensors into boxes, boxes into tracks, tracks into events.
//!
//! ```text
//!  Picture --letterbox--> tensor --(a detector)--> output --head, nms--> Detection --track--> Track --event--> Change
//! ```
//!
//! No runtime, socket, clock, thread or randomness: pictures, boxes and the producer's time come in, results go out.
//! All coordinates are parts of the picture, 0.0..=1.0, with the origin at its left top corner, so that nothing here
//! depends on the size at which a picture was decoded.

mod assign;
pub mod detection;
pub mod event;
pub mod figures;
pub mod group;
pub mod head;
pub mod letterbox;
pub mod motion;
pub mod nms;
pub mod overlay;
pub mod picture;
pub mod rgb;
pub mod rules;
pub mod track;
pub mod zone;

pub use detection::{Detection, Point, Rect};
pub use picture::{Colour, Matrix, Picture, PictureError, Plane, Planes};
