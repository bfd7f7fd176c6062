//! Which driver of the io seam the shards run on.

/// A value of the key `runtime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// The best that works here.
    #[default]
    Auto,
    /// io_uring.
    Uring,
    /// epoll, and threads for files.
    Epoll,
}

impl Runtime {
    /// In the order of [`Runtime::NAMES`].
    const ALL: &[Runtime] = &[Runtime::Auto, Runtime::Uring, Runtime::Epoll];

    /// What the key `runtime` takes.
    pub const NAMES: &[&str] = &["auto", "uring", "epoll"];

    pub fn parse(name: &str) -> Option<Runtime> {
        let at = Runtime::NAMES.iter().position(|known| *known == name)?;
        Some(Runtime::ALL[at])
    }

    pub fn name(self) -> &'static str {
        let at = Runtime::ALL.iter().position(|runtime| *runtime == self);
        Runtime::NAMES[at.expect("listed")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_match() {
        assert_eq!(Runtime::NAMES.len(), Runtime::ALL.len());
        for name in Runtime::NAMES {
            assert_eq!(Runtime::parse(name).map(Runtime::name), Some(*name));
        }
        assert_eq!(Runtime::parse("auto"), Some(Runtime::default()));
        assert_eq!(Runtime::parse("Uring"), None);
    }
}
