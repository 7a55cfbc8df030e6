//! Access units, H.264 and H.265 parameter sets, Matroska write and incremental read. No IO.
