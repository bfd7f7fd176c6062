use super::rig::{Rig, batch, batch_at, key, rules, sequenced};
use crate::base::error::Refused;
use crate::io::sim::{Injected, OpKind};
use crate::io::{Errno, Op};
use crate::log::store::Durability;
use crate::shard::Notice;

fn is_flush(op: &Op) -> bool {
    matches!(op, Op::Flush { .. })
}

fn is_write(op: &Op) -> bool {
    matches!(op, Op::Write { .. })
}

/// A shard whose first segments are there, so that what follows is only writes and flushes. Both logs hold a record.
fn ready(durability: Durability) -> Rig {
    let mut rig = Rig::new(durability);
    let records = batch(100);
    let first = rig.produce(-1, &[(0, &records), (1, &records)]);
    rig.run(500);
    assert_eq!(rig.acked(first), [(0, None), (0, None)]);
    rig
}

#[test]
fn a_durable_ack_waits_for_the_flush() {
    for acks in [1, -1] {
        let mut rig = ready(Durability::Durable);
        rig.hold = is_flush;
        // Two logs: the round ends with a flush of its own.
        let records = batch(100);
        let produce = rig.produce(acks, &[(0, &records), (1, &records)]);
        rig.run(500);
        assert!(!rig.is_answered(produce) && !rig.held.is_empty(), "acks={acks}");
        rig.release();
        rig.run(500);
        assert_eq!(rig.acked(produce), [(1, None), (1, None)]);
    }
}

#[test]
fn a_written_ack_waits_for_the_write_alone() {
    let mut rig = ready(Durability::Written);
    rig.hold = |op| is_write(op) || is_flush(op);
    let produce = rig.produce(-1, &[(0, &batch(100))]);
    rig.run(500);
    assert!(!rig.is_answered(produce));
    rig.hold = is_flush;
    let held = std::mem::take(&mut rig.held);
    rig.hold = |_| false;
    rig.held = held;
    rig.release();
    rig.hold = is_flush;
    rig.run(500);
    assert_eq!(rig.acked(produce), [(1, None)]);
}

#[test]
fn an_ack_from_memory_waits_for_nothing() {
    let mut rig = Rig::new(Durability::Memory);
    let produce = rig.produce(-1, &[(0, &batch(100))]);
    assert_eq!(rig.acked(produce), [(0, None)]);
}

#[test]
fn without_acks_the_answer_is_there_at_once() {
    let mut rig = Rig::new(Durability::Durable);
    let produce = rig.produce(0, &[(0, &batch(100)), (9, &batch(100))]);
    assert_eq!(rig.acked(produce), [(0, None), (-1, Some(Refused::UnknownTopicOrPartition))]);
}

#[test]
fn one_part_that_is_refused_does_not_hold_back_the_other() {
    let mut rig = ready(Durability::Durable);
    let mut broken = batch(100);
    *broken.last_mut().expect("bytes") ^= 1;
    let produce = rig.produce(-1, &[(0, &broken), (1, &batch(100))]);
    assert!(!rig.is_answered(produce));
    rig.run(500);
    assert_eq!(rig.acked(produce), [(-1, Some(Refused::CorruptMessage)), (1, None)]);
}

#[test]
fn a_duplicate_gets_the_first_answer_and_not_before_it() {
    let mut rig = ready(Durability::Durable);
    rig.hold = is_write;
    let first = rig.produce(-1, &[(0, &sequenced(0))]);
    let again = rig.produce(-1, &[(0, &sequenced(0))]);
    rig.run(500);
    assert!(!rig.is_answered(first) && !rig.is_answered(again), "the first is not durable yet");
    rig.release();
    rig.run(500);
    assert_eq!((rig.acked(first), rig.acked(again)), (vec![(1, None)], vec![(1, None)]));
    let late = rig.produce(-1, &[(0, &sequenced(0))]);
    assert_eq!(rig.acked(late), [(1, None)], "by now it is");
    let gap = rig.produce(-1, &[(0, &sequenced(7))]);
    assert_eq!(rig.acked(gap)[0].1, Some(Refused::OutOfOrderSequence));
}

#[test]
fn an_ack_that_does_not_come_times_out_and_leaves_nothing_behind() {
    let mut rig = ready(Durability::Durable);
    rig.hold = is_write;
    let produce = rig.produce(-1, &[(0, &batch(100))]);
    // The leader's own write is not in `timeout.ms`: patience is half a minute.
    rig.run(29_900);
    assert!(!rig.is_answered(produce));
    rig.run(200);
    assert_eq!(rig.produced(produce)[0].error, Some(Refused::RequestTimedOut));
    rig.release();
    rig.run(500);
    assert!(rig.replies.is_empty(), "the write that came late answers nobody");
    let next = rig.produce(-1, &[(0, &batch(100))]);
    rig.run(500);
    assert_eq!(rig.acked(next), [(2, None)]);
}

#[test]
fn a_deleted_partition_refuses_what_waits_on_it() {
    let mut rig = ready(Durability::Durable);
    rig.hold = is_write;
    let records = batch(100);
    let produce = rig.produce(-1, &[(0, &records), (1, &records)]);
    rig.with_cx(|shard, cx| shard.delete(key(0), cx));
    assert!(!rig.is_answered(produce), "the other part goes on");
    rig.release();
    rig.run(1_000);
    let outcomes = rig.acked(produce);
    assert_eq!(outcomes[0].1, Some(Refused::UnknownTopicOrPartition));
    assert_eq!(outcomes[1], (1, None));
    assert_eq!(rig.notices, [Notice::Deleted(key(0))]);
    let after = rig.produce(-1, &[(0, &records)]);
    assert_eq!(rig.acked(after), [(-1, Some(Refused::UnknownTopicOrPartition))]);
    rig.shard.create(key(0), rules(Durability::Durable));
    let anew = rig.produce(-1, &[(0, &records)]);
    rig.run(500);
    assert_eq!(rig.acked(anew), [(0, None)], "a new log of that name begins at 0");
}

#[test]
fn a_failed_flush_fails_all_that_wait_and_all_that_come() {
    let mut rig = ready(Durability::Durable);
    let records = batch(100);
    rig.world.place_fault(OpKind::Flush, 0, Injected::Fails(Errno::IO));
    let produce = rig.produce(-1, &[(0, &records), (1, &records)]);
    rig.run(500);
    let errors: Vec<_> = rig.produced(produce).into_iter().map(|outcome| outcome.error).collect();
    assert_eq!(errors, [Some(Refused::KafkaStorageError); 2]);
    assert!(matches!(rig.notices[..], [Notice::Dead(_)]), "{:?}", rig.notices);
    let after = rig.produce(-1, &[(1, &records)]);
    assert_eq!(rig.acked(after)[0].1, Some(Refused::KafkaStorageError));
}

/// Another shard's flush failed before this one's, which succeeded, had covered anything: its ack stays here.
#[test]
fn a_failure_elsewhere_ends_acks_whose_flush_is_through() {
    let mut rig = ready(Durability::Durable);
    let records = batch(100);
    rig.produce(-1, &[(0, &records)]);
    rig.run(500);
    let before = rig.shard.bounds(&key(0)).expect("it lives here").high_watermark;
    rig.hold = is_write;
    let produce = rig.produce(-1, &[(0, &records)]);
    rig.run(100);
    rig.release();
    rig.end_acks_behind_completions();
    assert!(rig.shard.bounds(&key(0)).expect("it lives here").high_watermark > before, "it is flushed");
    assert_eq!(rig.acked(produce)[0].1, Some(Refused::KafkaStorageError));
    assert_eq!(rig.notices, [Notice::Dead("another saw it".to_string())]);
    let after = rig.produce(-1, &[(1, &records)]);
    assert_eq!(rig.acked(after)[0].1, Some(Refused::KafkaStorageError));
}

#[test]
fn a_connection_that_is_gone_is_not_answered() {
    let mut rig = ready(Durability::Durable);
    rig.hold = is_write;
    rig.produce(-1, &[(0, &batch(100))]);
    rig.forget();
    rig.release();
    rig.run(40_000);
    assert!(rig.replies.is_empty());
    let next = rig.produce(-1, &[(0, &batch(100))]);
    rig.run(500);
    assert_eq!(rig.acked(next), [(2, None)], "what it sent is kept");
}

#[test]
fn answered_requests_leave_no_deadlines_behind() {
    let mut rig = Rig::new(Durability::Memory);
    let records = batch(10);
    for _ in 0..5_000 {
        let produce = rig.produce(-1, &[(0, &records)]);
        assert_eq!(rig.acked(produce)[0].1, None);
        if rig.replies.len() > 64 {
            rig.run(1);
        }
    }
    assert!(rig.shard.deadlines.len() <= 1_100, "{} deadlines", rig.shard.deadlines.len());
    assert!(rig.shard.parked.is_empty());
}

#[test]
fn retention_is_looked_at_as_often_as_it_was_told() {
    let mut rig = Rig::new(Durability::Durable);
    let mut rules = rules(Durability::Durable);
    rules.log.retention_ms = 10_000;
    rig.shard.set_rules(key(0), rules);
    let records = batch_at(rig.wall_ms(), 200_000);
    for _ in 0..20 {
        rig.produce(-1, &[(0, &records)]);
        rig.run(50);
    }
    let start = |rig: &Rig| rig.shard.bounds(&key(0)).expect("a log").log_start.get().0;
    rig.run(60_000);
    assert_eq!(start(&rig), 0, "five minutes are not over");
    rig.shard.set_retention_check_ms(500);
    rig.run(2_000);
    assert!(start(&rig) > 0);
}

#[test]
fn a_log_start_is_answered_when_it_is_kept() {
    let mut rig = ready(Durability::Durable);
    let beyond = rig.delete_records(0, 5);
    assert_eq!(rig.deleted(beyond).error, Some(Refused::OffsetOutOfRange));
    rig.hold = |_| true;
    let delete = rig.delete_records(0, 1);
    rig.run(500);
    assert!(!rig.is_answered(delete));
    rig.release();
    rig.run(400);
    let kept = rig.deleted(delete);
    assert_eq!((kept.error, kept.low_watermark), (None, 1));
    let again = rig.delete_records(0, -1);
    assert_eq!(rig.deleted(again).low_watermark, 1, "nothing to do");
}

/// A deletion up to 1 is being written when one up to 2 comes. The write that ends then says 1, and both were answered by it: a power loss
/// brought back a record that its client had been told was gone.
#[test]
fn a_log_start_is_not_answered_by_the_write_of_an_earlier_one() {
    let mut rig = ready(Durability::Durable);
    rig.produce(0, &[(0, &batch(100))]);
    // Longer than a checkpoint takes: what is held below is of the log start.
    rig.run(2_000);
    rig.replies.clear();
    rig.hold = |op| matches!(op, Op::Rename { .. });
    let first = rig.delete_records(0, 1);
    rig.run(100);
    assert_eq!(rig.held.len(), 1, "the state that says 1 takes its place");
    let second = rig.delete_records(0, 2);
    rig.release_from(0);
    rig.run(100);
    assert_eq!(rig.deleted(first).low_watermark, 1);
    assert!(!rig.is_answered(second), "2 is not on disk");
    rig.release();
    rig.run(400);
    let kept = rig.deleted(second);
    assert_eq!((kept.error, kept.low_watermark), (None, 2));
}

/// Written, and flushed up to 2 of 5: the log start goes to 2 at first, and that answered a deletion up to 5.
#[test]
fn a_log_start_beyond_what_is_flushed_is_answered_when_it_is_reached() {
    let mut rig = ready(Durability::Written);
    rig.produce(0, &[(0, &batch(100))]);
    rig.run(100);
    let flushed = rig.delete_records(0, 1);
    rig.run(500);
    assert_eq!(rig.deleted(flushed).low_watermark, 1);
    for _ in 0..3 {
        rig.produce(0, &[(0, &batch(100))]);
    }
    rig.run(100);
    let bounds = rig.shard.bounds(&key(0)).expect("a log");
    assert_eq!((bounds.durable.get().0, bounds.high_watermark.get().0), (2, 5));
    rig.hold = is_flush;
    let delete = rig.delete_records(0, 5);
    rig.run(100);
    assert!(rig.held.len() > 1, "the log's flush, then that of its state");
    rig.hold = |_| false;
    rig.release_from(1);
    rig.run(100);
    assert_eq!(rig.shard.bounds(&key(0)).expect("a log").log_start.get().0, 2);
    assert!(!rig.is_answered(delete), "3 of 5 are still to be deleted");
    rig.release();
    rig.run(500);
    let kept = rig.deleted(delete);
    assert_eq!((kept.error, kept.low_watermark), (None, 5));
}

/// A fresh broker has 64 blocks and 64 uuids, and a log needs one of each for its first record: of a request for more partitions than that
/// the rest was refused, though the pool could have grown.
#[test]
fn a_request_for_more_partitions_than_there_are_blocks_is_appended_over_several_turns() {
    for acks in [-1, 0] {
        let mut rig = Rig::fresh(200);
        let records = batch(1000);
        let parts: Vec<(i32, &[u8])> = (0..200).map(|partition| (partition, &records[..])).collect();
        let produce = rig.produce(acks, &parts);
        rig.run(1_000);
        assert_eq!(rig.acked(produce), vec![(0, None); 200], "acks={acks}");
        assert!(!rig.shard.is_starved());
    }
}

/// Many requests of one chunk, each for a cold partition, and the next records of the same producers behind them.
#[test]
fn requests_behind_one_that_waits_for_memory_keep_their_order() {
    let mut rig = Rig::fresh(100);
    let (first, second) = (sequenced(0), sequenced(1));
    let firsts: Vec<u64> = (0..100).map(|partition| rig.produce(-1, &[(partition, &first)])).collect();
    let seconds: Vec<u64> = (0..100).map(|partition| rig.produce(-1, &[(partition, &second)])).collect();
    assert!(!rig.with_cx(|shard, cx| shard.room_for(1, cx)), "nothing more is parsed");
    rig.run(1_000);
    for (first, second) in firsts.into_iter().zip(seconds) {
        assert_eq!((rig.acked(first), rig.acked(second)), (vec![(0, None)], vec![(1, None)]));
    }
    assert!(rig.with_cx(|shard, cx| shard.room_for(1, cx)));
}

#[test]
fn what_waits_for_memory_is_answered_at_its_deadline_and_then_dropped() {
    let mut rig = Rig::fresh(200);
    rig.hold = |_| true;
    let records = batch(1000);
    let parts: Vec<(i32, &[u8])> = (0..200).map(|partition| (partition, &records[..])).collect();
    let produce = rig.produce(-1, &parts);
    let silent = rig.produce(0, &[(199, &records)]);
    rig.run(30_100);
    assert!(rig.acked(produce).iter().all(|part| part.1 == Some(Refused::RequestTimedOut)));
    assert_eq!(rig.acked(silent), [(-1, Some(Refused::RequestTimedOut))]);
    rig.release();
    rig.run(1_000);
    assert!(!rig.shard.is_starved() && rig.shard.parked.is_empty());
    let next = rig.produce(-1, &[(199, &records)]);
    rig.run(500);
    assert_eq!(rig.acked(next), [(0, None)], "nobody was told of another");
}

#[test]
fn what_waits_for_memory_outlives_its_connection_but_not_its_partition_or_its_disk() {
    let records = batch(1000);
    let parts: Vec<(i32, &[u8])> = (0..200).map(|partition| (partition, &records[..])).collect();
    let mut rig = Rig::fresh(200);
    rig.produce(0, &parts);
    rig.forget();
    rig.run(1_000);
    assert!(rig.replies.is_empty());
    let next = rig.produce(-1, &[(199, &records)]);
    rig.run(500);
    assert_eq!(rig.acked(next), [(1, None)], "what it sent is kept");

    let mut rig = Rig::fresh(200);
    let produce = rig.produce(-1, &parts);
    rig.with_cx(|shard, cx| shard.delete(key(199), cx));
    rig.world.place_fault(OpKind::Flush, 0, Injected::Fails(Errno::IO));
    rig.run(1_000);
    let outcomes = rig.produced(produce);
    assert_eq!(outcomes[199].error, Some(Refused::UnknownTopicOrPartition));
    assert_eq!(outcomes[198].error, Some(Refused::KafkaStorageError));
    assert!(!rig.shard.is_starved());
}
