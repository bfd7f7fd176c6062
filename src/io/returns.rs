//! Hot path. The receive buffers on their way back: put here by whoever drops one, on any thread, and taken by the thread that owns the
//! pool. `tests/loom` runs this file under a model checker.
//!
//! A stack of numbers, linked through an array. It is only ever taken as a whole, so that the head cannot return to an old
//! value behind a half-done removal.

use super::sync::{AtomicU32, Ordering};

const NONE: u32 = u32::MAX;

pub struct Returns {
    head: AtomicU32,
    /// By number: the one below it.
    below: Box<[AtomicU32]>,
}

impl Returns {
    /// For the numbers below `count`; none of them is here at first.
    pub fn new(count: u16) -> Returns {
        Returns { head: AtomicU32::new(NONE), below: (0..count).map(|_| AtomicU32::new(NONE)).collect() }
    }

    /// Puts `id` here. It must not be here already.
    pub fn put(&self, id: u16) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.below[usize::from(id)].store(head, Ordering::Relaxed);
            // Release: what was read from the buffer was read before it goes back.
            let put =
                self.head.compare_exchange_weak(head, u32::from(id), Ordering::Release, Ordering::Relaxed);
            match put {
                Ok(_) => return,
                Err(other) => head = other,
            }
        }
    }

    /// Appends everything that is here to `into`, and leaves nothing.
    pub fn take_all(&self, into: &mut Vec<u16>) {
        if self.head.load(Ordering::Relaxed) == NONE {
            return;
        }
        let mut at = self.head.swap(NONE, Ordering::Acquire);
        while at != NONE {
            into.push(at as u16);
            at = self.below[at as usize].load(Ordering::Relaxed);
        }
    }
}
