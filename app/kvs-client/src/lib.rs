//! An asynchronous Kinesis Video Streams client, PutMedia included.
//!
//! Every operation goes over one path of its own, since PutMedia is in no AWS SDK for Rust, and since the
//! service reports some errors inside a successful answer, which the SDKs take for an empty success.
//!
//! ```text
//!  Client -> credentials -> sign -> connection (TLS, one per exchange) -> call          JSON both ways
//!                                                                      -> media_stream  JSON out, media in
//!                                                                      -> put_media     media out, acks in
//!                        (feature `hls`)                               -> fetch         by a session's URL, unsigned
//!                                                         answer (refusals) -> Error -> Action
//! ```
//!
//! What is read comes as bytes ([`MediaStream`]), as whole fragments ([`FragmentStream`], or by the callbacks of a [`Consumer`],
//! of several streams at once), or as pictures and sound ([`source`]).
//!
//! See `examples/put_and_get.rs` for a file sent and read back.

#![deny(missing_docs)]

mod advice;
mod answer;
mod call;
mod client;
mod config;
mod connection;
pub mod consumer;
mod credentials;
#[cfg(feature = "default-chain")]
mod default_chain;
mod dial;
mod documents;
mod endpoint;
mod error;
#[cfg(feature = "hls")]
mod fetch;
mod fragment_pages;
#[cfg(feature = "decode")]
pub mod frames;
mod image_pages;
pub mod iot;
mod key_files;
mod media_stream;
mod operation;
mod provision;
mod proxy;
mod put_media;
mod service_time;
mod sign;
pub mod source;
mod tls;

pub use aws_credential_types::Credentials;
pub use aws_credential_types::provider::SharedCredentialsProvider;
pub use client::{Client, Retention};
pub use clock::Clock;
pub use config::{Config, ConfigError, Endpoints, Timeouts, static_credentials};
pub use consumer::{Callbacks, Consumer, ConsumerError};
#[cfg(feature = "default-chain")]
pub use default_chain::default_credentials;
pub use dial::{ByteStream, Dialler, Dialling, NotResolved, SharedDialler, Tcp};
pub use documents::{FragmentStream, FragmentStreamError, documents_of};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Action, Error, ServiceErrorKind};
pub use fragment_pages::FragmentPages;
pub use image_pages::ImagePages;
pub use iot::IotProvider;
pub use key_files::key_files;
pub use kvs;
pub use media;
pub use media_stream::MediaStream;
pub use operation::Operation;
pub use provision::{DEFAULT_RETENTION_HOURS, Provisioned};
pub use proxy::{Proxy, ProxyLogin};
pub use put_media::{PutMedia, PutMediaAcks, PutMediaInput, PutMediaSender, TimecodeType};
pub use service_time::ServiceTime;
