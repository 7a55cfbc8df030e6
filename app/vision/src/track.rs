//! Boxes into tracks: the same object across pictures keeps its id.
