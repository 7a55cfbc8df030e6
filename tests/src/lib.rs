//! The real daemon against real peers on loopback.
