//! Proof that footage is in KVS as it was sent, and what to ask before something is sent again. No IO.
//!
//! ```text
//!  GetMedia (continuous), fetches by number --chunks--> verify --+
//!  ListFragments --rows--> listing ------------------------------+--> ledger --> verdict
//!  schedule: what is asked for when ----------------------------+
//!  reconcile: which of these does KVS have?
//!  play: can a fragment be played, and when is one to be?
//!  records: what the ledger shows of each minute, for good, in a chain that an edit breaks
//! ```
//!
//! What is known of a fragment stands in the ledger and nowhere else, so a proof that had to begin anew goes on where it was.

pub mod budget;
pub mod fetches;
pub mod listing;
pub mod play;
pub mod reconcile;
pub mod records;
pub mod schedule;
pub mod verify;
