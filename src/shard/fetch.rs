//! Fetch on the partition's own core: look, read what is cold, park until there is enough or the client's patience ends.

use super::parked::{FetchWaiter, Listed, Parked, ParkedId};
use super::{Cx, Shard};
use crate::base::error::Refused;
use crate::base::few::Few;
use crate::base::ids::LeaderEpoch;
use crate::base::metrics::{Stamp, Stamps};
use crate::io::Errno;
use crate::io::Mono;
use crate::io::buffer::Block;
use crate::log::store::{ColdRead, ReadPlan, ReadRequest, Records};
use crate::router::message::{Fetch, FetchOutcome, FetchPart, ReplyBody};

/// A fetch that waits, for records or for reads.
pub struct FetchState {
    pub serial: u64,
    pub fetch: Fetch,
    deadline: Mono,
    /// Where each part stands in the list of its log; empty before the first wait.
    listed: Few<Option<Listed>>,
    /// It stands among those that the events at hand woke.
    woken: bool,
    /// It stands among the starved.
    pub starved: bool,
    outcomes: Few<FetchOutcome>,
    /// Reads of these parts are in flight.
    reads: Vec<(usize, ColdRead)>,
    pub reads_pending: usize,
    /// A read found that its file is being opened again.
    opening: bool,
    stamps: Stamps,
}

/// One look at all parts of a fetch.
struct Look {
    outcomes: Few<FetchOutcome>,
    cold: Vec<(usize, ColdRead)>,
    bytes: usize,
    /// An error or a divergence: the client wants to know at once.
    urgent: bool,
    /// A file that holds records for it is being opened.
    opening: bool,
    /// More records are there than one answer can bring: nothing to wait for.
    cut_short: bool,
}

/// Where the records of a part are.
enum Planned {
    Now,
    Cold(ColdRead),
    Opening,
}

/// Why a fetch is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    First,
    News,
    Deadline,
    /// The broker stops: answer with what there is.
    Drain,
}

impl Shard {
    pub(super) fn fetch(&mut self, fetch: Fetch, cx: &mut Cx<'_>) {
        let deadline = cx.now.plus_ms(fetch.max_wait_ms.max(0) as u64);
        let state = FetchState {
            serial: self.next_serial(),
            deadline,
            listed: Few::default(),
            woken: false,
            starved: false,
            outcomes: Few::default(),
            reads: Vec::new(),
            reads_pending: 0,
            opening: false,
            stamps: self.owned(fetch.ticket, cx),
            fetch,
        };
        let id = self.park(Parked::Fetch(state), None);
        self.go_on_with_fetch(id, Occasion::First, cx);
    }

    /// Records may have come, or memory: look again.
    pub(super) fn wake_fetch(&mut self, id: ParkedId, cx: &mut Cx<'_>) {
        self.go_on_with_fetch(id, Occasion::News, cx);
    }

    /// Takes everything off the list of a log, to be looked at by `look_at_woken`: once, however many logs have news for it.
    pub(super) fn wake_listed(&mut self, listed: &mut Vec<FetchWaiter>) {
        for waiter in listed.drain(..) {
            let Some(Parked::Fetch(state)) = self.parked_mut(waiter.id) else { continue };
            state.listed[waiter.part] = None;
            if !std::mem::replace(&mut state.woken, true) {
                self.woken.push(waiter.id);
            }
        }
    }

    /// Behind all events at hand. Those that go on waiting list themselves again.
    pub(super) fn look_at_woken(&mut self, cx: &mut Cx<'_>) {
        let mut woken = std::mem::take(&mut self.woken);
        for id in woken.drain(..) {
            if let Some(Parked::Fetch(state)) = self.parked_mut(id) {
                state.woken = false;
                self.wake_fetch(id, cx);
            }
        }
        self.woken = woken;
    }

    /// The wait is over: answer with what there is.
    pub(super) fn time_out_fetch(&mut self, id: ParkedId, cx: &mut Cx<'_>) {
        self.go_on_with_fetch(id, Occasion::Deadline, cx);
    }

    pub(super) fn drain_fetch(&mut self, id: ParkedId, cx: &mut Cx<'_>) {
        self.go_on_with_fetch(id, Occasion::Drain, cx);
    }

    fn go_on_with_fetch(&mut self, id: ParkedId, occasion: Occasion, cx: &mut Cx<'_>) {
        let Some(Parked::Fetch(state)) = self.parked_mut(id) else { return };
        if state.reads_pending > 0 {
            return;
        }
        // Taken out for the look, which borrows the logs, and put back below.
        let parts = std::mem::take(&mut state.fetch.parts);
        let (max_bytes, read_committed) = (state.fetch.max_bytes, state.fetch.read_committed);
        let enough = state.fetch.min_bytes.max(0) as usize;
        let (at_once, deadline) = (state.fetch.at_once || parts.is_empty(), state.deadline);
        let look = self.look(&parts, max_bytes, read_committed);
        // A file is open within a moment: an empty answer would only make the client ask again.
        let opening = look.opening && look.bytes == 0 && !look.urgent;
        let has_enough = look.bytes >= enough || look.cut_short;
        let patient = !at_once && !look.urgent && !has_enough && deadline > cx.now;
        let answer = occasion == Occasion::Drain || !(opening || patient);
        let Some(Parked::Fetch(state)) = self.parked_mut(id) else { return };
        state.fetch.parts = parts;
        if !answer {
            if occasion == Occasion::First {
                state.stamps.set(Stamp::Parked, cx.clock.now().0);
            }
            // The plans are dropped with the look: they hold no memory but pins, and files stay open only for reads.
            self.drop_cold(look.cold);
            return self.wait_for_records(id, deadline);
        }
        if state.stamps.get(Stamp::Parked) > 0 {
            state.stamps.set_behind(Stamp::Woken, Stamp::Parked, cx.now.0);
        }
        state.stamps.set(Stamp::Submitted, cx.clock.now().0);
        state.outcomes = look.outcomes;
        if look.cold.is_empty() {
            return self.finish_fetch(id, cx);
        }
        // One that cannot wait at all waits for the end of its turn, when the pool may grow.
        let over = occasion == Occasion::Drain || deadline < cx.now;
        self.read_cold(id, look.cold, over, cx);
    }

    fn look(&mut self, parts: &Few<FetchPart>, max_bytes: i32, read_committed: bool) -> Look {
        let mut look = Look {
            outcomes: Few::with_capacity(parts.len()),
            cold: Vec::new(),
            bytes: 0,
            urgent: false,
            opening: false,
            cut_short: false,
        };
        for (i, part) in parts.iter().enumerate() {
            let left = (max_bytes.max(0) as usize).saturating_sub(look.bytes);
            let outcome = match self.look_at(part, left as u32, look.bytes == 0, read_committed) {
                Err(error) => {
                    look.urgent = true;
                    FetchOutcome::refused(error)
                }
                Ok((outcome, Planned::Opening)) => {
                    look.opening = true;
                    outcome
                }
                Ok((outcome, planned)) => {
                    look.urgent |= outcome.diverging.is_some();
                    look.bytes += outcome.records.bytes;
                    if let Planned::Cold(cold) = planned {
                        look.cut_short |= self.store.is_cut_short(&cold);
                        look.bytes += cold.lens.iter().map(|len| *len as usize).sum::<usize>();
                        look.cold.push((i, cold));
                    }
                    outcome
                }
            };
            look.outcomes.push(outcome);
        }
        look
    }

    fn look_at(
        &mut self,
        part: &FetchPart,
        bytes_left: u32,
        at_least_one: bool,
        read_committed: bool,
    ) -> Result<(FetchOutcome, Planned), Refused> {
        let (slot, bounds) = self.current(&part.key, part.current_epoch)?;
        let mut outcome = FetchOutcome {
            error: None,
            high_watermark: bounds.high_watermark,
            last_stable: bounds.last_stable,
            log_start: bounds.log_start,
            diverging: None,
            records: Records::default(),
        };
        if part.last_fetched_epoch != LeaderEpoch::NONE {
            let (epoch, end) = self.epoch_end(slot, &bounds, part.last_fetched_epoch);
            if epoch == LeaderEpoch::NONE {
                return Err(Refused::OffsetOutOfRange);
            }
            if epoch < part.last_fetched_epoch || end < part.from {
                outcome.diverging = Some((epoch, end));
                return Ok((outcome, Planned::Now));
            }
        }
        if part.from < bounds.log_start.get() || part.from > bounds.log_end.get() {
            return Err(Refused::OffsetOutOfRange);
        }
        let request = ReadRequest {
            from: part.from,
            until: Shard::until(&bounds, read_committed),
            bytes_max: bytes_left.min(part.bytes_max.max(0) as u32),
            at_least_one,
        };
        if !at_least_one && request.bytes_max == 0 {
            return Ok((outcome, Planned::Now));
        }
        match self.store.plan_read(slot, request) {
            ReadPlan::Ready(records) => outcome.records = records,
            ReadPlan::Empty => {}
            ReadPlan::Refused(error) => return Err(error),
            ReadPlan::Cold(cold) => return Ok((outcome, Planned::Cold(cold))),
            ReadPlan::Opening => return Ok((outcome, Planned::Opening)),
        }
        Ok((outcome, Planned::Now))
    }

    /// Lists the request with the logs it waits on; its deadline is set once, at the first wait.
    fn wait_for_records(&mut self, id: ParkedId, deadline: Mono) {
        let parked = self.parked.get_mut(id.index).filter(|it| it.serial() == id.serial);
        let Some(Parked::Fetch(FetchState { fetch, listed, .. })) = parked else { return };
        let first = listed.is_empty();
        if first {
            *listed = fetch.parts.iter().map(|_| None).collect();
        }
        for (part, (asked, listed)) in fetch.parts.iter().zip(listed.iter_mut()).enumerate() {
            if listed.is_some() {
                continue;
            }
            let Some(partition) = self.partitions.get(&asked.key) else { continue };
            let log = partition.slot.index as usize;
            let fetches = &mut self.waiters[log].fetches;
            *listed = Some(Listed { log, at: fetches.len() });
            fetches.push(FetchWaiter { id, part });
        }
        let ticket = fetch.ticket;
        if first {
            if ticket.shard != self.id {
                self.polls.push(ticket);
            }
            self.look_again(id, deadline);
        }
    }

    /// Takes a parked fetch off the lists of its logs; whoever stood last in one takes its place there.
    pub(super) fn unlist_fetch(&mut self, id: ParkedId) {
        for part in 0.. {
            let Some(Parked::Fetch(state)) = self.parked_mut(id) else { return };
            if part == state.listed.len() {
                return;
            }
            let Some(Listed { log, at }) = state.listed[part].take() else { continue };
            let fetches = &mut self.waiters[log].fetches;
            let left = fetches.swap_remove(at);
            assert!((left.id, left.part) == (id, part), "a fetch stands where it was listed");
            if let Some(moved) = fetches.get(at).copied()
                && let Some(Parked::Fetch(state)) = self.parked_mut(moved.id)
            {
                state.listed[moved.part] = Some(Listed { log, at });
            }
        }
    }

    /// Without memory it answers with what it has, or waits for memory unless its time is `over`.
    fn read_cold(&mut self, id: ParkedId, cold: Vec<(usize, ColdRead)>, over: bool, cx: &mut Cx<'_>) {
        let mut starved = true;
        let mut started = Vec::new();
        for (part, mut read) in cold {
            if self.start_reads(&mut read, id, part, cx) {
                starved = false;
                started.push((part, read));
            } else {
                self.store.drop_read(read);
            }
        }
        let Some(Parked::Fetch(state)) = self.parked_mut(id) else { return };
        let has_records = state.outcomes.iter().any(|o| o.records.bytes > 0 || o.error.is_some());
        state.reads_pending = started.len();
        state.reads = started;
        match (starved, has_records || over) {
            (false, _) => {}
            (true, true) => self.finish_fetch(id, cx),
            (true, false) => {
                if !std::mem::replace(&mut state.starved, true) {
                    self.starved.push_back(id);
                }
            }
        }
    }

    fn drop_cold(&mut self, cold: Vec<(usize, ColdRead)>) {
        for (_, read) in cold {
            self.store.drop_read(read);
        }
    }

    pub(super) fn fetch_read_done(
        &mut self,
        id: ParkedId,
        part: usize,
        blocks: Result<Vec<Block>, Errno>,
        cx: &mut Cx<'_>,
    ) {
        let Some(Parked::Fetch(state)) = self.parked_mut(id) else { return };
        let Some(at) = state.reads.iter().position(|(p, _)| *p == part) else { return };
        let (_, read) = state.reads.swap_remove(at);
        let plan = self.store.finish_read(read, blocks);
        let mut again = None;
        let Some(Parked::Fetch(state)) = self.parked_mut(id) else { return };
        match plan {
            ReadPlan::Ready(records) => state.outcomes[part].records = records,
            ReadPlan::Empty => {}
            ReadPlan::Opening => state.opening = true,
            ReadPlan::Refused(error) => state.outcomes[part] = FetchOutcome::refused(error),
            ReadPlan::Cold(read) => again = Some(read),
        }
        if let Some(mut read) = again {
            if self.start_reads(&mut read, id, part, cx) {
                if let Some(Parked::Fetch(state)) = self.parked_mut(id) {
                    state.reads.push((part, read));
                }
                return;
            }
            self.store.drop_read(read);
        }
        let Some(Parked::Fetch(state)) = self.parked_mut(id) else { return };
        state.reads_pending -= 1;
        if state.reads_pending > 0 {
            return;
        }
        let nothing =
            |it: &FetchOutcome| it.records.bytes == 0 && it.error.is_none() && it.diverging.is_none();
        if std::mem::take(&mut state.opening) && state.outcomes.iter().all(nothing) {
            return self.wake_fetch(id, cx);
        }
        self.finish_fetch(id, cx);
    }

    fn finish_fetch(&mut self, id: ParkedId, cx: &Cx<'_>) {
        if let Some(Parked::Fetch(mut state)) = self.unpark(id) {
            state.stamps.set_behind(Stamp::Written, Stamp::Submitted, cx.now.0);
            self.reply_stamped(state.fetch.ticket, ReplyBody::Fetch(state.outcomes), state.stamps);
        }
    }
}
