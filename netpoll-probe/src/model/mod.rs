//! What is known of waits, and nothing else: no I/O, no aya, no knowledge of Go binaries.
//!
//! A [`wait::Wait`] is one park of a goroutine in Go's network poller. [`profile::Profile`] adds waits up.
//! Everything that renders or compares reads these types only.
#![forbid(unsafe_code)]

mod alike;
pub mod builder;
pub mod bypass;
pub mod checkup;
pub mod function;
pub mod group;
pub mod histogram;
pub mod inspection;
pub mod peer;
pub mod profile;
pub mod quality;
mod sieve;
pub mod stack;
pub mod sums;
#[cfg(test)]
pub(crate) mod testing;
pub mod wait;
