//! Power cuts at any moment.
