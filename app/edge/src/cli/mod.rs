//! Subcommands that are more than a few lines.

pub(crate) mod analyze;
pub(crate) mod kvs;
mod kvs_tree;
pub(crate) mod provision;
pub(crate) mod spool;
