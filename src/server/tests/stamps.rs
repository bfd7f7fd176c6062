//! A delay shows in the stage that it is in, and in no other.

use super::rig::{Rig, fetch, produce};
use crate::base::metrics::{Path, STAMPS, Stages, Stamp};
use crate::io::Op;

const MS: u64 = 1_000_000;

/// That one request of `path` passed all its stamps, with these milliseconds in the stages that end at them and 0 in all others.
fn check(stages: &Stages, path: Path, expected: &[(Stamp, u64)]) {
    let mut stage_ns = [0; STAMPS];
    for (stamp, ms) in expected {
        stage_ns[*stamp as usize] = ms * MS;
    }
    let mut passed_total = [0; STAMPS];
    path.stamps().iter().for_each(|stamp| passed_total[*stamp as usize] = 1);
    let total_ns = expected.iter().map(|(_, ms)| ms * MS).sum();
    assert_eq!(*stages, Stages { requests_total: 1, total_ns, stage_ns, passed_total, negative_total: 0 });
}

/// What `after` has more than `before`.
fn since(before: &Stages, after: &Stages) -> Stages {
    let less = |after: &[u64; STAMPS], before: &[u64; STAMPS]| std::array::from_fn(|i| after[i] - before[i]);
    Stages {
        requests_total: after.requests_total - before.requests_total,
        total_ns: after.total_ns - before.total_ns,
        stage_ns: less(&after.stage_ns, &before.stage_ns),
        passed_total: less(&after.passed_total, &before.passed_total),
        negative_total: after.negative_total - before.negative_total,
    }
}

#[test]
fn a_produce_is_stamped_at_every_stage() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    // Segments come into being.
    rig.receive(conn, &produce(&[0, 1]));
    rig.settle();
    let before = *rig.server.stages(Path::Produce);
    assert_eq!((before.requests_total, before.negative_total), (1, 0));

    // Two logs: their round has two writes and then a flush.
    let frame = produce(&[0, 1]);
    rig.receive(conn, &frame[..10]);
    rig.pass(100);
    rig.receive(conn, &frame[10..]);
    rig.pass(2);
    assert_eq!(rig.complete(|op| matches!(op, Op::Write { .. })), 2);
    rig.pass(4);
    assert_eq!(rig.complete(|op| matches!(op, Op::Flush { .. })), 1);
    rig.pass(8);
    assert_eq!(rig.complete(|op| matches!(op, Op::Send { .. })), 1);
    let took = since(&before, rig.server.stages(Path::Produce));
    check(&took, Path::Produce, &[(Stamp::Written, 2), (Stamp::Durable, 4), (Stamp::Sent, 8)]);
}

#[test]
fn an_answer_that_waits_for_an_earlier_send_is_stamped_so() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    rig.receive(conn, &produce(&[0]));
    rig.settle();
    rig.receive(conn, &produce(&[0]));
    rig.complete(|op| matches!(op, Op::Write { .. }));
    let before = *rig.server.stages(Path::Produce);
    // The first answer is being sent; the second is ready behind it.
    rig.pass(1);
    rig.receive(conn, &produce(&[0]));
    rig.pass(2);
    assert_eq!(rig.complete(|op| matches!(op, Op::Write { .. })), 1);
    rig.pass(4);
    assert_eq!(rig.complete(|op| matches!(op, Op::Send { .. })), 1);
    let first = since(&before, rig.server.stages(Path::Produce));
    check(&first, Path::Produce, &[(Stamp::Sent, 7)]);
    let before = *rig.server.stages(Path::Produce);
    rig.pass(8);
    assert_eq!(rig.complete(|op| matches!(op, Op::Send { .. })), 1);
    let second = since(&before, rig.server.stages(Path::Produce));
    check(&second, Path::Produce, &[(Stamp::Written, 2), (Stamp::Send, 4), (Stamp::Sent, 8)]);
}

#[test]
fn a_long_poll_is_stamped_at_every_stage() {
    let mut rig = Rig::new(&[]);
    let (producer, consumer) = (rig.connect(), rig.connect());
    rig.receive(producer, &produce(&[0]));
    rig.settle();
    rig.receive(consumer, &fetch(1, 60_000));
    rig.pass(3);
    rig.receive(producer, &produce(&[0]));
    rig.pass(5);
    rig.complete(|op| matches!(op, Op::Write { .. }));
    rig.pass(7);
    rig.settle();
    let stages = rig.server.stages(Path::Fetch);
    check(stages, Path::Fetch, &[(Stamp::Woken, 8), (Stamp::Sent, 7)]);
    // Record, and the answer's own bytes.
    let (_, answer) = rig.sent.iter().rfind(|(conn, _)| *conn == consumer).expect("it was answered");
    assert!(answer.windows(5).any(|bytes| bytes == b"value"));
}
