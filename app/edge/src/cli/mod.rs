//! Subcommands that are more than a few lines.

pub(crate) mod analyze;
pub(crate) mod kvs;
mod policy;
pub(crate) mod proof;
pub(crate) mod provision;
pub(crate) mod spool;
mod table;
pub(crate) mod upload_range;
