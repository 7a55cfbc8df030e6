//! The server over real sockets on 127.0.0.1, with clients that are not its own.

mod client;
mod faults;
mod media;
mod mkv;
mod refusals;
