//! Geometry of zones and lines.
