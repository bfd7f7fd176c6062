//! Several shards of one process on one thread: a turn returns at once, and the seed decides whose turn is next.
//!
//! A real turn that sleeps blocks its thread. Here it records how long it would sleep, returns what is there, and the shard counts as
//! asleep until [`World::next_turn`] picks it. What its loop does between that return and the pick happens early: it finds
//! nothing to do. If it pushes an operation all the same, it counts as awake.

use super::core::{Core, IoId, ProcessId};
use super::world::World;

impl World {
    /// From now on the turns of this process return at once, and `next_turn` says which of its drivers may have one.
    pub fn schedule_shards(&self, process: ProcessId) {
        self.core().scheduled.insert(process);
    }

    /// The driver, by order of creation, whose turn is next: one, by chance, of those that have completions, were woken, or need
    /// not sleep longer. Moves time on while there is none; an event outside of the process makes any of them return early.
    /// Fails where all sleep for ever.
    pub fn next_turn(&self, process: ProcessId) -> usize {
        self.core().next_turn(process)
    }

    /// `next_turn` does not pick this driver of the process, by order of creation, for so long: its core is busy with something else.
    pub fn stall_shard(&self, process: ProcessId, at: usize, ns: u64) {
        let mut core = self.core();
        core.note("stall", at as u64, ns);
        core.mark("shard_stalled");
        let until = core.now + ns;
        let io = core.ios.values_mut().filter(|io| io.process == process).nth(at);
        io.expect("a driver of the process").stalled_until = until;
    }
}

impl Core {
    pub fn is_scheduled(&self, io: IoId) -> bool {
        self.scheduled.contains(&self.ios[&io].process)
    }

    fn next_turn(&mut self, process: ProcessId) -> usize {
        self.attention = false;
        let ios: Vec<IoId> =
            self.ios.iter().filter(|(_, io)| io.process == process).map(|(id, _)| *id).collect();
        if ios.is_empty() {
            self.fail(format_args!("{process:?} has no driver"));
        }
        let early = self.faults.early_return;
        let mut early = self.rng.chance(early);
        loop {
            self.close_dropped();
            self.run_due();
            let others = self.ios.values().any(|io| io.process != process && !io.ready.is_empty());
            early |= self.attention || others;
            let may: Vec<usize> = (0..ios.len()).filter(|at| self.may_run(ios[*at])).collect();
            let awake: Vec<usize> = (0..ios.len()).filter(|at| !self.is_stalled(ios[*at])).collect();
            let among = if may.is_empty() && early { &awake } else { &may };
            let picked = match among.len() {
                0 => None,
                some => Some(among[self.rng.below(some as u64) as usize]),
            };
            if let Some(at) = picked {
                self.note("picked", u64::from(ios[at].0), may.len() as u64);
                // One that is not in a turn, but somewhere in its loop, just goes on.
                if self.ios[&ios[at]].wish.is_some() {
                    self.returned(ios[at]);
                }
                return at;
            }
            let deadline = ios.iter().filter_map(|io| self.next_wish(*io)).min().unwrap_or(u64::MAX);
            if !self.advance(deadline) && deadline == u64::MAX {
                self.fail("every shard sleeps, and nothing will wake one");
            }
        }
    }

    fn is_stalled(&self, io: IoId) -> bool {
        self.ios[&io].stalled_until > self.now
    }

    fn next_wish(&self, io: IoId) -> Option<u64> {
        if self.is_stalled(io) { Some(self.ios[&io].stalled_until) } else { self.ios[&io].wish }
    }

    fn may_run(&self, io: IoId) -> bool {
        let state = &self.ios[&io];
        if self.is_stalled(io) {
            return false;
        }
        let slept = state.wish.is_none_or(|until| until <= self.now);
        slept || !state.ready.is_empty() || state.woken || state.bell.is_rung()
    }

    /// A turn that slept returns.
    pub fn returned(&mut self, io: IoId) {
        let state = self.ios.get_mut(&io).expect("alive");
        state.wish = None;
        state.woken = false;
        state.announced = false;
        state.bell.silence();
        state.bell.flag().wake_up();
    }
}
