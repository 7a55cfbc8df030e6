//! Figures of a worker: latencies by histogram.
