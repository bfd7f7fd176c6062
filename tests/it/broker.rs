//! What clients rely on every day, asked of a real broker over TCP: records in and out, long polls, offsets by time, topics and
//! their settings, idempotent producers, order on one connection, the durability levels.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use corelog::client::admin::Change;
use corelog::client::settings::Acks;
use corelog::wire::batch::build::{BatchBuilder, NewRecord};
use corelog::wire::codec::Codec;
use corelog::wire::error::codes;
use corelog::wire::msg::metadata_request::MetadataRequestTopic;
use corelog::wire::msg::{FetchRequest, MetadataRequest, ProduceRequest, StrBytes};

use crate::support::{Broker, Home, can_serve};
use crate::talk::{
    Ask, FETCH, PATIENCE, PRODUCE, Talk, batch, batch_of, create, one, produce_unanswered, sequenced, unpack,
};

/// A broker on a fresh directory, if one can run here.
fn start(test: &str, settings: &[&str]) -> Option<(Home, Broker)> {
    if !can_serve(&format!("broker::{test}")) {
        return None;
    }
    let home = Home::new(test);
    let broker = Broker::start(&home.data(), settings);
    Some((home, broker))
}

#[test]
fn records_come_back_as_they_were_produced() {
    let Some((_home, mut broker)) = start("records_come_back_as_they_were_produced", &[]) else { return };
    let mut cluster = broker.cluster();
    let mut talk = Talk::to(&broker.address);
    for acks in [Acks::None, Acks::Leader, Acks::All] {
        let topic = format!("acks-{}", acks.text());
        create(&mut cluster, &topic, 1, &[]);
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for codec in Codec::ALL {
            let values: Vec<Vec<u8>> =
                (0..50).map(|i| format!("{codec:?} {i} ").repeat(i % 7).into_bytes()).collect();
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let bytes = batch_of(codec, &values);
            if acks == Acks::None {
                talk.produce_silently(&topic, bytes);
            } else {
                let answer = talk.produce_to(&topic, 0, bytes, acks);
                assert_eq!((answer.error_code, answer.base_offset), (0, sent.len() as i64));
            }
            sent.extend(values.iter().map(|v| v.to_vec()));
        }
        let began = Instant::now();
        let mut found = talk.values(&topic, 0);
        while found.len() < sent.len() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
            found = talk.values(&topic, 0);
        }
        let sent: Vec<(i64, Vec<u8>)> = (0..).zip(sent).collect();
        assert_eq!(found, sent, "{topic}");
    }
    broker.assert_healthy();
}

#[test]
fn a_long_poll_ends_with_a_record_or_with_its_time() {
    let Some((_home, broker)) = start("a_long_poll_ends_with_a_record_or_with_its_time", &[]) else { return };
    create(&mut broker.cluster(), "polled", 1, &[]);
    let (mut waiting, mut producing) = (Talk::to(&broker.address), Talk::to(&broker.address));
    let began = Instant::now();
    let nothing = waiting.fetch_as(&Ask { max_wait_ms: 300, ..Ask::of("polled") });
    assert_eq!((nothing.error_code, nothing.records.map_or(0, |r| r.len())), (0, 0));
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(295), "answered after {waited:?}, before its time");
    assert!(waited < Duration::from_secs(5), "{waited:?}");

    let ask = Ask { max_wait_ms: 15_000, ..Ask::of("polled") };
    waiting.send(FETCH, &ask.request());
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    assert_eq!(producing.produce("polled", batch(b"news")).error_code, 0);
    let (_, response) = waiting.receive::<FetchRequest>(FETCH);
    assert!(began.elapsed() < Duration::from_secs(5), "woken after {:?}", began.elapsed());
    let data = one(one(response.responses).partitions);
    assert_eq!(unpack(&data.records.expect("records")), [(0, b"news".to_vec())]);
}

#[test]
fn a_long_poll_waits_for_its_bytes() {
    let Some((_home, broker)) = start("a_long_poll_waits_for_its_bytes", &[]) else { return };
    create(&mut broker.cluster(), "bytes", 1, &[]);
    let (mut waiting, mut producing) = (Talk::to(&broker.address), Talk::to(&broker.address));
    let value = vec![b'v'; 1000];
    assert_eq!(producing.produce("bytes", batch(&value)).error_code, 0);
    waiting.send(FETCH, &Ask { max_wait_ms: 15_000, min_bytes: 3000, ..Ask::of("bytes") }.request());
    let began = Instant::now();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(producing.produce("bytes", batch(&value)).error_code, 0);
    }
    let (_, response) = waiting.receive::<FetchRequest>(FETCH);
    let records = one(one(response.responses).partitions).records.expect("records");
    assert_eq!(unpack(&records).len(), 3);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_fetch_keeps_its_limits_but_brings_at_least_one_batch() {
    let Some((_home, broker)) = start("a_fetch_keeps_its_limits", &[]) else { return };
    create(&mut broker.cluster(), "limits", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    let value = vec![b'v'; 10_000];
    for _ in 0..6 {
        assert_eq!(talk.produce("limits", batch_of(Codec::None, &[&value, &value, &value])).error_code, 0);
    }
    let whole = batch_of(Codec::None, &[&value, &value, &value]).len() as i32;
    let mut offsets = |ask: Ask<'_>| -> Vec<i64> {
        let records = talk.fetch_as(&ask).records.unwrap_or_default();
        unpack(&records).into_iter().map(|(offset, _)| offset).collect()
    };
    let of = || Ask::of("limits");
    assert_eq!(offsets(Ask { max_bytes: 1, ..of() }), [0, 1, 2], "one batch over the limit");
    assert_eq!(offsets(Ask { partition_max_bytes: 0, ..of() }), [0, 1, 2]);
    assert_eq!(offsets(Ask { partition_max_bytes: 2 * whole, ..of() }).len(), 6);
    assert_eq!(offsets(Ask { max_bytes: 2 * whole + 1, ..of() }).len(), 6, "no cut batch");
    assert_eq!(
        offsets(Ask { offset: 4, max_bytes: whole, ..of() }),
        [3, 4, 5],
        "the batch around the offset"
    );
    assert_eq!(offsets(Ask { offset: 17, ..of() }), [15, 16, 17]);
    assert_eq!(offsets(Ask { offset: 18, ..of() }), [0; 0]);
    assert_eq!(talk.fetch("limits", 19).error_code, codes::OFFSET_OUT_OF_RANGE);
    assert_eq!(talk.fetch("limits", -1).error_code, codes::OFFSET_OUT_OF_RANGE);
}

#[test]
fn records_are_found_by_time_in_every_codec() {
    let Some((_home, broker)) = start("records_are_found_by_time", &[]) else { return };
    let mut cluster = broker.cluster();
    let mut talk = Talk::to(&broker.address);
    for codec in Codec::ALL {
        let topic = format!("times-{codec:?}");
        create(&mut cluster, &topic, 1, &[]);
        for first in [1000, 2000, 3000] {
            let mut builder = BatchBuilder::new(codec);
            for timestamp in [first, first + 100, first + 50] {
                builder.push(&NewRecord {
                    timestamp,
                    value: Some(b"value value value"),
                    ..NewRecord::default()
                });
            }
            let mut bytes = Vec::new();
            builder.finish(&mut bytes).expect("a batch");
            assert_eq!(talk.produce(&topic, bytes).error_code, 0);
        }
        let mut at = |timestamp| {
            let found = talk.list_offset(&topic, timestamp);
            assert_eq!(found.error_code, 0);
            (found.offset, found.timestamp)
        };
        assert_eq!(at(0), (0, 1000), "{codec:?}");
        assert_eq!(at(1001), (1, 1100), "{codec:?}");
        assert_eq!(at(1101), (3, 2000), "{codec:?}");
        assert_eq!(at(3100), (7, 3100), "{codec:?}");
        assert_eq!(at(3101), (-1, -1), "{codec:?}");
        assert_eq!(at(-3), (7, 3100), "the newest record, {codec:?}");
        assert_eq!((at(-1).0, at(-2).0), (9, 0), "{codec:?}");
    }
}

fn metadata_of(talk: &mut Talk, topic: &str, create: bool) -> (i16, usize) {
    let mut wanted = MetadataRequestTopic::default();
    wanted.name = Some(StrBytes::from(topic));
    let mut request = MetadataRequest::default();
    request.topics = Some(vec![wanted]);
    request.allow_auto_topic_creation = create;
    let found = one(talk.call(9, &request).topics);
    (found.error_code, found.partitions.len())
}

#[test]
fn asking_for_an_unknown_topic_creates_it_if_allowed() {
    let Some((_home, broker)) = start("asking_for_an_unknown_topic", &["num.partitions=3"]) else { return };
    let mut talk = Talk::to(&broker.address);
    assert_eq!(metadata_of(&mut talk, "wanted", false), (codes::UNKNOWN_TOPIC_OR_PARTITION, 0));
    assert_eq!(metadata_of(&mut talk, "wanted", false), (codes::UNKNOWN_TOPIC_OR_PARTITION, 0));
    assert_eq!(metadata_of(&mut talk, "wanted", true), (codes::UNKNOWN_TOPIC_OR_PARTITION, 0));
    let began = Instant::now();
    while metadata_of(&mut talk, "wanted", true) != (0, 3) {
        assert!(began.elapsed() < PATIENCE, "the topic never appears");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(talk.produce("wanted", batch(b"x")).error_code, 0);
}

#[test]
fn topics_come_grow_and_go() {
    let Some((_home, broker)) = start("topics_come_grow_and_go", &[]) else { return };
    let mut cluster = broker.cluster();
    let mut talk = Talk::to(&broker.address);
    create(&mut cluster, "t", 2, &[("retention.ms", "1000000")]);
    assert_eq!(talk.produce_to("t", 1, batch(b"one"), Acks::All).error_code, 0);
    assert_eq!(talk.produce_to("t", 2, batch(b"x"), Acks::All).error_code, codes::UNKNOWN_TOPIC_OR_PARTITION);
    cluster.create_partitions("t", 4).expect("grown");
    assert_eq!(talk.produce_to("t", 3, batch(b"three"), Acks::All).error_code, 0);
    let first_id = cluster.topic("t").expect("is there").id;
    cluster.delete_topic("t").expect("deleted");
    assert_eq!(talk.produce_to("t", 1, batch(b"x"), Acks::All).error_code, codes::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(talk.fetch("t", 0).error_code, codes::UNKNOWN_TOPIC_OR_PARTITION);
    create(&mut cluster, "t", 2, &[]);
    assert_ne!(cluster.topic("t").expect("is there").id, first_id, "another topic of the same name");
    assert_eq!(talk.produce_to("t", 1, batch(b"new"), Acks::All).base_offset, 0);
    assert_eq!(talk.fetch("t", 0).high_watermark, 0);
    let retention = cluster.topic_configs("t").expect("configs");
    let retention = retention.iter().find(|c| c.name == "retention.ms").expect("a known key");
    assert!(!retention.own, "settings of the old topic are gone");
}

#[test]
fn deleting_a_topic_answers_the_long_polls_on_it() {
    let Some((_home, broker)) = start("deleting_answers_long_polls", &[]) else { return };
    let mut cluster = broker.cluster();
    create(&mut cluster, "leaving", 1, &[]);
    let mut waiting = Talk::to(&broker.address);
    waiting.send(FETCH, &Ask { max_wait_ms: 15_000, ..Ask::of("leaving") }.request());
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    cluster.delete_topic("leaving").expect("deleted");
    let (_, response) = waiting.receive::<FetchRequest>(FETCH);
    assert_eq!(one(one(response.responses).partitions).error_code, codes::UNKNOWN_TOPIC_OR_PARTITION);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn trimmed_records_are_gone() {
    let Some((home, broker)) = start("trimmed_records_are_gone", &[]) else { return };
    let mut cluster = broker.cluster();
    create(&mut cluster, "trimmed", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    for i in 0..10u8 {
        assert_eq!(talk.produce("trimmed", batch(&[i])).error_code, 0);
    }
    assert_eq!(cluster.delete_records("trimmed", 0, 4).expect("trimmed"), 4);
    assert_eq!(cluster.delete_records("trimmed", 0, 2).expect("nothing to do"), 4);
    let refused = cluster.delete_records("trimmed", 0, 11).expect_err("beyond the end");
    assert_eq!(refused.code(), Some(codes::OFFSET_OUT_OF_RANGE));
    assert_eq!(talk.fetch("trimmed", 3).error_code, codes::OFFSET_OUT_OF_RANGE);
    assert_eq!(talk.list_offset("trimmed", -2).offset, 4);
    assert_eq!(talk.values("trimmed", 4).len(), 6);
    broker.stop(PATIENCE);
    let broker = Broker::start(&home.data(), &[]);
    let mut talk = Talk::to(&broker.address);
    assert_eq!(talk.list_offset("trimmed", -2).offset, 4, "still trimmed after a restart");
    assert_eq!(talk.values("trimmed", 4).len(), 6);
    assert_eq!(broker.cluster().delete_records("trimmed", 0, -1).expect("everything"), 10);
    assert_eq!(talk.fetch("trimmed", 10).high_watermark, 10);
}

#[test]
fn a_changed_setting_is_obeyed_at_once() {
    let Some((_home, broker)) = start("a_changed_setting_is_obeyed", &[]) else { return };
    let mut cluster = broker.cluster();
    create(&mut cluster, "set", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    let bytes = batch(&[7; 5000]);
    assert_eq!(talk.produce("set", bytes.clone()).error_code, 0);
    let set = |value: &str| Change::Set { name: "max.message.bytes".into(), value: value.into() };
    cluster.alter_topic("set", &[set("4000")]).expect("altered");
    assert_eq!(talk.produce("set", bytes.clone()).error_code, codes::MESSAGE_TOO_LARGE);
    cluster.alter_topic("set", &[Change::Delete { name: "max.message.bytes".into() }]).expect("altered");
    assert_eq!(talk.produce("set", bytes).error_code, 0);
    let refused = cluster.alter_topic("set", &[set("many")]).expect_err("not a number");
    assert_eq!(refused.code(), Some(codes::INVALID_CONFIG));
}

/// Duplicates get their first answer, gaps and old epochs are refused; the same after a stop and after a kill.
#[test]
fn an_idempotent_producer_is_recognised_over_restarts() {
    let Some((home, broker)) = start("an_idempotent_producer_is_recognised", &[]) else { return };
    let mut cluster = broker.cluster();
    create(&mut cluster, "once", 1, &[]);
    let (id, epoch) = cluster.init_producer_id().expect("an id");
    let me = (id.0, epoch.0);
    let mut broker = Some(broker);
    let mut talk = Talk::to(&broker.as_ref().expect("running").address);
    let mut produced = 0;
    for restart in ["none", "stop", "kill"] {
        if restart != "none" {
            let old = broker.take().expect("running");
            match restart {
                "stop" => drop(old.stop(PATIENCE)),
                _ => old.kill(),
            }
            let again = broker.insert(Broker::start(&home.data(), &[]));
            talk = Talk::to(&again.address);
        }
        let mut answer = |sequence, count: usize| {
            let values = vec![&b"v"[..]; count];
            let answer = talk.produce("once", sequenced(me, sequence, &values));
            (answer.error_code, answer.base_offset)
        };
        if produced > 0 {
            for back in 1..=3 {
                let (sequence, at) = (produced - 2 * back, i64::from(produced - 2 * back));
                assert_eq!(answer(sequence, 2), (0, at), "a duplicate, restart: {restart}");
            }
        }
        if produced > 0 {
            assert_eq!(answer(produced + 2, 2).0, codes::OUT_OF_ORDER_SEQUENCE_NUMBER, "restart: {restart}");
        }
        for _ in 0..6 {
            assert_eq!(answer(produced, 2), (0, i64::from(produced)), "restart: {restart}");
            produced += 2;
        }
        assert_eq!(answer(produced - 10, 2), (0, i64::from(produced - 10)), "the fifth last");
        assert_eq!(answer(produced - 12, 2).0, codes::OUT_OF_ORDER_SEQUENCE_NUMBER, "the sixth last");
        assert_eq!(talk.values("once", 0).len(), produced as usize, "nothing twice, restart: {restart}");
    }
    let bumped = (me.0, me.1 + 1);
    assert_eq!(talk.produce("once", sequenced(bumped, 0, &[b"v"])).error_code, 0);
    let fenced = talk.produce("once", sequenced(me, produced, &[b"v"]));
    assert_eq!(fenced.error_code, codes::INVALID_PRODUCER_EPOCH);
}

/// Two hundred requests written at once, mixed with acks=0, which has no answer.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let Some((_home, mut broker)) = start("pipelined_requests", &[]) else { return };
    create(&mut broker.cluster(), "line", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    let mut expected = Vec::new();
    for i in 0..200 {
        match i % 4 {
            0 => drop(talk.send(PRODUCE, &produce_unanswered("line", batch(b"silent")))),
            1 => {
                let request = corelog::client::producer::produce_request(
                    "line",
                    0,
                    batch(b"answered").into(),
                    if i % 8 == 1 { Acks::Leader } else { Acks::All },
                    PATIENCE,
                );
                expected.push(("produce", talk.send(PRODUCE, &request)));
            }
            2 => expected.push(("metadata", talk.send(9, &MetadataRequest::default()))),
            _ => {
                let ask = Ask { offset: i / 4, max_wait_ms: 5, ..Ask::of("line") };
                expected.push(("fetch", talk.send(FETCH, &ask.request())));
            }
        }
    }
    for (what, id) in expected {
        let found = match what {
            "produce" => {
                let (found, response) = talk.receive::<ProduceRequest>(PRODUCE);
                assert_eq!(one(one(response.responses).partition_responses).error_code, 0);
                found
            }
            "metadata" => talk.receive::<MetadataRequest>(9).0,
            _ => talk.receive::<FetchRequest>(FETCH).0,
        };
        assert_eq!(found, id, "{what}");
    }
    assert_eq!(talk.values("line", 0).len(), 100);
    broker.assert_healthy();
}

#[test]
fn many_producers_on_many_partitions_keep_their_order() {
    let Some((_home, mut broker)) = start("many_producers", &[]) else { return };
    create(&mut broker.cluster(), "many", 8, &[]);
    std::thread::scope(|scope| {
        for partition in 0..8 {
            let address = &broker.address;
            scope.spawn(move || {
                let mut talk = Talk::to(address);
                for i in 0..50i64 {
                    let answer = talk.produce_to("many", partition, batch(&i.to_be_bytes()), Acks::All);
                    assert_eq!((answer.error_code, answer.base_offset), (0, i));
                }
                let data = talk.fetch_as(&Ask { partition, ..Ask::of("many") });
                let found = unpack(&data.records.expect("records"));
                let values: BTreeSet<Vec<u8>> = found.iter().map(|(_, v)| v.clone()).collect();
                assert_eq!((found.len(), values.len(), data.high_watermark), (50, 50, 50));
            });
        }
    });
    broker.assert_healthy();
}

/// What each level promises over a stop; over a kill, `durable` and `written` promise the same.
#[test]
fn durability_levels_keep_what_they_promise() {
    let Some((home, broker)) = start("durability_levels", &[]) else { return };
    let levels = ["durable", "written", "memory"];
    let mut cluster = broker.cluster();
    let mut talk = Talk::to(&broker.address);
    for level in levels {
        create(&mut cluster, level, 1, &[("durability", level)]);
        for i in 0..20u8 {
            assert_eq!(talk.produce(level, batch(&[i])).error_code, 0);
        }
        assert_eq!(talk.values(level, 0).len(), 20, "{level}: acknowledged is visible");
    }
    broker.stop(PATIENCE);
    let broker = Broker::start(&home.data(), &[]);
    let mut talk = Talk::to(&broker.address);
    for level in levels {
        assert_eq!(talk.values(level, 0).len(), 20, "{level} after a stop");
        for i in 20..40u8 {
            assert_eq!(talk.produce(level, batch(&[i])).error_code, 0);
        }
    }
    broker.kill();
    let mut broker = Broker::start(&home.data(), &[]);
    let mut talk = Talk::to(&broker.address);
    for level in levels {
        let found = talk.values(level, 0);
        assert!(found.len() == 40 || level == "memory", "{level} after a kill: {} records", found.len());
        assert!(found.len() >= 20, "{level}: what a stop had kept is lost");
        assert!(
            found.iter().zip(0..).all(|((offset, value), i)| (*offset, value[0] as i64) == (i, i)),
            "{level}"
        );
    }
    assert!(broker.is_running());
}

/// Segments roll and records come from disk as well as from memory.
#[test]
fn a_log_of_many_segments_reads_as_one() {
    let settings = ["log.segment.bytes=1048576", "memory.tail.cache=4194304"];
    let Some((home, broker)) = start("a_log_of_many_segments", &settings) else { return };
    // Its records are stamped in 1970.
    create(&mut broker.cluster(), "long", 1, &[("retention.ms", "-1")]);
    let mut talk = Talk::to(&broker.address);
    let value = |i: i64| [&i.to_be_bytes()[..], &vec![i as u8; 30_000]].concat();
    for i in 0..400i64 {
        assert_eq!(talk.produce("long", batch(&value(i))).base_offset, i);
    }
    let check = |talk: &mut Talk, what: &str| {
        let found = talk.values("long", 0);
        assert_eq!(found.len(), 400, "{what}");
        assert!(found.iter().zip(0..).all(|((at, v), i)| *at == i && *v == value(i)), "{what}");
    };
    check(&mut talk, "while it runs");
    broker.stop(PATIENCE);
    let mut broker = Broker::start(&home.data(), &settings);
    let mut talk = Talk::to(&broker.address);
    check(&mut talk, "after a restart");
    assert_eq!(talk.produce("long", batch(&value(400))).base_offset, 400);
    broker.assert_healthy();
}
