//! Batches that we build, and what is wrong with others. Kafka's own batches are checked in `tests/it`.

use super::build::{BatchBuilder, NewRecord};
use super::{
    Accept, Batch, Change, accept, batches, find_max_timestamp, find_timestamp, records, rewrite, scan, stamp,
};
use crate::base::error::Refused;
use crate::base::limits::{RECOMPRESSED_BYTES_MAX, RECORD_ERRORS_MAX};
use crate::wire::codec::{Codec, Compression};

const LIMITS: Accept = Accept {
    produce_version: 9,
    max_message_bytes: 1_048_588,
    segment_bytes: 1 << 30,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: 3_600_000,
    log_append_time: false,
    compact: false,
    deep: false,
    compression: None,
    now_ms: 1_000_000,
};

/// A batch of records with these timestamps and keys.
fn build(codec: Codec, records: &[(i64, Option<&[u8]>)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut out = Vec::new();
    for (timestamp, key) in records {
        builder.push(&NewRecord { timestamp: *timestamp, key: *key, value: Some(b"value"), headers: &[] });
    }
    builder.finish(&mut out).expect("builds");
    out
}

/// Puts bytes at a position and makes a CRC that matches.
fn patch(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn refused(bytes: &[u8], limits: &Accept) -> Option<Refused> {
    accept(bytes, limits).err().map(|refusal| refusal.error)
}

#[test]
fn what_is_built_is_walked() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec).producer(9, 1, i32::MAX - 1).transactional().at(100, 3);
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None), (b"\xff", Some(b""))];
        let mut set = Vec::new();
        for _ in 0..2 {
            for i in 0..3i64 {
                let key = (i != 1).then_some(&b"key"[..]);
                builder.push(&NewRecord { timestamp: 500 - 200 * i, key, value: Some(&[7; 200]), headers });
            }
            builder.finish(&mut set).expect("builds");
        }
        let found: Vec<Batch<'_>> = batches(&set).map(|batch| batch.expect("sound")).collect();
        assert_eq!(found.iter().map(Batch::base_offset).collect::<Vec<_>>(), [100, 103]);
        assert_eq!(found.iter().map(Batch::base_sequence).collect::<Vec<_>>(), [i32::MAX - 1, 1]);
        assert_eq!(found[0].last_sequence(), 0, "wraps behind 2147483647");
        for batch in found {
            assert_eq!(batch.check(), Ok(()));
            assert_eq!((batch.max_timestamp(), batch.leader_epoch()), (500, 3));
            assert!(batch.is_transactional());
            let mut scratch = Vec::new();
            let walked: Vec<_> = records::open(&batch, &mut scratch).expect("opens").flatten().collect();
            assert_eq!(walked.len(), 3);
            assert_eq!(walked[1].key, None);
            assert_eq!(records::timestamp(&batch, &walked[2]), 100);
            assert!(walked[2].headers.clone().eq(headers.iter().copied()));
        }
    }
}

#[test]
fn stamping_leaves_the_crc_alone() {
    let mut bytes = build(Codec::None, &[(1, None)]);
    stamp(&mut bytes, 1 << 40, 12);
    let batch = Batch::only(&bytes).expect("a batch");
    assert_eq!((batch.base_offset(), batch.leader_epoch(), batch.check()), (1 << 40, 12, Ok(())));
}

#[test]
fn log_append_time_covers_every_record() {
    let mut bytes = build(Codec::Zstd, &[(1, None), (2, None)]);
    super::set_log_append_time(&mut bytes, 777);
    let batch = Batch::only(&bytes).expect("a batch");
    assert_eq!(batch.check(), Ok(()));
    assert!(batch.is_log_append_time() && batch.codec() == Some(Codec::Zstd));
    assert_eq!(find_timestamp(&batch, 777, 0), Ok(Some((0, 777))));
    assert_eq!(find_timestamp(&batch, 778, 0), Ok(None));
    assert_eq!(find_max_timestamp(&batch), Ok(Some((0, 777))));
}

#[test]
fn times_are_found_record_by_record() {
    for codec in [Codec::None, Codec::Gzip, Codec::Lz4] {
        let bytes = build(codec, &[(100, None), (300, None), (200, None), (300, None)]);
        let mut bytes = patch(&bytes, 35, &150i64.to_be_bytes());
        stamp(&mut bytes, 1000, 0);
        let batch = Batch::only(&bytes).expect("a batch");
        // The header's maximum is wrong here and must not be believed.
        for (asked, from, found) in [
            (0, 0, Some((1000, 100))),
            (100, 0, Some((1000, 100))),
            (101, 0, Some((1001, 300))),
            (101, 1002, Some((1002, 200))),
            (300, 1002, Some((1003, 300))),
            (301, 0, None),
        ] {
            assert_eq!(find_timestamp(&batch, asked, from), Ok(found), "{asked} from {from}");
        }
        assert_eq!(find_max_timestamp(&batch), Ok(Some((1001, 300))));
    }
}

#[test]
fn the_first_fault_in_kafkas_order_is_named() {
    let sound = build(Codec::None, &[(1, None), (2, None)]);
    let zstd = build(Codec::Zstd, &[(1, None)]);
    assert_eq!(accept(&sound, &LIMITS).expect("sound").batch.count(), 2);
    let old = Accept { produce_version: 6, ..LIMITS };
    let small = Accept { max_message_bytes: sound.len() as i32 - 1, ..LIMITS };
    let offset = patch(&sound, 0, &5i64.to_be_bytes());
    let corrupt = [&sound[..sound.len() - 1], &[9]].concat();
    let cases: &[(&str, &[u8], &Accept, Refused)] = &[
        ("empty", &[], &LIMITS, Refused::InvalidRecord),
        ("cut", &sound[..sound.len() - 1], &LIMITS, Refused::InvalidRecord),
        ("two batches", &sound.repeat(2), &LIMITS, Refused::InvalidRecord),
        ("magic 1", &patch(&sound, 16, &[1]), &LIMITS, Refused::InvalidRecord),
        ("magic 3", &patch(&sound, 16, &[3]), &LIMITS, Refused::CorruptMessage),
        ("zeros behind", &[&sound[..], &[0; 20]].concat(), &LIMITS, Refused::CorruptMessage),
        ("one byte behind", &[&sound[..], &[0]].concat(), &LIMITS, Refused::InvalidRecord),
        (
            "length one less",
            &patch(&sound, 8, &(sound.len() as i32 - 13).to_be_bytes()),
            &LIMITS,
            Refused::CorruptMessage,
        ),
        ("length too small", &patch(&sound, 8, &20i32.to_be_bytes()), &LIMITS, Refused::CorruptMessage),
        ("negative length", &patch(&sound, 8, &i32::MIN.to_be_bytes()), &LIMITS, Refused::CorruptMessage),
        ("zstd too early", &zstd, &old, Refused::UnsupportedCompressionType),
        ("codec 7", &patch(&sound, 21, &[0, 7]), &LIMITS, Refused::UnknownServerError),
        ("base offset before size", &offset, &small, Refused::InvalidRecord),
        ("size before CRC", &corrupt, &small, Refused::MessageTooLarge),
        ("CRC", &corrupt, &LIMITS, Refused::CorruptMessage),
        ("last delta", &patch(&sound, 23, &2i32.to_be_bytes()), &LIMITS, Refused::InvalidRecord),
        ("count 0", &patch(&sound, 57, &0i32.to_be_bytes()), &LIMITS, Refused::InvalidRecord),
        ("control", &patch(&sound, 21, &[0, 0x20]), &LIMITS, Refused::InvalidRecord),
        ("no sequence", &patch(&sound, 43, &5i64.to_be_bytes()), &LIMITS, Refused::InvalidRecord),
        ("log append time", &patch(&sound, 21, &[0, 8]), &LIMITS, Refused::InvalidTimestamp),
        ("segment", &sound, &Accept { segment_bytes: 10, ..LIMITS }, Refused::RecordListTooLarge),
    ];
    for (name, bytes, limits, error) in cases {
        assert_eq!(refused(bytes, limits), Some(*error), "{name}");
    }
    let exact = Accept { max_message_bytes: sound.len() as i32, ..LIMITS };
    assert_eq!(refused(&sound, &exact), None, "exactly max.message.bytes");
    // Bits 7-15 mean nothing and are kept.
    assert_eq!(refused(&patch(&sound, 21, &[0xff, 0x80]), &LIMITS), None);
}

#[test]
fn counts_that_lie_are_noticed() {
    let sound = build(Codec::None, &[(1, None), (2, None)]);
    for count in [1i32, 3, i32::MAX] {
        let lying = patch(&patch(&sound, 57, &count.to_be_bytes()), 23, &(count - 1).to_be_bytes());
        assert_eq!(refused(&lying, &LIMITS), Some(Refused::InvalidRecord), "{count}");
    }
    // A compressed batch is walked where keys are required.
    let packed = build(Codec::Gzip, &[(1, Some(b"k")), (2, Some(b"k"))]);
    let lying = patch(&patch(&packed, 57, &3i32.to_be_bytes()), 23, &2i32.to_be_bytes());
    assert_eq!(refused(&lying, &Accept { compact: true, ..LIMITS }), Some(Refused::InvalidRecord));
    assert_eq!(refused(&packed, &Accept { compact: true, ..LIMITS }), None);
}

#[test]
fn compacted_topics_need_keys() {
    for codec in [Codec::None, Codec::Snappy] {
        let bytes = build(codec, &[(1, Some(b"k")), (1, None), (1, Some(b"k")), (1, None)]);
        let refusal = accept(&bytes, &Accept { compact: true, ..LIMITS }).err();
        let refusal = refusal.expect("refused");
        let named: Vec<i32> = refusal.records.iter().map(|(index, _)| *index).collect();
        assert_eq!((refusal.error, named), (Refused::InvalidRecord, vec![1, 3]));
        assert_eq!(refused(&bytes, &LIMITS), None);
    }
}

#[test]
fn times_outside_the_window_are_refused() {
    let window = Accept { timestamp_before_max_ms: 1000, timestamp_after_max_ms: 1000, ..LIMITS };
    for codec in [Codec::None, Codec::Lz4] {
        for (timestamp, fine) in
            [(999_000, true), (998_999, false), (1_001_000, true), (1_001_001, false), (-1, true)]
        {
            let bytes = build(codec, &[(timestamp, None)]);
            let expected = (!fine).then_some(Refused::InvalidTimestamp);
            assert_eq!(refused(&bytes, &window), expected, "{timestamp}");
            assert_eq!(refused(&bytes, &Accept { log_append_time: true, ..window }), None);
        }
    }
}

#[test]
fn each_bad_record_is_named_and_time_decides_the_error() {
    let limits = Accept { compact: true, timestamp_before_max_ms: 1000, ..LIMITS };
    let bytes = build(Codec::None, &[(1_000_000, None), (1, Some(b"k")), (1_000_000, Some(b"k")), (1, None)]);
    let refusal = accept(&bytes, &limits).expect_err("refused");
    let named: Vec<i32> = refusal.records.iter().map(|(index, _)| *index).collect();
    assert_eq!((refusal.error, named), (Refused::InvalidTimestamp, vec![0, 1, 3]));
    // Records that cannot be read come before all others.
    let lying = patch(&patch(&bytes, 57, &5i32.to_be_bytes()), 23, &4i32.to_be_bytes());
    let refusal = accept(&lying, &limits).expect_err("refused");
    assert_eq!((refusal.error, refusal.records), (Refused::InvalidRecord, vec![]));
    let many = build(Codec::Gzip, &vec![(1_000_000, None); RECORD_ERRORS_MAX + 10]);
    let refusal = accept(&many, &limits).expect_err("refused");
    assert_eq!((refusal.error, refusal.records.len()), (Refused::InvalidRecord, RECORD_ERRORS_MAX));
}

#[test]
fn a_wrong_largest_timestamp_is_put_right_where_records_are_walked() {
    for (codec, deep) in [(Codec::None, false), (Codec::Gzip, true)] {
        let limits = Accept { deep, ..LIMITS };
        let sound = build(codec, &[(500, None), (700, None), (600, None)]);
        assert_eq!(accept(&sound, &limits).expect("sound").change, None);
        // Also a time that no record could have: it is the header that is wrong.
        for claimed in [100i64, 701, i64::MAX, -2] {
            // Kafka drops the attribute bits that it does not know where it writes the batch anew.
            let wrong = patch(&patch(&sound, 35, &claimed.to_be_bytes()), 21, &[0x40, 0x80 | codec as u8]);
            let accepted = accept(&wrong, &limits).expect("taken");
            assert_eq!(accepted.change, Some(Change::MaxTimestamp(700)), "{codec:?} {claimed}");
            let stored = rewrite(&accepted, &limits).expect("rewritten").expect("another batch");
            assert_eq!(stored, patch(&sound, 21, &[0, codec as u8]));
            assert_eq!(
                accept(&wrong, &Accept { log_append_time: true, ..limits }).expect("taken").change,
                None
            );
        }
    }
}

#[test]
fn a_topic_with_a_codec_stores_every_batch_in_it() {
    let records: &[(i64, Option<&[u8]>)] = &[(500, Some(b"k")), (700, None), (-1, Some(b""))];
    for wanted in Codec::ALL {
        let limits = Accept { compression: Some(wanted.into()), ..LIMITS };
        for sent in Codec::ALL {
            let mut bytes = build(sent, records);
            if sent != wanted {
                bytes = patch(&bytes, 35, &9i64.to_be_bytes());
            }
            let accepted = accept(&bytes, &limits).expect("taken");
            let stored = rewrite(&accepted, &limits).expect("rewritten");
            let expected = (sent != wanted).then(|| build(wanted, records));
            assert_eq!(stored, expected, "{sent:?} to {wanted:?}");
        }
    }
    // Producer and sequence stay; a level is obeyed.
    let mut sent = Vec::new();
    let mut builder = BatchBuilder::new(Codec::None).producer(7, 3, 41);
    let text: Vec<u8> = (0..20_000u32).map(|i| b"abcdefgh"[(i * i % 97 % 8) as usize]).collect();
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&text), headers: &[] });
    builder.finish(&mut sent).expect("builds");
    let sizes: Vec<usize> = [1, 9]
        .map(|level| {
            let compression = Some(Compression { codec: Codec::Gzip, level: Some(level) });
            let limits = Accept { compression, ..LIMITS };
            let stored = rewrite(&accept(&sent, &limits).expect("taken"), &limits).expect("rewritten");
            let stored = stored.expect("another batch");
            let batch = Batch::only(&stored).expect("a batch");
            assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (7, 3, 41));
            batch.size()
        })
        .to_vec();
    assert!(sizes[1] < sizes[0], "{sizes:?}");
}

#[test]
fn sizes_are_checked_before_and_after_recompression() {
    let mut builder = BatchBuilder::new(Codec::Zstd);
    let mut packed = Vec::new();
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&[7; 100_000]), headers: &[] });
    builder.finish(&mut packed).expect("builds");
    let plain = Accept { compression: Some(Codec::None.into()), max_message_bytes: 10_000, ..LIMITS };
    let error = |bytes: &[u8], limits: &Accept| {
        accept(bytes, limits)
            .and_then(|accepted| rewrite(&accepted, limits))
            .err()
            .map(|refusal| refusal.error)
    };
    assert_eq!(error(&packed, &plain), Some(Refused::MessageTooLarge));
    let small = Accept { max_message_bytes: 1 << 20, segment_bytes: 10_000, ..plain };
    assert_eq!(error(&packed, &small), Some(Refused::RecordListTooLarge));
    assert_eq!(error(&packed, &Accept { max_message_bytes: 1 << 20, ..plain }), None);
    // What comes too large is refused although it would be stored small; the segment only sees what is stored.
    let unpacked = build(Codec::None, &[(1, Some(&[7; 20_000]))]);
    let zstd = Accept { compression: Some(Codec::Zstd.into()), ..plain };
    assert_eq!(error(&unpacked, &zstd), Some(Refused::MessageTooLarge));
    let zstd = Accept { max_message_bytes: 1 << 20, segment_bytes: 10_000, ..zstd };
    assert_eq!(error(&unpacked, &zstd), None);
    // A batch that says that it is small and is not.
    let mut bomb = Vec::new();
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&vec![0; 4 << 20]), headers: &[] });
    builder.finish(&mut bomb).expect("builds");
    let wide = Accept { max_message_bytes: i32::MAX, compression: Some(Codec::None.into()), ..LIMITS };
    assert_eq!(error(&bomb, &wide), Some(Refused::CorruptMessage));
    // Within the codec's budget, but too much to hold twice.
    let mut state = 1u32;
    let mut value = vec![0; RECOMPRESSED_BYTES_MAX + 1];
    for byte in value.iter_mut().step_by(1000) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let mut large = Vec::new();
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] });
    builder.finish(&mut large).expect("builds");
    assert_eq!(error(&large, &wide), Some(Refused::MessageTooLarge));
}

#[test]
fn a_record_set_may_end_in_part_of_a_batch() {
    let one = build(Codec::None, &[(1, None)]);
    let set = [&one[..], &one[..one.len() - 1]].concat();
    let mut walk = batches(&set);
    assert!(walk.next().is_some_and(|batch| batch.is_ok()));
    assert!(walk.next().is_none());
    assert_eq!(walk.rest().len(), one.len() - 1);
    let broken = patch(&one, 8, &3i32.to_be_bytes());
    let set = [&one[..], &broken[..]].concat();
    assert_eq!(batches(&set).filter(Result::is_err).count(), 1);
}

#[test]
fn a_scan_tells_what_the_records_say() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec);
        let header: (&[u8], Option<&[u8]>) = (b"h", None);
        for i in 0..50i64 {
            let value = vec![i as u8; i as usize * 100];
            builder.push(&NewRecord {
                timestamp: 1000 + i % 7,
                key: (i % 3 == 0).then_some(b"key"),
                value: Some(&value),
                headers: &[header][..(i % 2) as usize],
            });
        }
        let mut bytes = Vec::new();
        builder.finish(&mut bytes).unwrap();
        let batch = Batch::only(&bytes).unwrap();
        let mut scratch = Vec::new();
        let expected: Vec<_> = records::open(&batch, &mut scratch)
            .unwrap()
            .map(|r| r.unwrap())
            .map(|r| (r.offset_delta, r.timestamp_delta, r.key.is_some()))
            .collect();
        let mut found = Vec::new();
        let scanned = scan::scan(&batch, |r| {
            found.push((r.offset_delta, r.timestamp_delta, r.has_key));
            true
        });
        assert_eq!((scanned, found), (Ok(()), expected), "{codec:?}");
        let mut seen = 0;
        let ended = scan::scan(&batch, |_| {
            seen += 1;
            seen < 3
        });
        assert_eq!((ended, seen), (Ok(()), 3), "{codec:?}");
        let mut cut = bytes.clone();
        cut.truncate(bytes.len() - 30);
        let len = (cut.len() - 12) as i32;
        cut[8..12].copy_from_slice(&len.to_be_bytes());
        assert!(scan::scan(&Batch::only(&cut).unwrap(), |_| true).is_err(), "{codec:?}, cut");
    }
}
