//! One thin fuzz target per parser of outside bytes; the corpora run as plain tests.
