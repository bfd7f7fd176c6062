//! Hot path. When the writes of a log were submitted and completed, for the requests whose records they hold.

use std::collections::VecDeque;

use crate::base::offset::Offset;
use crate::io::Mono;

/// Writes remembered per log. More are passed at once only where a backlog is flushed: then its first requests are told the times of a
/// later write.
const MARKS_MAX: usize = 32;

/// A write, by the offset behind the last record it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    number: u64,
    next_offset: Offset,
    pub submitted: Mono,
    /// 0 while it is in flight.
    pub written: Mono,
}

/// The newest writes of one log, in log order.
#[derive(Debug, Default)]
pub struct Marks(VecDeque<Mark>);

impl Marks {
    /// Write `number` of the log's ledger, which reaches to `next_offset`, was submitted.
    pub fn submitted(&mut self, number: u64, next_offset: Offset, now: Mono) {
        if self.0.len() == MARKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Mark { number, next_offset, submitted: now, written: Mono(0) });
    }

    /// It completed at full length.
    pub fn written(&mut self, number: u64, now: Mono) {
        if let Some(mark) = self.0.iter_mut().find(|mark| mark.number == number) {
            mark.written = now;
        }
    }

    /// The write that holds the record before `next_offset`. Asked with ascending offsets: earlier writes are forgotten.
    pub fn pass(&mut self, next_offset: Offset) -> Option<Mark> {
        while self.0.front().is_some_and(|mark| mark.next_offset < next_offset) {
            self.0.pop_front();
        }
        self.0.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_of_its_own_write() {
        let mut marks = Marks::default();
        for number in 0..3u64 {
            marks.submitted(number, Offset(number as i64 * 10 + 10), Mono(100 + number));
        }
        marks.written(1, Mono(200));
        marks.written(0, Mono(201));
        let of = |mark: Option<Mark>| mark.map(|mark| (mark.submitted.0, mark.written.0));
        assert_eq!(of(marks.pass(Offset(10))), Some((100, 201)));
        assert_eq!(of(marks.pass(Offset(11))), Some((101, 200)));
        assert_eq!(of(marks.pass(Offset(20))), Some((101, 200)));
        assert_eq!(of(marks.pass(Offset(30))), Some((102, 0)));
        assert_eq!(of(marks.pass(Offset(31))), None);
    }

    #[test]
    fn a_backlog_is_forgotten_from_the_front() {
        let mut marks = Marks::default();
        for number in 0..1000u64 {
            marks.submitted(number, Offset(number as i64 + 1), Mono(number + 1));
        }
        assert_eq!(marks.0.len(), MARKS_MAX);
        assert_eq!(marks.pass(Offset(1)).map(|mark| mark.submitted.0), Some(1000 - MARKS_MAX as u64 + 1));
    }
}
