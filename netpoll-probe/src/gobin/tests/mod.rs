//! Tests of the whole reader: against a file made by hand, against programs that the installed Go builds, and against
//! broken versions of both.

mod broken;
pub(crate) mod fixture;
mod go_programs;
mod handmade;
