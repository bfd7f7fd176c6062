//! The small files: codec, replacement step by step, leader epochs.

use std::path::PathBuf;

use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, Uuid};
use crate::base::limits::{ALIGN, BLOCK_BYTES, LEADER_EPOCHS_KEPT};
use crate::base::offset::Offset;
use crate::io::buffer::Pool;
use crate::io::{Done, Errno, FileId, Op, Payload, Place, Token, WriteSync};
use crate::log::checkpoint::{CleanStop, Mark, NotCheckpoint, State};
use crate::log::epochs::EpochCache;
use crate::log::replace::{Next, Replace, fill};

fn state() -> State {
    let mut epochs = EpochCache::default();
    epochs.assign(LeaderEpoch(1), Offset(10));
    epochs.assign(LeaderEpoch(4), Offset(40));
    let mark = Mark {
        ordinal: 6,
        segment: Uuid([7; 16]),
        end: 8000,
        next_offset: Offset(50),
        last_check: 9,
        last_group: 4096,
        next_seq: 1,
    };
    State {
        seq: 3,
        key: PartitionKey { topic: Uuid([1; 16]), partition: PartitionIndex(2) },
        directory: Uuid([3; 16]),
        generation: 4,
        leader_epoch: LeaderEpoch(5),
        log_start: Offset(10),
        epochs,
        clean: Some(CleanStop { mark, reopen: true }),
        flushed: Some(mark),
    }
}

#[test]
fn state_comes_back_and_any_flipped_bit_is_noticed() {
    for state in [state(), State { clean: None, flushed: None, ..state() }] {
        let bytes = state.encode();
        assert!(bytes.len().is_multiple_of(ALIGN));
        assert_eq!(State::decode(&bytes), Ok(state));
        let used = bytes.iter().rposition(|b| *b != 0).expect("not all zeros") + 1;
        for bit in 0..used * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::decode(&bad), Err(NotCheckpoint::Damaged), "bit {bit}");
        }
        for len in 0..used {
            assert_eq!(State::decode(&bytes[..len]), Err(NotCheckpoint::Damaged), "{len} bytes");
        }
    }
}

#[test]
fn a_newer_state_is_refused_by_its_version() {
    let mut bytes = state().encode();
    let len = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    bytes[4] = 9;
    bytes[8..12].fill(0);
    let check = crc32c::crc32c(&bytes[..16 + len]);
    bytes[8..12].copy_from_slice(&check.to_le_bytes());
    assert_eq!(State::decode(&bytes), Err(NotCheckpoint::Newer(9)));
}

fn done(result: Result<u32, Errno>, payload: Payload) -> Done {
    Done { token: Token(0), result, more: false, payload }
}

/// Drives a replacement; `result` may spoil the result of the n-th operation. Returns the operations' names and how it ended.
fn replace(
    bytes: usize,
    result: impl Fn(usize, u32) -> Result<u32, Errno>,
) -> (Vec<String>, Result<(), Errno>) {
    let mut pool = Pool::new(8 * BLOCK_BYTES);
    pool.grow().expect("memory");
    let data = vec![7; bytes];
    let parts = fill(&data, &mut pool).expect("blocks");
    let (mut replace, mut op) = Replace::start(PathBuf::from("dir/state"), parts, true);
    let mut names = Vec::new();
    loop {
        let n = names.len();
        let (name, completion) = match op {
            Op::OpenFile { path, .. } => {
                let r = result(n, 0);
                let payload =
                    if r.is_ok() { Payload::Opened(FileId(5), Place::default()) } else { Payload::None };
                (format!("open {}", path.display()), done(r, payload))
            }
            Op::Write { file: FileId(5), offset, data, sync } => {
                let name = format!(
                    "write {offset}+{}{}",
                    data.len(),
                    if sync == WriteSync::Dsync { "!" } else { "" }
                );
                (name, done(result(n, data.len() as u32), Payload::Written(data)))
            }
            Op::CloseFile { file: FileId(5) } => ("close".into(), done(result(n, 0), Payload::None)),
            Op::Rename { from, to } => {
                (format!("rename {} {}", from.display(), to.display()), done(result(n, 0), Payload::None))
            }
            Op::SyncDir { path } => (format!("sync {}", path.display()), done(result(n, 0), Payload::None)),
            other => panic!("{other:?}"),
        };
        names.push(name);
        match replace.next(completion) {
            Next::Op(next) => op = next,
            Next::Finished => return (names, Ok(())),
            Next::Failed(errno) => return (names, Err(errno)),
        }
    }
}

#[test]
fn a_replacement_flushes_before_it_renames_and_syncs_the_directory_last() {
    let (ops, end) = replace(BLOCK_BYTES + 1, |_, n| Ok(n));
    assert_eq!(
        ops,
        [
            "open dir/state.tmp",
            "write 0+262144",
            "write 262144+4096!",
            "close",
            "rename dir/state.tmp dir/state",
            "sync dir"
        ]
    );
    assert_eq!(end, Ok(()));
}

#[test]
fn a_short_write_goes_on_from_a_boundary() {
    let (ops, end) = replace(3 * ALIGN, |n, len| Ok(if n == 1 { 5000 } else { len }));
    assert_eq!(ops[1..4], ["write 0+12288!", "write 4096+8192!", "close"]);
    assert_eq!(end, Ok(()));
    let (_, end) = replace(ALIGN, |n, len| Ok(if n >= 1 && len > 0 { 0 } else { len }));
    assert_eq!(end, Err(Errno::IO), "a write that never moves is given up");
}

#[test]
fn errors_end_a_replacement_at_every_step_but_close() {
    for step in 0..5 {
        let (ops, end) = replace(ALIGN, |n, len| if n == step { Err(Errno::IO) } else { Ok(len) });
        match step {
            1 => assert_eq!((ops.len(), end), (3, Err(Errno::IO)), "the temporary file is closed: {ops:?}"),
            2 => assert_eq!((ops.len(), end), (5, Ok(()))),
            _ => assert_eq!((ops.len(), end), (step + 1, Err(Errno::IO)), "{ops:?}"),
        }
    }
    for step in 0..2 {
        let (ops, end) = replace(ALIGN, |n, len| if n == step { Err(Errno::AGAIN) } else { Ok(len) });
        assert_eq!((ops.len(), end), (6, Ok(())), "once more: {ops:?}");
    }
}

#[test]
fn epochs_answer_as_kafka_does() {
    let mut epochs = EpochCache::default();
    let end = Offset(100);
    let ask = |epochs: &EpochCache, asked: i32| {
        let (epoch, offset) = epochs.end_offset_for(LeaderEpoch(asked), end);
        (epoch.0, offset.0)
    };
    assert_eq!(ask(&epochs, 3), (-1, -1));
    assert!(epochs.assign(LeaderEpoch(2), Offset(20)));
    assert!(epochs.assign(LeaderEpoch(5), Offset(50)));
    assert!(!epochs.assign(LeaderEpoch(5), Offset(60)));
    assert!(!epochs.assign(LeaderEpoch(4), Offset(60)));
    assert_eq!(ask(&epochs, -1), (-1, -1));
    assert_eq!(ask(&epochs, 1), (1, 20));
    assert_eq!(ask(&epochs, 2), (2, 50));
    assert_eq!(ask(&epochs, 4), (2, 50));
    assert_eq!(ask(&epochs, 5), (5, 100));
    assert_eq!(ask(&epochs, 9), (5, 100));
    assert_eq!(epochs.epoch_at(Offset(49)), LeaderEpoch(2));
    assert_eq!(epochs.epoch_at(Offset(19)), LeaderEpoch::NONE);
}

#[test]
fn epochs_without_records_go() {
    let mut epochs = EpochCache::default();
    for (epoch, start) in [(1, 0), (2, 10), (3, 10), (4, 30)] {
        epochs.assign(LeaderEpoch(epoch), Offset(start));
    }
    let of =
        |pairs: &[(i32, i64)]| pairs.iter().map(|(e, o)| (LeaderEpoch(*e), Offset(*o))).collect::<Vec<_>>();
    assert_eq!(epochs.entries(), of(&[(1, 0), (3, 10), (4, 30)]));
    epochs.truncate_start(Offset(15));
    assert_eq!(epochs.entries(), of(&[(3, 15), (4, 30)]));
    epochs.truncate_end(Offset(30));
    assert_eq!(epochs.entries(), of(&[(3, 15)]));
    for epoch in 10..10 + 2 * LEADER_EPOCHS_KEPT as i32 {
        epochs.assign(LeaderEpoch(epoch), Offset(i64::from(epoch) * 100));
    }
    assert_eq!(epochs.entries().len(), LEADER_EPOCHS_KEPT);
    assert!(EpochCache::from_entries(of(&[(2, 5), (1, 9)])).is_none());
}
