//! Targets of fuzzing: the parsers of input that the modules did not write, run on memory.
//!
//! The crate in `fuzz/` makes an executable of each with libFuzzer, and `cargo xtask fuzz` runs them. The test `replay`
//! runs each target on its corpus in `fuzz/corpus/`, and on mutations of it, without libFuzzer.

use std::io::{self, Read};

use anyhow::Result;
use mender_update_module::fuzzing;

/// The parsers of one kind of input.
pub struct Target {
    /// The name, also of its executable and of its corpus.
    pub name: &'static str,
    parsers: Parsers,
}

/// A parser of a text in memory.
type ParseText = fn(&[u8]) -> Result<()>;

/// A parser of a stream with a tar archive.
type ParseArchive = fn(&mut dyn Read) -> Result<()>;

/// All parsers of a target get the same input.
enum Parsers {
    Text(&'static [ParseText]),
    Archive(&'static [ParseArchive]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    archive("directory-tar", &[directory::fuzzing::archive, |from| directory::fuzzing::check_archive(from).map(drop)]),
    archive("deb-tar", &[deb::fuzzing::payload, deb::fuzzing::control_archive, deb::fuzzing::files]),
    archive(
        "container-tar",
        &[container::fuzzing::archive, container::fuzzing::list_images, container::fuzzing::image_archive],
    ),
    text("deb-control", &[deb::fuzzing::control]),
    text("compose", &[container::fuzzing::compose]),
    text("quadlet", &[container::fuzzing::quadlet]),
    text(
        "meta-data",
        &[
            web_file::fuzzing::meta_data,
            directory::fuzzing::meta_data,
            deb::fuzzing::meta_data,
            container::fuzzing::meta_data,
        ],
    ),
    text(
        "journal",
        &[web_file::fuzzing::journal, directory::fuzzing::journal, deb::fuzzing::journal, container::fuzzing::journal],
    ),
    text(
        "settings",
        &[
            web_file::fuzzing::settings,
            directory::fuzzing::settings,
            deb::fuzzing::settings,
            container::fuzzing::settings,
        ],
    ),
    text("stream-next", &[fuzzing::announcement]),
];

const fn text(name: &'static str, parsers: &'static [ParseText]) -> Target {
    Target { name, parsers: Parsers::Text(parsers) }
}

const fn archive(name: &'static str, parsers: &'static [ParseArchive]) -> Target {
    Target { name, parsers: Parsers::Archive(parsers) }
}

/// Runs the target `name` on `input`.
///
/// # Panics
/// When no target has this name, or a parser panics or does not end.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("no target {name}")).run(input);
}

impl Target {
    /// Runs every parser on `input`, and returns for each whether it accepts it.
    ///
    /// # Panics
    /// When a parser panics, or reads more often than its input is long.
    pub fn run(&self, input: &[u8]) -> Vec<bool> {
        match self.parsers {
            Parsers::Text(parsers) => parsers.iter().map(|parse| parse(input).is_ok()).collect(),
            Parsers::Archive(parsers) => {
                let input = with_checksums(input);
                parsers.iter().map(|parse| parse(&mut Metered::new(&input)).is_ok()).collect()
            }
        }
    }
}

/// Reads beyond one for each byte that a parser may make: at the ends of streams and blocks.
const SPARE_READS: usize = 1000;

/// A stream that panics when it is read more often than it is long: a loop that does not end is found by a number and
/// not by the time that it takes.
struct Metered<'a> {
    rest: &'a [u8],
    reads: usize,
}

impl<'a> Metered<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { rest: input, reads: input.len() + SPARE_READS }
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(self.reads > 0, "the parser reads more often than its input is long");
        self.reads -= 1;
        self.rest.read(buffer)
    }
}

/// The block size of tar archives, and the fields of a header: the checksum, and the magic value.
const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: (usize, &[u8]) = (257, b"ustar");

/// `archive` with the right checksum in every header: a mutation would otherwise reach nothing behind their check.
fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for header in archive.chunks_exact_mut(BLOCK).filter(|block| block[MAGIC.0..].starts_with(MAGIC.1)) {
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "reads more often")]
    fn a_parser_that_does_not_end_is_found() {
        fn endless(from: &mut dyn Read) -> Result<()> {
            loop {
                let _ = from.read(&mut [0; 1])?;
            }
        }
        archive("endless", &[endless]).run(b"x");
    }

    #[test]
    fn checksums_of_headers_are_corrected() {
        let mut archive = [0; 2 * BLOCK];
        archive[MAGIC.0..MAGIC.0 + 5].copy_from_slice(MAGIC.1);
        let corrected = with_checksums(&archive);
        let sum: u32 = 8 * u32::from(b' ') + MAGIC.1.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        assert_eq!(&corrected[CHECKSUM], format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(corrected[BLOCK..], archive[BLOCK..], "a block without the magic value was changed");
    }
}
