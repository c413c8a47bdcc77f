//! Entry points for fuzzing. Each returns an error for input that the module refuses.

use std::io::{self, Read};

use anyhow::{Result, ensure};
use mender_update_module::{FileName, check_journal, fuzzing};

use crate::dpkg::stanza::Stanza;
use crate::options::{MetaData, Options, Settings};
use crate::payload::deb::{read_control, read_items};
use crate::payload::staging::{Format, TAR_HEADER, each_package};
use crate::relations::{Relation, clauses};
use crate::update::PackageUpdate;

/// The architecture of the device.
const NATIVE: &str = "arm64";

/// The free space of the device in bytes.
const FREE: u64 = 1 << 30;

/// Parses a journal.
pub fn journal(text: &[u8]) -> Result<()> {
    check_journal::<PackageUpdate>(text).map(drop)
}

/// Parses the settings.
pub fn settings(text: &[u8]) -> Result<()> {
    fuzzing::settings::<Settings>(text).map(drop)
}

/// Parses the meta-data.
pub fn meta_data(text: &[u8]) -> Result<()> {
    let meta_data: MetaData = fuzzing::artifact(text)?.meta_data()?.unwrap_or_default();
    let _ = Options::new(Settings::default(), meta_data);
    Ok(())
}

/// Reads a payload file: a package, which is not unpacked, or a tar archive of packages.
pub fn payload(from: &mut dyn Read) -> Result<()> {
    let mut head = Vec::new();
    from.take(TAR_HEADER as u64).read_to_end(&mut head)?;
    match Format::of(&head, &FileName::new("packages")?)? {
        Format::Package => io::copy(from, &mut io::sink()).map(drop).map_err(Into::into),
        Format::Archive => each_package(head.as_slice().chain(from), |shown, size, content| {
            let read = io::copy(content, &mut io::sink())?;
            ensure!(read == size, "invalid archive: {shown}: truncated");
            Ok(())
        }),
    }
}

/// Reads the control archive of a package.
pub fn control_archive(from: &mut dyn Read) -> Result<()> {
    let control = read_control(from)?;
    package(&control.stanza)
}

/// Reads the archive of a package's files.
pub fn files(from: &mut dyn Read) -> Result<()> {
    read_items(from, Settings::default().max_files, FREE).map(drop)
}

/// Parses a control file.
pub fn control(text: &[u8]) -> Result<()> {
    package(&Stanza(text.to_owned()))
}

fn package(stanza: &Stanza) -> Result<()> {
    stanza.key(NATIVE)?;
    FileName::new(stanza.file_name()?)?;
    stanza.dpkg_name()?;
    for field in ["Pre-Depends", "Depends", "Conflicts", "Breaks", "Provides"] {
        for clause in clauses(stanza, field) {
            clause.split('|').try_for_each(|alternative| Relation::parse(alternative).map(drop))?;
        }
    }
    let _ = (stanza.conffiles().count(), stanza.installed_size(), stanza.is_unpacked(), stanza.is_essential());
    let _ = (stanza.replaces("libc6"), stanza.depends_on("libc6"));
    Ok(())
}
