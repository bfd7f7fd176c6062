//! The image that is in force, for every shard of the process: published by the controller's shard, looked at by all.
//!
//! Looking costs one atomic load per turn; only a changed revision takes the lock, for as long as copying a pointer takes. An answer
//! that shows a change leaves after it was published, so whoever learned of it finds it on every shard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::image::Image;

pub struct Published {
    revision: AtomicU64,
    image: Mutex<Arc<Image>>,
}

impl Published {
    pub fn new(image: Arc<Image>) -> Published {
        Published { revision: AtomicU64::new(image.revision), image: Mutex::new(image) }
    }

    pub fn set(&self, image: Arc<Image>) {
        let revision = image.revision;
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = image;
        self.revision.store(revision, Ordering::Release);
    }

    /// The image, if it is another one than that of `revision`.
    pub fn newer_than(&self, revision: u64) -> Option<Arc<Image>> {
        if self.revision.load(Ordering::Acquire) == revision {
            return None;
        }
        Some(self.image.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
