//! The server with clients that are not its own: over real sockets on 127.0.0.1, and where time counts in memory on
//! paused time.

mod client;
mod control;
mod faults;
mod film;
#[cfg(feature = "images")]
mod images;
mod java_sdk;
mod media;
mod mkv;
mod playback;
mod python_consumer;
mod rates;
mod reading;
mod refusals;
mod restart;
mod service;
mod third_party;
