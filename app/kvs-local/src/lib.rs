//! A server that speaks the Kinesis Video Streams protocol, for tests, demos and dry runs.
