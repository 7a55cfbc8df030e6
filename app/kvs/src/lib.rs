//! Kinesis Video Streams as state machines: fragmenter, PutMedia, acks, GetMedia chunks, verifier. No IO.
