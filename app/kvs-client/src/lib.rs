//! An asynchronous Kinesis Video Streams client, PutMedia included.
