//! A thin layer of planned failures over the file operations of the real driver, for tests of what must survive them.

use crate::io::{Errno, Op};

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out and completes with this error.
    Fails(Errno),
    /// A write does half of its pages (none of a single one) and says so. A read does so at first, and the driver goes on. Others
    /// are carried out as usual.
    Short,
}

/// Which operations are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    FileOps,
    Reads,
    Writes,
    Flushes,
}

/// The faults to come: each strikes the `nth` (from 0) of the counted operations pushed after the plan was made.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    strikes: Vec<Strike>,
}

#[derive(Clone, Copy, Debug)]
struct Strike {
    counted: Counted,
    left: u64,
    fault: Fault,
}

impl FaultPlan {
    pub fn new() -> FaultPlan {
        FaultPlan::default()
    }

    pub fn strike(mut self, counted: Counted, nth: u64, fault: Fault) -> FaultPlan {
        self.strikes.push(Strike { counted, left: nth, fault });
        self
    }

    /// Counts one operation and says what happens to it.
    pub fn next(&mut self, op: &Op) -> Option<Fault> {
        if self.strikes.is_empty() || !is_file_op(op) {
            return None;
        }
        let mut hit = None;
        self.strikes.retain_mut(|strike| {
            if !strike.counted.counts(op) {
                return true;
            }
            if strike.left > 0 {
                strike.left -= 1;
                return true;
            }
            hit.get_or_insert(strike.fault);
            false
        });
        hit
    }
}

impl Counted {
    fn counts(self, op: &Op) -> bool {
        match self {
            Counted::FileOps => true,
            Counted::Reads => matches!(op, Op::Read { .. }),
            Counted::Writes => matches!(op, Op::Write { .. }),
            Counted::Flushes => matches!(op, Op::Flush { .. } | Op::SyncDir { .. }),
        }
    }
}

/// Closing a file is left out: Linux closes it whatever close(2) says.
fn is_file_op(op: &Op) -> bool {
    !matches!(
        op,
        Op::Accept { .. }
            | Op::CancelAccept { .. }
            | Op::Recv { .. }
            | Op::RecvOnce { .. }
            | Op::CancelRecv { .. }
            | Op::Send { .. }
            | Op::CloseConn { .. }
            | Op::DetachConn { .. }
            | Op::CloseFile { .. }
    )
}
