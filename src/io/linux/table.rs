//! Numbers for what is open, and the names of those who wait.

use crate::io::Token;

/// Who gets the `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Caller(Token),
    /// The driver's `wait`, which blocks for it.
    Waiter,
}

/// Dense numbers for what is open. A number is free again when its owner says so.
pub struct Table<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub fn new() -> Table<T> {
        Table { items: Vec::new(), free: Vec::new() }
    }

    pub fn insert(&mut self, item: T) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            u32::try_from(self.items.len() - 1).expect("fewer than 2^32 descriptors")
        });
        self.items[index as usize] = Some(item);
        index
    }

    /// What is open under `index`. Its absence is a bug of the layer above: it used an id after closing it.
    pub fn get(&self, index: u32) -> &T {
        self.items.get(index as usize).and_then(Option::as_ref).expect("an id that is open")
    }

    /// What is open under `index`, or none: for names that may be stale.
    pub fn find(&mut self, index: u32) -> Option<&mut T> {
        self.items.get_mut(index as usize).and_then(Option::as_mut)
    }

    pub fn get_mut(&mut self, index: u32) -> &mut T {
        self.items.get_mut(index as usize).and_then(Option::as_mut).expect("an id that is open")
    }

    /// Takes what is open out; its number stays in use until [`Table::release`].
    pub fn take(&mut self, index: u32) -> T {
        self.items[index as usize].take().expect("an id that is open")
    }

    pub fn release(&mut self, index: u32) {
        assert!(self.items[index as usize].is_none(), "a number in use is not released");
        self.free.push(index);
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut().flatten()
    }
}
