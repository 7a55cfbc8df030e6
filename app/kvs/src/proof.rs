//! Proof that footage is in KVS as it was sent.

pub mod verify;
