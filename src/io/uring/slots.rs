//! The table of operations in flight. A slot owns what the kernel points at, from push to completion; its generation is part of
//! the kernel's `user_data`, so a stale completion finds nobody.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::RawFd;

use crate::io::buffer::BlockSlice;
use crate::io::linux::message::Message;
use crate::io::linux::reading::Reading;
use crate::io::linux::table::Owner;
use crate::io::{ConnId, FileId, ListenerId, SendChain, WriteSync};

/// `user_data` of entries whose completion nobody waits for: it names no slot.
pub const NOBODY: u64 = u64::MAX;

/// `user_data` of the read of the eventfd. It names no slot either.
pub const BELL: u64 = u64::MAX - 2;

/// What an operation holds and needs until it completes.
pub enum Work {
    Open {
        path: CString,
        flags: i32,
    },
    /// `fd` is the kernel's to close once the entry was pushed.
    CloseFile {
        file: FileId,
        fd: RawFd,
    },
    Allocate {
        file: FileId,
        offset: u64,
        len: u64,
    },
    /// `len` is below the slice's length only for an injected short write.
    Write {
        file: FileId,
        offset: u64,
        data: BlockSlice,
        len: u32,
        sync: WriteSync,
    },
    Read(Reading),
    Flush {
        file: FileId,
    },
    Truncate {
        file: FileId,
        len: u64,
    },
    Rename {
        from: CString,
        to: CString,
    },
    Remove {
        path: CString,
        flags: i32,
    },
    MakeDir {
        path: CString,
    },
    /// Two steps: the directory is opened, then synced.
    SyncDir {
        path: CString,
        opened: Option<File>,
    },
    Accept {
        listener: ListenerId,
    },
    Recv {
        conn: ConnId,
    },
    /// Of an `Accept` or a `Recv`.
    Cancel,
    Send {
        conn: ConnId,
        chain: SendChain,
        message: Option<Box<Message>>,
    },
    CloseConn {
        conn: ConnId,
        fd: RawFd,
    },
}

impl Work {
    /// The file whose descriptor the operation uses.
    pub fn file(&self) -> Option<FileId> {
        match *self {
            Work::Allocate { file, .. }
            | Work::Write { file, .. }
            | Work::Read(Reading { file, .. })
            | Work::Flush { file }
            | Work::Truncate { file, .. } => Some(file),
            _ => None,
        }
    }
}

pub struct InFlight {
    pub owner: Owner,
    pub work: Work,
}

struct Slot {
    generation: u32,
    held: Option<InFlight>,
}

#[derive(Default)]
pub struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
}

impl Slots {
    /// Takes a slot and returns its name for `user_data`.
    pub fn insert(&mut self, owner: Owner, work: Work) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, held: None });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 operations in flight")
        });
        let slot = &mut self.slots[index as usize];
        assert!(slot.held.is_none(), "a slot has one owner");
        slot.held = Some(InFlight { owner, work });
        self.in_flight += 1;
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    /// The operation of a completion, or none for `NOBODY` and for stale names.
    pub fn get_mut(&mut self, user_data: u64) -> Option<&mut InFlight> {
        let slot = self.slots.get_mut(user_data as u32 as usize)?;
        if slot.generation == (user_data >> 32) as u32 { slot.held.as_mut() } else { None }
    }

    /// Ends an operation and frees its slot under the next generation.
    pub fn remove(&mut self, user_data: u64) -> InFlight {
        let index = user_data as u32;
        let slot = &mut self.slots[index as usize];
        assert_eq!(slot.generation, (user_data >> 32) as u32, "a slot is freed once");
        let held = slot.held.take().expect("a slot in flight");
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.in_flight -= 1;
        held
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Token;

    #[test]
    fn a_stale_name_finds_nobody() {
        let mut slots = Slots::default();
        let first = slots.insert(Owner::Waiter, Work::Flush { file: FileId(0) });
        slots.remove(first);
        let second = slots.insert(Owner::Caller(Token(1)), Work::Flush { file: FileId(1) });
        assert_eq!(first as u32, second as u32, "the slot is reused");
        assert!(slots.get_mut(first).is_none());
        assert!(slots.get_mut(second).is_some());
        assert!(slots.get_mut(NOBODY).is_none());
        assert_eq!(slots.in_flight(), 1);
    }
}
