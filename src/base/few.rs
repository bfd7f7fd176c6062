//! Hot path. A list that nearly always has one element: the first lies inline, and only a second one allocates.

use std::ops::{Index, IndexMut};

/// In the order in which they were pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few { first: None, rest: Vec::new() }
    }
}

impl<T> Few<T> {
    /// Memory for `len` elements.
    pub fn with_capacity(len: usize) -> Few<T> {
        Few { first: None, rest: Vec::with_capacity(len.saturating_sub(1)) }
    }

    pub fn push(&mut self, value: T) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.rest.push(value),
        }
    }

    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.rest)
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Few<T> {
        let mut values = values.into_iter();
        Few { first: values.next(), rest: values.collect() }
    }
}

impl<T> Index<usize> for Few<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        match at {
            0 => self.first.as_ref().expect("an element at 0"),
            _ => &self.rest[at - 1],
        }
    }
}

impl<T> IndexMut<usize> for Few<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        match at {
            0 => self.first.as_mut().expect("an element at 0"),
            _ => &mut self.rest[at - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Few;

    #[test]
    fn it_is_a_list() {
        let mut few = Few::default();
        for len in 0..4usize {
            assert_eq!((few.len(), few.is_empty()), (len, len == 0));
            assert_eq!(few.iter().copied().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
            assert!((0..len).all(|at| few[at] == at));
            assert_eq!((0..len).collect::<Few<usize>>(), few);
            few.push(len);
        }
        few.iter_mut().for_each(|value| *value *= 2);
        few[0] = 7;
        few[2] = 8;
        assert_eq!(few.into_iter().collect::<Vec<_>>(), [7, 2, 8, 6]);
    }
}
