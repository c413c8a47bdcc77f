//! The partitions of the SD card.

/// Bytes of a sector, the unit of partition tables.
const SECTOR: u64 = 512;
/// The size of the card in bytes. QEMU requires a power of two.
pub(crate) const CARD: u64 = 1 << 30;
/// The root file system, `/dev/mmcblk0p1`.
pub(crate) const ROOT: Partition = Partition { start: 1 << 20, size: 768 << 20 };
/// `/data`, `/dev/mmcblk0p2`, for the Mender client. As on a real device, it is a partition of its own.
pub(crate) const DATA: Partition = Partition { start: ROOT.start + ROOT.size, size: CARD - ROOT.start - ROOT.size };

/// A partition of the card.
pub(crate) struct Partition {
    /// Its first byte.
    pub(crate) start: u64,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// The first sector of the card: a DOS partition table with `partitions`, all of type Linux.
pub(crate) fn table(partitions: &[Partition]) -> [u8; SECTOR as usize] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_fill_the_card_without_overlap() {
        assert!(CARD.is_power_of_two());
        assert_eq!(ROOT.start + ROOT.size, DATA.start);
        assert_eq!(DATA.start + DATA.size, CARD);
        for partition in [ROOT, DATA] {
            assert_eq!((partition.start % SECTOR, partition.size % SECTOR), (0, 0));
        }
    }

    #[test]
    fn the_table_is_what_fdisk_would_write() {
        let table = table(&[ROOT, DATA]);
        assert_eq!(&table[446 + 8..446 + 16], &[0x00, 0x08, 0, 0, 0, 0, 0x18, 0]);
        assert_eq!(table[446 + 16 + 4], 0x83);
        assert_eq!(table[446 + 32..510], [0; 32]);
        assert_eq!(table[510..], [0x55, 0xaa]);
    }
}
