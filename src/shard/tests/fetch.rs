use super::rig::{Rig, batch, key, part, poll, rules};
use crate::base::error::Refused;
use crate::base::ids::LeaderEpoch;
use crate::io::Op;
use crate::log::store::Durability;
use crate::router::message::{Fetch, FetchPart};

/// Partition 0 holds so many batches of 1000 bytes and some.
fn filled(batches: usize) -> (Rig, usize) {
    let mut rig = Rig::new(Durability::Durable);
    let records = batch(1000);
    for _ in 0..batches {
        rig.produce(-1, &[(0, &records)]);
    }
    rig.run(500);
    assert_eq!(rig.replies.len(), batches);
    rig.replies.clear();
    (rig, records.len())
}

#[test]
fn a_long_poll_is_answered_by_what_it_waits_for() {
    let (mut rig, size) = filled(1);
    let fetch = rig.fetch(poll([part(0, 1)]));
    rig.run(5_000);
    assert!(!rig.is_answered(fetch));
    rig.hold = |op| matches!(op, Op::Write { .. });
    rig.produce(-1, &[(0, &batch(1000))]);
    rig.run(500);
    assert!(!rig.is_answered(fetch), "not durable, not seen");
    rig.release();
    rig.run(500);
    let outcomes = rig.fetched(fetch);
    assert_eq!((outcomes[0].records.bytes, outcomes[0].high_watermark.get().0), (size, 2));
}

#[test]
fn a_long_poll_waits_for_its_bytes_or_its_time() {
    let (mut rig, size) = filled(1);
    let enough = rig.fetch(Fetch { min_bytes: 2 * size as i32, ..poll([part(0, 0)]) });
    let too_much = rig.fetch(Fetch { min_bytes: 3 * size as i32, ..poll([part(0, 0)]) });
    rig.run(500);
    assert!(!rig.is_answered(enough));
    rig.produce(-1, &[(0, &batch(1000))]);
    rig.run(500);
    assert_eq!(rig.sizes(enough), [(2 * size, None)]);
    rig.run(58_000);
    assert!(!rig.is_answered(too_much));
    rig.run(1_100);
    assert_eq!(rig.sizes(too_much), [(2 * size, None)]);
}

#[test]
fn limits_cut_at_batches_and_bring_at_least_one() {
    let (mut rig, size) = filled(5);
    rig.produce(-1, &[(1, &batch(1000))]);
    rig.run(500);
    let tiny = |from| FetchPart { bytes_max: 1, ..part(0, from) };
    let one = rig.fetch(poll([tiny(2)]));
    assert_eq!(rig.sizes(one), [(size, None)]);
    // Only the first partition that has records is allowed over its limit.
    let two = rig.fetch(poll([tiny(5), tiny(0), FetchPart { bytes_max: 1, ..part(1, 0) }]));
    assert_eq!(rig.sizes(two), [(0, None), (size, None), (0, None)]);
    let by_request = rig.fetch(Fetch { max_bytes: 3 * size as i32 + 10, ..poll([part(0, 0), part(1, 0)]) });
    assert_eq!(rig.sizes(by_request), [(3 * size, None), (0, None)]);
    let by_part = rig.fetch(poll([FetchPart { bytes_max: 2 * size as i32, ..part(0, 0) }, part(1, 0)]));
    assert_eq!(rig.sizes(by_part), [(2 * size, None), (size, None)]);
}

#[test]
fn errors_answer_at_once() {
    let (mut rig, size) = filled(1);
    let wrong_epoch = |epoch| FetchPart { current_epoch: LeaderEpoch(epoch), ..part(0, 1) };
    for (asked, error) in [
        (part(0, 2), Refused::OffsetOutOfRange),
        (part(0, -1), Refused::OffsetOutOfRange),
        (part(9, 0), Refused::UnknownTopicOrPartition),
        (wrong_epoch(99), Refused::UnknownLeaderEpoch),
    ] {
        let fetch = rig.fetch(Fetch { min_bytes: 1 << 20, ..poll([part(0, 0), asked]) });
        assert_eq!(rig.sizes(fetch), [(size, None), (0, Some(error))]);
    }
    let refused_before = rig.fetch(Fetch { at_once: true, ..poll([part(0, 1)]) });
    assert_eq!(rig.sizes(refused_before), [(0, None)]);
    let nothing = rig.fetch(poll([]));
    assert_eq!(rig.sizes(nothing), []);
}

#[test]
fn a_deleted_partition_ends_the_long_polls_on_it() {
    let (mut rig, _) = filled(1);
    let fetch = rig.fetch(poll([part(0, 1), part(1, 0)]));
    rig.with_cx(|shard, cx| shard.delete(key(0), cx));
    assert_eq!(rig.sizes(fetch), [(0, Some(Refused::UnknownTopicOrPartition)), (0, None)]);
}

#[test]
fn a_peer_that_ended_gets_what_there_is_and_one_that_is_gone_nothing() {
    let (mut rig, size) = filled(1);
    let fetch = rig.fetch(Fetch { min_bytes: 1 << 20, ..poll([part(0, 0)]) });
    rig.hurry();
    assert_eq!(rig.sizes(fetch), [(size, None)]);
    rig.fetch(poll([part(0, 1)]));
    rig.forget();
    rig.produce(0, &[(0, &batch(1000))]);
    rig.run(70_000);
    assert_eq!(rig.replies.len(), 1, "the produce");
    assert!(rig.shard.parked.is_empty());
}

#[test]
fn a_stop_answers_long_polls() {
    let (mut rig, _) = filled(1);
    let fetch = rig.fetch(poll([part(0, 1)]));
    rig.with_cx(|shard, cx| shard.begin_drain(cx));
    assert_eq!(rig.sizes(fetch), [(0, None)]);
}

/// A consumer polls a busy partition and one where nothing happens. Each poll was listed with both and taken off the busy one only, when
/// records came: the idle one kept 16 bytes of every poll there had ever been, and looked through all of them at each.
#[test]
fn a_long_poll_leaves_nothing_with_the_partition_that_did_not_answer_it() {
    let (mut rig, size) = filled(1);
    let records = batch(1000);
    let listed = |rig: &Rig| {
        let of = |partition: i32| rig.shard.partitions[&key(partition)].slot.index as usize;
        [0, 1].map(|partition| rig.shard.waiters[of(partition)].fetches.len())
    };
    for next in 1..=50 {
        let fetch = rig.fetch(poll([part(0, next), part(1, 0)]));
        assert_eq!(listed(&rig), [1, 1]);
        rig.produce(0, &[(0, &records)]);
        rig.run(20);
        assert_eq!(rig.sizes(fetch), [(size, None), (0, None)]);
        assert_eq!(listed(&rig), [0, 0]);
    }
    for _ in 0..50 {
        rig.fetch(Fetch { max_wait_ms: 10, ..poll([part(0, 51), part(1, 0)]) });
    }
    rig.run(20);
    assert_eq!(listed(&rig), [0, 0], "their time was over");
    for _ in 0..50 {
        rig.fetch(poll([part(0, 51), part(1, 0)]));
    }
    rig.forget();
    assert_eq!(listed(&rig), [0, 0], "their connection is gone");
}

/// A poll that leaves the middle of a log's list lets another one take its place there: that one must still be found.
#[test]
fn polls_that_end_in_any_order_do_not_disturb_those_that_go_on() {
    let (mut rig, size) = filled(1);
    let records = batch(1000);
    let long = |parts: &[FetchPart]| Fetch { max_wait_ms: 60_000, ..poll(parts.to_vec()) };
    let short = |ms, parts: &[FetchPart]| Fetch { max_wait_ms: ms, ..poll(parts.to_vec()) };
    let (first, second) = (part(0, 1), part(1, 0));
    let ended: Vec<u64> =
        [short(30, &[first, second]), short(10, &[second, first, second]), short(20, &[first, first])]
            .map(|fetch| rig.fetch(fetch))
            .into();
    let both = rig.fetch(long(&[second, first]));
    let more = rig.fetch(short(15, &[first, second]));
    let twice = rig.fetch(long(&[first, first]));
    let other = rig.fetch(long(&[second, second]));
    rig.run(100);
    for fetch in ended.into_iter().chain([more]) {
        assert!(rig.sizes(fetch).iter().all(|part| *part == (0, None)));
    }
    rig.produce(0, &[(0, &records)]);
    rig.run(100);
    assert_eq!(rig.sizes(both), [(0, None), (size, None)]);
    assert_eq!(rig.sizes(twice), [(size, None), (size, None)]);
    assert!(!rig.is_answered(other));
    rig.produce(0, &[(1, &records)]);
    rig.run(100);
    assert_eq!(rig.sizes(other), [(size, None), (size, None)]);
    assert!(rig.shard.waiters.iter().all(|waiters| waiters.fetches.is_empty()));
}

/// A round makes records of fifty partitions durable in one turn. A poll on all of them looked at all fifty for each: 2,500 looks.
#[test]
fn a_long_poll_looks_once_however_many_of_its_partitions_have_news() {
    let mut rig = Rig::new(Durability::Durable);
    (2..50).for_each(|at| rig.shard.create(key(at), rules(Durability::Durable)));
    let records = batch(1000);
    let parts: Vec<(i32, &[u8])> = (0..50).map(|at| (at, &records[..])).collect();
    rig.produce(-1, &parts);
    rig.run(1_000);
    let fetch = rig.fetch(Fetch { min_bytes: 1 << 20, ..poll((0..50).map(|at| part(at, 0))) });
    let before = rig.shard.counters().tail_hit_bytes_total;
    rig.produce(-1, &parts);
    rig.run(1_000);
    assert!(!rig.is_answered(fetch));
    let seen = rig.shard.counters().tail_hit_bytes_total - before;
    let all = 2 * 50 * records.len() as u64;
    assert!((all..5 * all).contains(&seen), "{seen} bytes of {all} seen");
}

/// A fetch of records on disk that found no block for them waited for one, whatever its deadline said, and whether the broker stopped.
#[test]
fn a_fetch_without_memory_is_answered_at_its_deadline_or_when_there_is_some() {
    let (mut rig, size) = filled(1);
    let mut taken = Vec::new();
    while let Some(block) = rig.with_cx(|shard, cx| shard.take_block(cx)) {
        taken.push(block);
    }
    let cold = [part(0, 0), part(1, 0)];
    let short = rig.fetch(Fetch { max_wait_ms: 200, ..poll(cold) });
    let polled = rig.fetch(Fetch { max_wait_ms: 200, min_bytes: 1 << 19, ..poll(cold) });
    let stopped = rig.fetch(poll(cold));
    rig.run(150);
    assert!(rig.replies.is_empty() && rig.shard.is_starved());
    rig.run(100);
    assert_eq!(rig.sizes(short), [(0, None), (0, None)]);
    assert_eq!(rig.sizes(polled), [(0, None), (0, None)]);
    rig.with_cx(|shard, cx| shard.begin_drain(cx));
    assert_eq!(rig.sizes(stopped), [(0, None), (0, None)]);
    let patient = rig.fetch(poll(cold));
    rig.run(100);
    drop(taken);
    rig.run(100);
    assert_eq!(rig.sizes(patient), [(size, None), (0, None)]);
    assert!(!rig.shard.is_starved());
}

/// What starves is what makes the pool grow: answered in its own turn, it would come back to the same pool for ever.
#[test]
fn a_fetch_that_cannot_wait_still_waits_for_the_pool_to_grow() {
    let mut rig = Rig::fresh(1);
    let records = batch(1000);
    rig.produce(0, &[(0, &records)]);
    rig.run(500);
    let mut taken = Vec::new();
    while let Some(block) = rig.with_cx(|shard, cx| shard.take_block(cx)) {
        taken.push(block);
    }
    let fetch = rig.fetch(Fetch { max_wait_ms: 0, ..poll([part(0, 0)]) });
    rig.run(10);
    assert_eq!(rig.sizes(fetch), [(records.len(), None)]);
}

/// A consumer that catches up asks for at least a megabyte. One read of the disk brings at most that, and ends with its segment: the fetch
/// waited for all of its time with the records there.
#[test]
fn a_fetch_of_old_records_does_not_wait_for_more_than_one_read_can_bring() {
    let mut rig = Rig::with_tail_cache(Durability::Durable, 0);
    let mut rules = rules(Durability::Durable);
    rules.log.segment_bytes = 2 << 20;
    rig.shard.set_rules(key(0), rules);
    let records = batch(200_000);
    for _ in 0..15 {
        rig.produce(-1, &[(0, &records)]);
        rig.run(100);
    }
    rig.run(20_000);
    let ask = |from, bytes_max, min_bytes| Fetch {
        min_bytes,
        max_bytes: 8 << 20,
        ..poll([FetchPart { bytes_max, ..part(0, from) }])
    };
    let long = rig.fetch(ask(0, 4 << 20, 2 << 20));
    // Ten of these batches fill a segment.
    let segment_end = rig.fetch(ask(9, 4 << 20, 1 << 20));
    rig.run(500);
    assert!(rig.sizes(long)[0].0 > 2 * records.len());
    assert_eq!(rig.sizes(segment_end), [(records.len(), None)]);
    let cut_by_client = rig.fetch(ask(0, 100, 1 << 20));
    let log_end = rig.fetch(ask(14, 4 << 20, 1 << 20));
    rig.run(500);
    assert!(!rig.is_answered(cut_by_client) && !rig.is_answered(log_end));
}
