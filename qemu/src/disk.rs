//! Disks: the card's partitions, and disposable overlays on an image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::run;
use host::status::Step;
use std::process::Command;

use crate::image::Image;

/// Bytes of a sector, the unit of partition tables.
const SECTOR: u64 = 512;
/// Size of the card in bytes: QEMU wants a power of two.
pub(crate) const CARD: u64 = 1 << 30;
/// The root file system, `/dev/mmcblk0p1`.
pub(crate) const ROOT: Partition = Partition { start: 1 << 20, size: 768 << 20 };
/// `/data`, `/dev/mmcblk0p2`: the Mender client's, kept apart from the root as on a real device.
pub(crate) const DATA: Partition =
    Partition { start: ROOT.start + ROOT.size, size: CARD - ROOT.start - ROOT.size };

/// A part of the card, in bytes.
pub(crate) struct Partition {
    /// Where it begins.
    pub(crate) start: u64,
    /// How long it is.
    pub(crate) size: u64,
}

/// The card's first sector: a DOS partition table with `partitions`, all of type Linux.
pub(crate) fn partition_table(partitions: &[Partition]) -> [u8; SECTOR as usize] {
    const LINUX: u8 = 0x83;
    let mut sector = [0; SECTOR as usize];
    for (entry, partition) in sector[446..510].chunks_exact_mut(16).zip(partitions) {
        entry[4] = LINUX;
        entry[8..12].copy_from_slice(&sectors(partition.start));
        entry[12..16].copy_from_slice(&sectors(partition.size));
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn sectors(bytes: u64) -> [u8; 4] {
    u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX).to_le_bytes()
}

/// A disposable disk: what a machine has changed on top of an image. It survives power losses.
pub struct Overlay {
    path: PathBuf,
}

impl Overlay {
    /// Makes an overlay of `image` as the file `path`, replacing what is there.
    ///
    /// # Errors
    /// When `qemu-img` fails, as on a full disk.
    pub fn create(step: &Step, image: &Image, path: &Path) -> Result<Self> {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image.card()).arg(path);
        run(step, command).with_context(|| format!("making the disk overlay {}", path.display()))?;
        Ok(Self::at(path))
    }

    /// The overlay that is the file `path`.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The qcow2 file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_fill_the_card_without_overlap() {
        assert!(CARD.is_power_of_two());
        assert_eq!(ROOT.start + ROOT.size, DATA.start);
        assert_eq!(DATA.start + DATA.size, CARD);
        for part in [ROOT, DATA] {
            assert_eq!((part.start % SECTOR, part.size % SECTOR), (0, 0));
        }
    }

    #[test]
    fn the_table_is_what_fdisk_would_write() {
        let table = partition_table(&[ROOT, DATA]);
        assert_eq!(&table[446 + 8..446 + 16], &[0x00, 0x08, 0, 0, 0, 0, 0x18, 0]);
        assert_eq!(table[446 + 16 + 4], 0x83);
        assert_eq!(table[446 + 32..510], [0; 32]);
        assert_eq!(table[510..], [0x55, 0xaa]);
    }
}
