//! Access units in, pictures in memory out. The only crate that knows GStreamer.
