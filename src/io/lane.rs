//! Hot path. The bounded lane between two threads: one pushes, the other pops, and neither ever waits for the other.
//!
//! A power-of-two ring of slots and two positions that only grow. Each side owns one of them and keeps a copy of the other's,
//! which it refreshes only when the copy says full or empty: while a lane is neither, the two sides share no cache line but
//! the slots themselves. `tests/loom` runs this file under a model checker.

use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use super::sync::{Arc, AtomicUsize, Cell, Ordering};

/// A lane of `capacity` (at least 1) values: the side that pushes and the side that pops. What is left in it when both sides are gone is dropped.
pub fn lane<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a lane of nothing");
    let slots = (0..capacity.next_power_of_two()).map(|_| Cell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        popped: CachePadded::new(AtomicUsize::new(0)),
        pushed: CachePadded::new(AtomicUsize::new(0)),
        capacity,
        slots,
    });
    (
        Sender { shared: shared.clone(), pushed: 0, popped_seen: 0 },
        Receiver { shared, popped: 0, pushed_seen: 0 },
    )
}

struct Shared<T> {
    /// Values popped since the start: moved by the receiver alone. Wraps around.
    popped: CachePadded<AtomicUsize>,
    /// Values pushed since the start: moved by the sender alone.
    pushed: CachePadded<AtomicUsize>,
    capacity: usize,
    slots: Box<[Cell<MaybeUninit<T>>]>,
}

// SAFETY: the slots from `popped` to `pushed` are touched by the receiver alone, the others by the sender alone, and a slot changes
// sides by the release store and acquire load of a position. Values only move between the two threads, so `T: Send` is enough.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; `Shared` owns its values.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &Cell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut at, end) = (self.popped.load(Ordering::Acquire), self.pushed.load(Ordering::Acquire));
        while at != end {
            // SAFETY: slots from `popped` to `pushed` are initialised, and both sides are gone.
            self.slot(at).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            at = at.wrapping_add(1);
        }
    }
}

/// The side that pushes. May move to another thread.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    pushed: usize,
    /// What `popped` was when last looked at.
    popped_seen: usize,
}

impl<T: Send> Sender<T> {
    /// Appends `value`, or gives it back when the lane is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.room_seen() == 0 && self.free() == 0 {
            return Err(value);
        }
        // SAFETY: the slot is free: the receiver has left it (acquired by `free`), and looks at it only after the store below.
        self.shared.slot(self.pushed).with_mut(|slot| unsafe { (*slot).write(value) });
        self.pushed = self.pushed.wrapping_add(1);
        self.shared.pushed.store(self.pushed, Ordering::Release);
        Ok(())
    }

    /// Values that can be pushed now.
    fn free(&mut self) -> usize {
        self.popped();
        self.room_seen()
    }

    /// Values pushed since the start. Wraps around.
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// How many of them were popped.
    pub fn popped(&mut self) -> usize {
        self.popped_seen = self.shared.popped.load(Ordering::Acquire);
        self.popped_seen
    }

    fn room_seen(&self) -> usize {
        self.shared.capacity - self.pushed.wrapping_sub(self.popped_seen)
    }
}

/// The side that pops. May move to another thread.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    popped: usize,
    /// What `pushed` was when last looked at.
    pushed_seen: usize,
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest value.
    pub fn pop(&mut self) -> Option<T> {
        if self.popped == self.pushed_seen {
            self.pushed_seen = self.shared.pushed.load(Ordering::Acquire);
            if self.popped == self.pushed_seen {
                return None;
            }
        }
        // SAFETY: the slot was filled before the store that `pushed_seen` acquired, and the sender leaves it alone until the store below.
        let value = self.shared.slot(self.popped).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.popped = self.popped.wrapping_add(1);
        self.shared.popped.store(self.popped, Ordering::Release);
        Some(value)
    }

    /// Nothing can be popped now. The re-check of the sleep protocol: it looks at the lane itself, not at what was seen before.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values that can be popped now.
    pub fn len(&self) -> usize {
        self.shared.pushed.load(Ordering::Acquire).wrapping_sub(self.popped)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_full_lane_gives_the_value_back() {
        let (mut tx, mut rx) = lane(3);
        assert!(rx.is_empty() && tx.free() == 3);
        (0..3).for_each(|i| assert_eq!(tx.push(i), Ok(())));
        assert_eq!((tx.push(3), tx.free(), rx.len()), (Err(3), 0, 3));
        assert_eq!(rx.pop(), Some(0));
        assert_eq!((tx.push(3), tx.push(4)), (Ok(()), Err(4)));
        let rest: Vec<i32> = std::iter::from_fn(|| rx.pop()).collect();
        assert_eq!((rest, rx.is_empty()), (vec![1, 2, 3], true));
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        let counted = std::sync::Arc::new(());
        let (mut tx, mut rx) = lane(4);
        (0..4).for_each(|_| assert!(tx.push(counted.clone()).is_ok()));
        drop(rx.pop());
        drop(tx);
        assert_eq!(std::sync::Arc::strong_count(&counted), 4);
        drop(rx);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }

    #[test]
    fn values_cross_in_order() {
        const COUNT: u64 = 200_000;
        let (mut tx, mut rx) = lane(7);
        let sender = thread::spawn(move || {
            for mut value in (0..COUNT).map(|i| vec![i]) {
                while let Err(back) = tx.push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..COUNT {
            let value = loop {
                match rx.pop() {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(value, [expected]);
        }
        sender.join().expect("all sent");
        assert!(rx.is_empty());
    }
}
