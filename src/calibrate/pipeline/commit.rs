//! Group commit over the files of one device: everything staged becomes one round with one durability point.
//!
//! One dirty file: its writes are durable by themselves (`Dsync`). Several, or storage that does better with a flush apart: plain
//! writes, then one flush where a flush covers the
//! device, else one for each file. Rounds are acknowledged in the order in which they were made.

use std::collections::VecDeque;

use super::log::{Owed, RingLog, StagedWrite};
use crate::base::limits::ROUNDS_IN_FLIGHT_MAX;
use crate::io::{Io, Op, StorageCaps, Token, WriteSync};

struct Round {
    writes_left: usize,
    flushes_left: usize,
    /// Files (by number) to flush once the writes have completed.
    to_flush: Vec<usize>,
    owed: Vec<Owed>,
}

impl Round {
    fn is_durable(&self) -> bool {
        self.writes_left == 0 && self.flushes_left == 0 && self.to_flush.is_empty()
    }
}

/// The rounds in flight. An operation of one is named by its round and, for a write, its file.
pub struct Rounds {
    rounds: VecDeque<Round>,
    /// Number of the oldest round in flight.
    first: u32,
    shared_flush: bool,
    flush_apart: bool,
    staged: Vec<StagedWrite>,
    pub rounds_total: u64,
    pub writes_total: u64,
    pub bytes_total: u64,
}

impl Rounds {
    pub fn new(caps: &StorageCaps) -> Rounds {
        Rounds {
            rounds: VecDeque::new(),
            first: 0,
            shared_flush: caps.shared_flush && caps.shared_flush_tested,
            flush_apart: caps.flush_apart,
            staged: Vec::new(),
            rounds_total: 0,
            writes_total: 0,
            bytes_total: 0,
        }
    }

    /// Makes a round of what is due, if another may be in flight. `name` makes the token of `(round, file)`.
    pub fn plan(&mut self, logs: &mut [RingLog], io: &mut Io, name: impl Fn(u32, usize) -> Token) {
        if self.rounds.len() >= ROUNDS_IN_FLIGHT_MAX {
            return;
        }
        let due: Vec<usize> = (0..logs.len()).filter(|i| logs[*i].is_due()).collect();
        let Some((&first, others)) = due.split_first() else {
            return;
        };
        let number = self.first.wrapping_add(self.rounds.len() as u32);
        let sync = if others.is_empty() && !self.flush_apart { WriteSync::Dsync } else { WriteSync::No };
        let mut round = Round { writes_left: 0, flushes_left: 0, to_flush: Vec::new(), owed: Vec::new() };
        for &i in &due {
            let log = &mut logs[i];
            log.take_staged(&mut self.staged);
            round.writes_left += self.staged.len();
            log.writes_in_flight += self.staged.len();
            round.owed.append(&mut log.owed);
            for StagedWrite { offset, data } in self.staged.drain(..) {
                self.writes_total += 1;
                self.bytes_total += data.len() as u64;
                io.push(Op::Write { file: log.file, offset, data, sync }, name(number, i));
            }
        }
        if sync == WriteSync::No {
            round.to_flush = if self.shared_flush { vec![first] } else { due };
        }
        self.rounds_total += 1;
        self.rounds.push_back(round);
    }

    /// A write of a round has completed.
    pub fn written(&mut self, number: u32, logs: &[RingLog], io: &mut Io, name: impl Fn(u32) -> Token) {
        let round = &mut self.rounds[number.wrapping_sub(self.first) as usize];
        round.writes_left -= 1;
        if round.writes_left == 0 {
            for i in round.to_flush.drain(..) {
                round.flushes_left += 1;
                io.push(Op::Flush { file: logs[i].file }, name(number));
            }
        }
    }

    pub fn flushed(&mut self, number: u32) {
        self.rounds[number.wrapping_sub(self.first) as usize].flushes_left -= 1;
    }

    /// Requests that are durable, oldest round first.
    pub fn acknowledged(&mut self) -> Option<Vec<Owed>> {
        if !self.rounds.front()?.is_durable() {
            return None;
        }
        self.first = self.first.wrapping_add(1);
        self.rounds.pop_front().map(|round| round.owed)
    }
}
