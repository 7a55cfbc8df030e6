//! Tracks into events: confirmation, zones, lines, stationarity, best shots.
