//! Reads a block write log (the format of dm-log-writes, which `blklogwrites` shares) and makes the disks that a power cut
//! could have left: everything up to the last flush, and any part of what was written after it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// Position in the file of the number of entries that the last flush made known: an ack's position.
pub const ENTRIES_AT: u64 = 16;

/// One write to the device.
pub struct Entry {
    pub sector: u64,
    pub sectors: u64,
    pub flags: u64,
    /// Where its data stands in the log.
    data_at: u64,
}

impl Entry {
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
}

pub struct WriteLog {
    file: File,
    pub entries: Vec<Entry>,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Number of entries known flushed, for an ack that was just received.
pub fn position(log: &File) -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    log.read_exact_at(&mut bytes, ENTRIES_AT)?;
    Ok(u64::from_le_bytes(bytes))
}

impl WriteLog {
    pub fn open(path: &Path) -> io::Result<WriteLog> {
        let file = File::open(path)?;
        let mut head = [0u8; SECTOR as usize];
        file.read_exact_at(&mut head, 0)?;
        assert_eq!(u64_at(&head, 0), MAGIC, "not a write log");
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..u64_at(&head, 16) {
            file.read_exact_at(&mut head, at)?;
            let (sector, sectors, flags) = (u64_at(&head, 0), u64_at(&head, 8), u64_at(&head, 16));
            let data_at = at + SECTOR;
            at = data_at + if flags & DISCARD == 0 { sectors * SECTOR } else { 0 };
            entries.push(Entry { sector, sectors, flags, data_at });
        }
        Ok(WriteLog { file, entries })
    }

    /// Index of the last flush before entry `cut`: what came before it is on the disk.
    pub fn last_flush(&self, cut: usize) -> usize {
        self.entries[..cut].iter().rposition(Entry::is_flush).map_or(0, |at| at + 1)
    }

    /// Applies entry `at` to an image, all sectors or those for which `keep` says so.
    pub fn apply(&self, at: usize, image: &File, mut keep: impl FnMut() -> bool) -> io::Result<()> {
        let entry = &self.entries[at];
        if entry.flags & DISCARD != 0 {
            return Ok(());
        }
        let mut data = vec![0u8; (entry.sectors * SECTOR) as usize];
        self.file.read_exact_at(&mut data, entry.data_at)?;
        for (i, sector) in data.chunks(SECTOR as usize).enumerate() {
            if keep() {
                image.write_all_at(sector, (entry.sector + i as u64) * SECTOR)?;
            }
        }
        Ok(())
    }
}
