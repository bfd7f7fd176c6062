//! Hot path. The flag by which a thread says that it is about to sleep, so that others wake it only when they must.
//!
//! ```text
//! sleeper                                  sender
//! announce   flag = ANNOUNCED, fence       push into the lane
//! re-check its lanes                       call   fence, flag: AWAKE -> nothing to do
//! fall_asleep  ANNOUNCED -> ASLEEP                      ANNOUNCED -> AWAKE: the sleeper notices by itself
//! sleep                                                 ASLEEP -> AWAKE: wake it
//! wake_up    flag = AWAKE
//! ```
//! Of the two fences one is first: either the re-check finds what was pushed, or the sender finds the flag. Between
//! announcing and falling asleep the sleeper may spin: whoever calls it then takes the flag away and needs no system call.
//! `tests/loom` runs this file under a model checker.

use super::sync::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const ANNOUNCED: u32 = 1;
const ASLEEP: u32 = 2;

pub struct SleepFlag(AtomicU32);

impl SleepFlag {
    pub fn new() -> SleepFlag {
        SleepFlag(AtomicU32::new(AWAKE))
    }

    /// Sleeper: from here on every sender calls. Only what is re-checked after this may decide about sleeping.
    pub fn announce(&self) {
        self.0.swap(ANNOUNCED, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Sleeper: somebody has called since `announce`.
    pub fn was_called(&self) -> bool {
        self.0.load(Ordering::Acquire) == AWAKE
    }

    /// Sleeper, after `announce`: false if somebody has called meanwhile. After true, callers send a wake-up.
    pub fn fall_asleep(&self) -> bool {
        self.0.compare_exchange(ANNOUNCED, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Sleeper: it runs again.
    pub fn wake_up(&self) {
        self.0.swap(AWAKE, Ordering::AcqRel);
    }

    /// Sender, after its push: true if it has to send a wake-up, which makes it the only one.
    pub fn call(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) != AWAKE && self.0.swap(AWAKE, Ordering::AcqRel) == ASLEEP
    }
}

impl Default for SleepFlag {
    fn default() -> SleepFlag {
        SleepFlag::new()
    }
}
