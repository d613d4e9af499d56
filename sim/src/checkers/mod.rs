//! The rules a run is held against.
