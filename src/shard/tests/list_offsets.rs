use super::rig::{Rig, batch, batch_at, part, poll};
use crate::io::Op;
use crate::log::store::Durability;
use crate::router::message::Fetch;

/// Three records at 1, 2 and 3 ms that nobody asked for in a while: they are in no memory, and their file is closed.
fn quiet() -> Rig {
    let mut rig = Rig::with_tail_cache(Durability::Durable, 0);
    for timestamp in 1..=3 {
        rig.produce(0, &[(0, &batch_at(timestamp, 100))]);
    }
    rig.run(100_000);
    rig.replies.clear();
    rig
}

/// Reads of the log are in flight when an append opens its file for writing; they end before that is open.
fn read_while_an_append_opens_the_file(rig: &mut Rig, begin: impl FnOnce(&mut Rig) -> u64) -> u64 {
    rig.hold = |op| matches!(op, Op::Read { .. });
    let asked = begin(rig);
    rig.run(100);
    assert_eq!(rig.held.len(), 1, "one read");
    rig.hold = |op| matches!(op, Op::Read { .. } | Op::OpenFile { .. });
    rig.produce(0, &[(0, &batch(100))]);
    rig.run(100);
    assert!(matches!(rig.held[1..], [(Op::OpenFile { .. }, _)]), "the file, for writing");
    let opening = rig.held.pop().expect("an open");
    rig.release();
    rig.hold = |op| matches!(op, Op::OpenFile { .. });
    rig.run(100);
    rig.held.push(opening);
    asked
}

#[test]
fn a_search_finds_the_first_record_at_or_after_a_time() {
    let mut rig = quiet();
    for (timestamp, offset) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, -1), (-1, 3), (-2, 0), (-3, 2)] {
        let search = rig.list_offset(0, timestamp);
        rig.run(100);
        let found = rig.listed(search);
        assert_eq!((found.error, found.offset), (None, offset), "{timestamp}");
    }
}

/// The read was of a file that is being replaced by another handle, so there is nothing to look at yet: that was answered as "no such
/// record", and a consumer that seeks by time went to the end.
#[test]
fn a_search_waits_for_a_file_that_is_opened_again() {
    let mut rig = quiet();
    let search = read_while_an_append_opens_the_file(&mut rig, |rig| rig.list_offset(0, 2));
    assert!(!rig.is_answered(search), "{:?}", rig.listed(search));
    rig.release();
    rig.run(100);
    let found = rig.listed(search);
    assert_eq!((found.error, found.offset), (None, 1));
}

/// The same for a fetch, which was answered with nothing long before its time was over.
#[test]
fn a_fetch_waits_for_a_file_that_is_opened_again() {
    for at_once in [false, true] {
        let mut rig = quiet();
        let size = 3 * batch_at(1, 100).len();
        let fetch = Fetch { at_once, ..poll([part(0, 0)]) };
        let fetch = read_while_an_append_opens_the_file(&mut rig, |rig| rig.fetch(fetch));
        assert!(!rig.is_answered(fetch), "{:?}", rig.sizes(fetch));
        rig.release();
        rig.run(100);
        assert!(rig.sizes(fetch)[0].0 >= size, "all that was there");
    }
}
