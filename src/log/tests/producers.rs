//! Idempotence: Kafka's rules case by case, then a seeded walk against a plain model.

use crate::base::error::Refused;
use crate::base::ids::{ProducerEpoch, ProducerId};
use crate::base::limits::PRODUCERS_PER_PARTITION_MAX;
use crate::base::offset::Offset;
use crate::log::producers::{Checked, Producers, Remembered, Sequenced};
use crate::log::tests::Seeded;

fn batch(producer: i64, epoch: i16, first: i32, count: i32) -> Sequenced {
    Sequenced {
        producer: ProducerId(producer),
        epoch: ProducerEpoch(epoch),
        first,
        last_delta: count - 1,
        control: false,
    }
}

fn marker(producer: i64, epoch: i16) -> Sequenced {
    Sequenced { control: true, ..batch(producer, epoch, -1, 1) }
}

/// Appends in order from offset 0; panics if one is not accepted as new.
fn producers(batches: &[Sequenced]) -> Producers {
    let mut producers = Producers::default();
    let mut offset = Offset(0);
    for b in batches {
        assert_eq!(producers.check(&[*b]), Ok(Checked::New), "{b:?}");
        producers.advance(b, offset, -1, 1000);
        offset = offset.plus(i64::from(b.last_delta) + 1);
    }
    producers
}

fn duplicate(base: i64, count: i64) -> Result<Checked, Refused> {
    Ok(Checked::Duplicate(Remembered {
        base_offset: Offset(base),
        next_offset: Offset(base + count),
        append_time_ms: -1,
    }))
}

const NEW: Result<Checked, Refused> = Ok(Checked::New);
const GAP: Result<Checked, Refused> = Err(Refused::OutOfOrderSequence);
const FENCED: Result<Checked, Refused> = Err(Refused::InvalidProducerEpoch);

fn check(before: &[Sequenced], then: &[Sequenced], expected: Result<Checked, Refused>) {
    let producers = producers(before);
    assert_eq!(producers.check(then), expected, "{then:?} after {before:?}");
}

#[test]
fn sequences_follow_on() {
    check(&[], &[batch(1, 0, 77, 3)], NEW);
    check(&[batch(1, 0, 77, 3)], &[batch(1, 0, 80, 1)], NEW);
    check(&[batch(1, 0, 77, 3)], &[batch(1, 0, 81, 1)], GAP);
    check(&[batch(1, 0, 77, 3)], &[batch(1, 0, 79, 1)], GAP);
    check(&[batch(1, 0, 77, 3)], &[batch(2, 0, 9, 1)], NEW);
    check(&[batch(-1, -1, -1, 3)], &[batch(-1, -1, -1, 3)], NEW);
}

#[test]
fn a_sequence_wraps_from_its_maximum_to_zero() {
    check(&[batch(1, 0, i32::MAX, 1)], &[batch(1, 0, 0, 1)], NEW);
    check(&[batch(1, 0, i32::MAX - 1, 4)], &[batch(1, 0, 2, 1)], NEW);
    check(&[batch(1, 0, i32::MAX - 1, 4)], &[batch(1, 0, i32::MAX - 1, 4)], duplicate(0, 4));
}

#[test]
fn the_last_five_batches_are_recognised() {
    let six: Vec<_> = (0..6).map(|i| batch(1, 0, i * 2, 2)).collect();
    check(&six, &[six[0]], GAP);
    for (i, b) in six.iter().enumerate().skip(1) {
        check(&six, &[*b], duplicate(i as i64 * 2, 2));
    }
    check(&six, &[batch(1, 0, 10, 1)], GAP);
}

#[test]
fn epochs_fence_and_restart_at_zero() {
    let known = [batch(1, 3, 0, 5)];
    check(&known, &[batch(1, 2, 5, 1)], FENCED);
    check(&known, &[batch(1, 2, 0, 5)], FENCED);
    check(&known, &[batch(1, 4, 5, 1)], GAP);
    check(&known, &[batch(1, 4, 0, 5)], NEW);
    check(&[known[0], marker(1, 4)], &[batch(1, 3, 5, 1)], FENCED);
    check(&[known[0], marker(1, 4)], &[batch(1, 4, 5, 1)], GAP);
    check(&[known[0], marker(1, 4)], &[batch(1, 4, 0, 1)], NEW);
    check(&[known[0], marker(1, 3)], &[batch(1, 3, 5, 1)], NEW);
}

#[test]
fn several_batches_are_checked_as_one() {
    let known = [batch(1, 0, 0, 5)];
    check(&known, &[batch(1, 0, 5, 5), batch(1, 0, 10, 1), batch(2, 0, 7, 1)], NEW);
    check(&known, &[batch(1, 0, 5, 5), batch(1, 0, 11, 1)], GAP);
    check(&known, &[batch(1, 1, 0, 5), batch(1, 0, 5, 1)], FENCED);
    check(&known, &[batch(1, 0, 0, 5), batch(1, 0, 5, 1)], GAP);
    check(&[known[0], batch(1, 0, 5, 2)], &[batch(1, 0, 0, 5), batch(1, 0, 5, 2)], duplicate(0, 5));
}

#[test]
fn state_expires_by_when_it_was_seen() {
    let mut producers = producers(&[batch(1, 0, 0, 5)]);
    producers.advance(&batch(2, 0, 0, 1), Offset(5), -1, 2000);
    assert_eq!(producers.expire(1999, 1000), 0);
    assert_eq!(producers.expire(2000, 1000), 1);
    assert_eq!(producers.check(&[batch(1, 0, 40, 1)]), NEW);
    assert_eq!(producers.check(&[batch(2, 0, 40, 1)]), GAP);
    assert_eq!(producers.expire(i64::MIN, 1000), 0, "the clock stepped back");
}

#[test]
fn the_oldest_are_evicted_at_the_bound() {
    let mut producers = Producers::default();
    for id in 0..3 * PRODUCERS_PER_PARTITION_MAX as i64 {
        producers.advance(&batch(id, 0, 0, 1), Offset(id), -1, 0);
        producers.advance(&batch(7, 0, id as i32, 1), Offset(id), -1, 0);
        assert!(producers.len() <= PRODUCERS_PER_PARTITION_MAX);
    }
    assert!(producers.len() > PRODUCERS_PER_PARTITION_MAX * 7 / 8);
    assert_eq!(producers.check(&[batch(7, 0, 0, 1)]), GAP, "one that goes on appending stays");
    let bytes = producers.encode(Offset(9));
    assert_eq!(Producers::decode(&bytes), Ok((producers, Offset(9))));
}

#[test]
fn the_snapshot_comes_back_and_damage_is_noticed() {
    let producers = producers(&[batch(1, 0, 0, 5), batch(2, 9, 4, 1), batch(1, 0, 5, 1), marker(3, 2)]);
    let bytes = producers.encode(Offset(7));
    assert_eq!(Producers::decode(&bytes), Ok((producers, Offset(7))));
    let used = bytes.iter().rposition(|b| *b != 0).expect("not all zeros") + 1;
    for at in 0..used {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(Producers::decode(&bad).is_err(), "byte {at}");
    }
}

/// A client that retries anything, with a log that remembers everything: whatever is accepted is new and in order, whatever was appended
/// among the last five is answered with its offset.
#[test]
fn retries_never_append_twice() {
    for seed in 0..20 {
        let mut random = Seeded::new(seed);
        let mut producers = Producers::default();
        let mut log: Vec<(Sequenced, Offset)> = Vec::new();
        let mut end = Offset(0);
        for _ in 0..400 {
            let known = log.iter().rev().find(|(b, _)| b.producer.0 == 1).map(|(b, _)| *b);
            let next = known.map_or(0, |b| b.last().wrapping_add(1) & i32::MAX);
            let tried = match random.below(4) {
                0 if !log.is_empty() => log[random.below(log.len() as u64) as usize].0,
                1 => batch(1, 0, next.wrapping_add(1 + random.below(3) as i32) & i32::MAX, 1),
                _ => batch(1, 0, next, 1 + random.below(4) as i32),
            };
            let before = producers.clone();
            let same = log.iter().rev().take(5).find(|(b, _)| *b == tried);
            match producers.check(&[tried]) {
                Ok(Checked::New) => {
                    assert!(known.is_none() || tried.first == next, "a gap was accepted");
                    assert_eq!(same, None);
                    producers.advance(&tried, end, -1, 0);
                    log.push((tried, end));
                    end = end.plus(i64::from(tried.last_delta) + 1);
                }
                Ok(Checked::Duplicate(found)) => {
                    assert_eq!(Some(found.base_offset), same.map(|(_, o)| *o));
                }
                Err(_) => {
                    assert_eq!(same, None);
                    assert_eq!(producers, before);
                }
            }
        }
    }
}
