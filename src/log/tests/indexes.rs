//! The sparse index: lookups against a plain list of batches, thinning, the file.

use crate::base::ids::Uuid;
use crate::base::limits::INDEX_ENTRIES_MAX;
use crate::base::offset::Offset;
use crate::log::checkpoint::NotCheckpoint;
use crate::log::index::{Index, Largest, Reach};

const BATCH: u64 = 1000;

/// Batches of ten records each, `BATCH` bytes apart, with these timestamps.
fn index(interval: u32, times: &[i64]) -> Index {
    let mut index = Index::new(interval);
    for (i, time) in times.iter().enumerate() {
        index.add(Offset(i as i64 * 10), 4096 + i as u64 * BATCH, *time);
    }
    index
}

/// The batch at which a walk from the entry begins.
fn at(position: u64) -> usize {
    ((position - 4096) / BATCH) as usize
}

#[test]
fn offsets_are_found_at_or_behind_the_entry() {
    let index = index(4096, &[0; 100]);
    assert!(index.entries().len() < 25);
    for offset in 0..1000 {
        let entry = index.find_offset(Offset(offset)).expect("an entry");
        assert!(entry.offset <= Offset(offset) && Offset(offset).0 - entry.offset.0 < 5 * 10 + 10);
        assert_eq!(at(entry.position) as i64 * 10, entry.offset.0);
    }
    assert_eq!(Index::new(4096).find_offset(Offset(0)), None);
}

#[test]
fn the_first_batch_at_or_after_a_time_is_never_passed_over() {
    // Out of order on purpose, with batches that have no timestamp.
    let times: Vec<i64> = (0..200i64).map(|i| if i % 7 == 0 { -1 } else { i * 37 % 101 + i }).collect();
    for interval in [1, 2500, 4096, 100_000] {
        let index = index(interval, &times);
        for asked in 0..330 {
            let first = times.iter().position(|t| *t >= asked);
            match (index.find_time(asked), first) {
                (Some(entry), Some(first)) => {
                    let entry_at = at(entry.position);
                    assert!(entry_at <= first, "interval {interval}, time {asked}");
                    assert!((first - entry_at) as u64 * BATCH <= u64::from(interval) + BATCH);
                }
                (None, None) => {}
                other => panic!("{asked}: {other:?}"),
            }
        }
    }
}

#[test]
fn the_largest_time_names_its_first_batch() {
    let found = index(4096, &[5, 9, 9, -1, 3]).largest();
    assert_eq!(found, Some(Largest { timestamp_ms: 9, offset: Offset(10), position: 4096 + BATCH }));
    assert_eq!(index(4096, &[-1, -1]).largest(), None);
}

#[test]
fn memory_is_bounded_and_lookups_stay_right() {
    let times: Vec<i64> = (0..3 * INDEX_ENTRIES_MAX as i64).map(|i| i ^ 5).collect();
    let mut index = index(1, &times);
    assert!(index.entries().len() <= INDEX_ENTRIES_MAX);
    for entries_max in [INDEX_ENTRIES_MAX, 64, 1] {
        index.shrink_to(entries_max);
        assert!(index.entries().len() <= entries_max);
        for asked in (0..times.len()).step_by(97) {
            let first = times.iter().position(|t| *t >= asked as i64).expect("in range");
            assert!(at(index.find_time(asked as i64).expect("an entry").position) <= first);
            let entry = index.find_offset(Offset(asked as i64)).expect("an entry");
            assert!(entry.offset <= Offset(asked as i64));
        }
    }
}

#[test]
fn the_file_comes_back_only_for_the_segment_it_describes() {
    let index = index(4096, &(0..100).collect::<Vec<_>>());
    let reach =
        Reach { segment: Uuid([1; 16]), end: 4096 + 100 * BATCH, next_offset: Offset(1000), last_check: 7 };
    let bytes = index.encode(&reach);
    assert_eq!(Index::decode(&bytes, &reach), Ok(index));
    for other in [
        Reach { segment: Uuid([2; 16]), ..reach },
        Reach { end: reach.end + 1, ..reach },
        Reach { next_offset: Offset(1001), ..reach },
        Reach { last_check: 8, ..reach },
    ] {
        assert_eq!(Index::decode(&bytes, &other), Err(NotCheckpoint::Damaged));
    }
    let used = bytes.iter().rposition(|b| *b != 0).expect("not all zeros") + 1;
    for at in 0..used {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert_eq!(Index::decode(&bad, &reach), Err(NotCheckpoint::Damaged), "byte {at}");
    }
}
