//! [`Outline`]: what the headers say of a file that is no supported Go executable.

use super::{
    buildinfo::BuildInfo,
    elf::Elf,
    error::Error,
    source::{ReadAt, Source},
};

/// What is known of a file whether or not it is a Go executable that [`super::GoBinary`] can read.
#[derive(Debug)]
pub struct Outline {
    /// Its size.
    pub size_bytes: u64,
    /// Its ELF headers, or why there are none.
    pub elf: Result<Elf, Error>,
    /// What the go command recorded, if it did and the file has it still.
    pub build_info: Option<BuildInfo>,
}

impl Outline {
    /// Reads the headers of a file, such as `/proc/PID/exe`.
    ///
    /// # Errors
    /// [`Error::Read`] when not even its size is known.
    pub fn of(reader: Box<dyn ReadAt>) -> Result<Self, Error> {
        let source = Source::new(reader)?;
        let elf = Elf::read(&source);
        // Why build information cannot be used is what GoBinary's error says.
        let build_info = elf.as_ref().ok().and_then(|elf| BuildInfo::read(&source, elf).ok().flatten());
        Ok(Self { size_bytes: source.size_bytes(), elf, build_info })
    }
}
