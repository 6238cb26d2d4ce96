//! Adds waits up.
