//! Several shards in one broker, seen from outside: what clients are told, what changes of their number do, and that one of them being
//! busy, asleep or written to by a client that never reads harms nobody else.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use corelog::client::error::ClientError;
use corelog::client::producer::produce_request;
use corelog::client::settings::Acks;
use corelog::wire::error::codes;
use corelog::wire::msg::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use corelog::wire::msg::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    ListOffsetsRequest, MetadataRequest, ProduceRequest, StrBytes, create_partitions_request,
};

use crate::support::{Broker, Home, RESIDENT_MARGIN_BYTES, can_serve, full, serve_until_end, skip};
use crate::talk::{
    Ask, FETCH, LIST_OFFSETS, PATIENCE, PRODUCE, Talk, batch, create, list_offsets_request, one,
};

const SHARDS: usize = 4;
const MEMORY_BYTES: u64 = 192 << 20;

/// Of each shard where there are many.
const MEMORY_PER_SHARD_BYTES: u64 = 16 << 20;

fn memory_bytes(shards: usize) -> u64 {
    MEMORY_BYTES.max(shards as u64 * MEMORY_PER_SHARD_BYTES)
}

/// A broker of so many shards, which may be more than this machine has CPUs, and want more space than its disk has left.
fn start(home: &Home, shards: usize, more: &[&str]) -> Broker {
    let (shards, memory) = (format!("shards={shards}"), format!("memory={}", memory_bytes(shards)));
    let space = "log.free.bytes=268435456";
    let settings = [&[shards.as_str(), memory.as_str(), "advertise.port=0", space], more].concat();
    Broker::start(&home.data(), &settings)
}

fn start_if_can(test: &str, more: &[&str]) -> Option<(Home, Broker)> {
    can_serve(&format!("shards::{test}")).then(|| {
        let home = Home::new(&format!("shards-{test}"));
        let broker = start(&home, SHARDS, more);
        (home, broker)
    })
}

/// It runs, within its memory, and found nothing wrong with itself. Warnings are fine: it may have more shards than CPUs.
fn assert_sound(broker: &mut Broker) {
    assert_sound_with(broker, MEMORY_BYTES);
}

fn assert_sound_with(broker: &mut Broker, memory_bytes: u64) {
    let log = broker.log();
    assert!(broker.is_running(), "the broker ended:\n{log}");
    assert!(!log.contains("panicked") && !log.contains("\"level\":\"ERROR\""), "{log}");
    let resident = broker.resident_bytes();
    assert!(resident <= memory_bytes + RESIDENT_MARGIN_BYTES, "{} MiB resident", resident >> 20);
}

fn corelog(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corelog")).args(args).output().expect("it runs")
}

fn json(args: &[&str]) -> Value {
    let output = corelog(&[args, &["--format", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn produce(talk: &mut Talk, topic: &str, partition: i32, value: &[u8]) -> i64 {
    let answer = talk.produce_to(topic, partition, batch(value), Acks::All);
    assert_eq!(answer.error_code, 0, "{topic}-{partition}");
    answer.base_offset
}

/// Number of records in a partition, by its end.
fn end(talk: &mut Talk, topic: &str, partition: i32) -> i64 {
    let mut request = list_offsets_request(topic, -1);
    request.topics[0].partitions[0].partition_index = partition;
    let answer = talk.call::<ListOffsetsRequest>(LIST_OFFSETS, &request);
    one(one(answer.topics).partitions).offset
}

#[test]
fn more_shards_than_cpus_are_a_warning() {
    if !can_serve("shards::more_shards_than_cpus_are_a_warning") {
        return;
    }
    let home = Home::new("shards-more-than-cpus");
    let mut broker = start(&home, SHARDS, &["cpus=0"]);
    let log = broker.log();
    assert!(log.contains("4 shards share 1 CPU:") && log.contains("--shards 1"), "{log}");
    create(&mut broker.cluster(), "t", SHARDS as i32, &[]);
    let mut talk = Talk::to(&broker.address);
    for partition in 0..SHARDS as i32 {
        assert_eq!(produce(&mut talk, "t", partition, b"x"), 0);
    }
    assert_sound(&mut broker);
}

// Receive buffers took all of so little memory: every connection was closed.
#[test]
fn shards_with_the_least_memory_take_and_give_batches_of_the_largest_usual_size() {
    if !can_serve("shards::shards_with_the_least_memory_take_and_give") {
        return;
    }
    for (shards, memory) in [(SHARDS, 16u64 << 20), (8, 32 << 20)] {
        let home = Home::new(&format!("shards-least-memory-{shards}"));
        let mut broker = start(&home, shards, &[&format!("memory={memory}")]);
        let partitions = 3 * shards as i32;
        create(&mut broker.cluster(), "t", partitions, &[]);
        // Below Kafka's default max.message.bytes by less than what a batch adds.
        let value = vec![7; 1_048_500];
        let mut talk = Talk::to(&broker.address);
        for round in 0..3 {
            for partition in 0..partitions {
                assert_eq!(produce(&mut talk, "t", partition, &value), round, "{partition}");
            }
        }
        for partition in 0..partitions {
            let found = talk.fetch_as(&Ask { partition, ..Ask::of("t") });
            assert_eq!(found.high_watermark, 3);
            assert!(found.records.is_some_and(|records| records.len() > value.len()), "{partition}");
        }
        assert_sound_with(&mut broker, memory);
    }
}

/// Nothing is lost, and each number of shards has its share.
#[test]
fn a_directory_serves_any_number_of_shards() {
    if can_serve("shards::a_directory_serves_any_number_of_shards") {
        serves_any_number("shards-count-changes", 6, &[1, 4, 2, 3]);
    }
}

/// Many more shards than CPUs: slow, and right. `CORELOG_FULL=1` has 64 as well.
#[test]
fn many_shards_serve_restart_and_give_their_partitions_to_fewer() {
    if !can_serve("shards::many_shards_serve_restart_and_give_their_partitions_to_fewer") {
        return;
    }
    serves_any_number("shards-16", 32, &[16, 5, 16]);
    if full() {
        serves_any_number("shards-64", 128, &[64, 16, 64]);
    }
}

/// One record for each partition from each number of shards, by way of whichever shard the connection is on; all are there in each.
fn serves_any_number(home: &str, partitions: i32, counts: &[usize]) {
    let home = Home::new(home);
    for (round, shards) in counts.iter().copied().enumerate() {
        let mut broker = start(&home, shards, &[]);
        if round == 0 {
            create(&mut broker.cluster(), "t", partitions, &[]);
        }
        let mut talk = Talk::to(&broker.address);
        for partition in 0..partitions {
            let value = format!("{round}-{partition}");
            assert_eq!(produce(&mut talk, "t", partition, value.as_bytes()), round as i64);
            for before in 0..=round as i64 {
                let data = talk.fetch_as(&Ask { partition, offset: before, ..Ask::of("t") });
                let found = crate::talk::unpack(data.records.as_deref().unwrap_or_default());
                let wanted = (before, format!("{before}-{partition}").into_bytes());
                assert!(found.contains(&wanted), "{wanted:?} is gone after {shards} shards: {found:?}");
            }
        }
        let owners = json(&["cluster", "partitions", "t", "-b", &broker.address]);
        let owners: BTreeSet<u64> =
            owners.as_array().expect("a list").iter().filter_map(|p| p["shard"].as_u64()).collect();
        assert!(owners.iter().all(|owner| *owner < shards as u64), "{owners:?} of {shards}");
        // A directory of one shard stayed on the first of four.
        assert_eq!(owners.len(), shards, "each shard has partitions of its own: {owners:?}");
        assert_sound_with(&mut broker, memory_bytes(shards));
        broker.stop(PATIENCE);
    }
}

/// Produces and reads of partitions on all shards, mixed, in flight at once: answered in order, each with what it asked for.
#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let Some((_home, mut broker)) = start_if_can("pipelined", &[]) else { return };
    create(&mut broker.cluster(), "t", SHARDS as i32, &[("durability", "written")]);
    let mut talk = Talk::to(&broker.address);
    let mut sent = Vec::new();
    for i in 0..1000 {
        let partition = i % SHARDS as i32;
        let id = match i % 5 {
            4 => talk.send(LIST_OFFSETS, &list_offsets_request("t", -2)),
            _ => {
                let request = produce_request("t", partition, batch(b"value").into(), Acks::All, PATIENCE);
                talk.send(PRODUCE, &request)
            }
        };
        sent.push((id, i % 5 == 4, partition));
    }
    let mut next = [0; SHARDS];
    for (id, is_list, partition) in sent {
        if is_list {
            let (answered, response) = talk.receive::<ListOffsetsRequest>(LIST_OFFSETS);
            assert_eq!((answered, one(one(response.topics).partitions).error_code), (id, 0));
            continue;
        }
        let (answered, response) = talk.receive::<ProduceRequest>(PRODUCE);
        let outcome = one(one(response.responses).partition_responses);
        assert_eq!((answered, outcome.index, outcome.error_code), (id, partition, 0));
        let next = &mut next[partition as usize];
        assert_eq!(outcome.base_offset, *next, "records of one connection stay in order");
        *next += 1;
    }
    assert_sound(&mut broker);
}

/// As on one shard: appended once, from its last place, and answered once.
#[test]
fn a_partition_that_a_produce_names_twice_is_appended_once() {
    let Some((_home, mut broker)) = start_if_can("named-twice", &[]) else { return };
    create(&mut broker.cluster(), "t", SHARDS as i32, &[]);
    let mut talk = Talk::to(&broker.address);
    for partition in 0..SHARDS as i32 {
        let mut request = produce_request("t", partition, batch(b"first").into(), Acks::All, PATIENCE);
        let again = produce_request("t", partition, batch(b"last").into(), Acks::All, PATIENCE);
        let other = (partition + 1) % SHARDS as i32;
        let beside = produce_request("t", other, batch(b"beside").into(), Acks::All, PATIENCE);
        for more in [beside, again] {
            request.topic_data[0].partition_data.extend(more.topic_data[0].partition_data.clone());
        }
        let before = (end(&mut talk, "t", partition), end(&mut talk, "t", other));
        let response = talk.call::<ProduceRequest>(PRODUCE, &request);
        let mut answered: Vec<(i32, i16)> =
            one(response.responses).partition_responses.iter().map(|p| (p.index, p.error_code)).collect();
        answered.sort_unstable();
        let mut wanted = vec![(partition, 0), (other, 0)];
        wanted.sort_unstable();
        assert_eq!(answered, wanted);
        assert_eq!(end(&mut talk, "t", partition), before.0 + 1);
        assert_eq!(end(&mut talk, "t", other), before.1 + 1);
        let data = talk.fetch_as(&Ask { partition, offset: before.0, ..Ask::of("t") });
        let found = crate::talk::unpack(data.records.as_deref().unwrap_or_default());
        assert_eq!(found.first().expect("a record").1, b"last");
    }
    assert_sound(&mut broker);
}

/// What is in flight to other shards is answered, with the records or with the code for a partition that is gone.
#[test]
fn topics_change_while_requests_to_other_shards_are_in_flight() {
    let Some((_home, mut broker)) = start_if_can("changes", &[]) else { return };
    for round in 0..5 {
        let name = format!("t{round}");
        create(&mut broker.cluster(), &name, SHARDS as i32, &[]);
        let (mut writer, mut poller, mut admin) =
            (Talk::to(&broker.address), Talk::to(&broker.address), Talk::to(&broker.address));
        for partition in 0..SHARDS as i32 {
            produce(&mut writer, &name, partition, b"there");
        }
        let mut polls = Vec::new();
        for partition in 0..SHARDS as i32 {
            let mut talk = if partition == 0 {
                std::mem::replace(&mut poller, Talk::to(&broker.address))
            } else {
                Talk::to(&broker.address)
            };
            talk.send(FETCH, &Ask { partition, offset: 1, max_wait_ms: 10_000, ..Ask::of(&name) }.request());
            polls.push(talk);
        }
        let mut more = CreatePartitionsRequest::default();
        let mut grown = create_partitions_request::CreatePartitionsTopic::default();
        (grown.name, grown.count) = (StrBytes::from(name.as_str()), 2 * SHARDS as i32);
        grown.assignments = None;
        more.topics.push(grown);
        more.timeout_ms = 10_000;
        let mut gone = DeleteTopicsRequest::default();
        gone.topic_names.push(StrBytes::from(name.as_str()));
        gone.timeout_ms = 10_000;
        let in_flight = 40;
        for i in 0..in_flight {
            let request =
                produce_request(&name, i % SHARDS as i32, batch(b"in flight").into(), Acks::All, PATIENCE);
            writer.send(PRODUCE, &request);
            match i {
                10 => assert_eq!(one(admin.call(3, &more).results).error_code, 0),
                30 => assert_eq!(one(admin.call(5, &gone).responses).error_code, 0),
                _ => {}
            }
        }
        let mut stored = 0;
        for _ in 0..in_flight {
            let outcome = one(one(writer.receive::<ProduceRequest>(PRODUCE).1.responses).partition_responses);
            match outcome.error_code {
                0 => stored += 1,
                code => assert_eq!(code, codes::UNKNOWN_TOPIC_OR_PARTITION),
            }
        }
        assert!(stored >= 1, "nothing was stored before the topic went");
        let began = Instant::now();
        for mut poll in polls {
            let code = {
                let response = poll.receive::<corelog::wire::msg::FetchRequest>(FETCH).1;
                one(one(response.responses).partitions).error_code
            };
            assert!(code == 0 || code == codes::UNKNOWN_TOPIC_OR_PARTITION, "{code}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "polls of a deleted topic waited on");
    }
    assert_sound(&mut broker);
}

/// Many fetches of partitions on all shards, whose answers nobody takes: bounded, and others are served.
#[test]
fn a_client_that_never_reads_harms_nobody() {
    let Some((_home, mut broker)) = start_if_can("never-reads", &[]) else { return };
    create(&mut broker.cluster(), "t", SHARDS as i32, &[("durability", "written")]);
    let mut writer = Talk::to(&broker.address);
    let value = vec![7; 500_000];
    for partition in 0..SHARDS as i32 {
        for _ in 0..8 {
            produce(&mut writer, "t", partition, &value);
        }
    }
    let mut deaf: Vec<Talk> = (0..8).map(|_| Talk::to(&broker.address)).collect();
    for (i, talk) in deaf.iter_mut().enumerate() {
        let ask = Ask { partition: (i % SHARDS) as i32, ..Ask::of("t") };
        talk.send_times(50, &ask);
    }
    let began = Instant::now();
    for round in 0..20 {
        let partition = round % SHARDS as i32;
        produce(&mut writer, "t", partition, b"still served");
        let offset = end(&mut writer, "t", partition) - 1;
        let data = writer.fetch_as(&Ask { partition, offset, ..Ask::of("t") });
        assert_eq!(data.error_code, 0);
    }
    assert!(began.elapsed() < PATIENCE, "others waited {:?}", began.elapsed());
    assert_sound(&mut broker);
}

/// How long the slow shard sleeps in each turn.
const SLOW: Duration = Duration::from_millis(200);

/// The shard's own clients wait; the others do not notice, and what waits for it is bounded.
#[test]
fn a_slow_shard_harms_only_its_own_partitions() {
    let test = "shards::a_slow_shard_harms_only_its_own_partitions";
    if !can_serve(test) {
        return;
    }
    if !cfg!(debug_assertions) {
        return skip(test, "the switch exists in debug builds only");
    }
    let home = Home::new("shards-slow");
    let launcher = ["env".to_string(), format!("CORELOG_TEST_SLOW_SHARD=1:{}", SLOW.as_millis())];
    let memory = format!("memory={MEMORY_BYTES}");
    let settings = ["shards=4", &memory, "advertise=shards", "advertise.port=0"];
    let mut broker = Broker::start_under(&launcher, &home.data(), &settings).expect("it starts");
    let mut cluster = broker.cluster();
    create(&mut cluster, "t", 2 * SHARDS as i32, &[("durability", "written")]);
    cluster.list_topics().expect("brokers");
    let address = |shard: usize| cluster.brokers().nth(shard).expect("a shard").address.clone();
    // A flood for the slow shard, by way of another one, which must not keep it all in memory.
    let flood = Talk::to(&address(2));
    flood.stream().set_write_timeout(Some(Duration::from_millis(300))).expect("an open socket");
    let large = batch(&vec![1; 900_000]);
    let request =
        crate::talk::encode(1, PRODUCE, &produce_request("t", 1, large.into(), Acks::All, PATIENCE));
    let mut stream = flood.stream();
    let taken = (0..1000).take_while(|_| stream.write_all(&request).is_ok()).count();
    assert!(taken < 1000, "900 MB went to a shard that sleeps");
    let mut others = Vec::new();
    for own in (0..20).flat_map(|_| [0, 3]) {
        let mut talk = Talk::to(&address(own));
        let began = Instant::now();
        produce(&mut talk, "t", own as i32, b"at once");
        others.push(began.elapsed());
    }
    others.sort_unstable();
    let usual = others[others.len() / 2];
    let mut own = Talk::to(&address(1));
    own.stream().set_read_timeout(Some(2 * PATIENCE)).expect("an open socket");
    let began = Instant::now();
    produce(&mut own, "t", (SHARDS + 1) as i32, b"in time");
    let slow = began.elapsed();
    assert!(slow >= SLOW && usual < SLOW / 2, "{slow:?} on the slow shard, {usual:?} on others");
    assert_sound(&mut broker);
}

/// Longer than that: nobody hears of it meanwhile.
const STILL: Duration = Duration::from_secs(8);

/// Whoever connects is served by the other one. Connections of before, and those of its last half second, wait.
#[test]
fn a_shard_that_stands_still_is_sent_no_new_connection() {
    let test = "shards::a_shard_that_stands_still_is_sent_no_new_connection";
    if !can_serve(test) {
        return;
    }
    if !cfg!(debug_assertions) {
        return skip(test, "the switch exists in debug builds only");
    }
    let home = Home::new("shards-still");
    let launcher = ["env".to_string(), format!("CORELOG_TEST_SLOW_SHARD=1:{}", STILL.as_millis())];
    let memory = format!("memory={MEMORY_BYTES}");
    let mut broker = Broker::start_under(&launcher, &home.data(), &["shards=2", &memory]).expect("it starts");
    std::thread::sleep(Duration::from_secs(1));
    create(&mut broker.cluster(), "t", 1, &[("durability", "written")]);
    let mut served: Vec<(Duration, Talk)> = Vec::new();
    for _ in 0..8 {
        let began = Instant::now();
        let mut talk = Talk::to(&broker.address);
        produce(&mut talk, "t", 0, b"at once");
        served.push((began.elapsed(), talk));
    }
    served.sort_unstable_by_key(|(took, _)| *took);
    let usual = served[served.len() / 2].0;
    assert!(usual < STILL / 4, "{usual:?} where nobody had to wait");
    assert_sound(&mut broker);
}

/// Every id that clients see is that of a listed broker, whichever of them they ask.
#[test]
fn advertised_shards_are_whole_brokers_to_clients() {
    let Some((_home, mut broker)) = start_if_can("advertised", &["advertise=shards"]) else { return };
    let mut cluster = broker.cluster();
    create(&mut cluster, "t", SHARDS as i32, &[]);
    let mut talk = Talk::to(&broker.address);
    let metadata = talk.call::<MetadataRequest>(12, &MetadataRequest::default());
    let all = {
        let mut request = MetadataRequest::default();
        request.topics = None;
        talk.call::<MetadataRequest>(12, &request)
    };
    let listed: BTreeSet<i32> = metadata.brokers.iter().map(|b| b.node_id).collect();
    assert_eq!(listed.len(), SHARDS);
    assert!(listed.contains(&metadata.controller_id), "the controller is nobody");
    let leaders: BTreeSet<i32> = one(all.topics)
        .partitions
        .iter()
        .map(|p| {
            let leader: i32 = p.leader_id;
            assert_eq!((p.replica_nodes.len(), p.isr_nodes.len()), (1, 1));
            assert_eq!((p.replica_nodes[0], p.isr_nodes[0]), (leader, leader));
            leader
        })
        .collect();
    assert_eq!(leaders, listed, "one partition on each");
    let mut described = DescribeClusterRequest::default();
    described.endpoint_type = 1;
    let described = talk.call(1, &described);
    assert!(listed.contains(&described.controller_id));
    assert_eq!(described.brokers.iter().map(|b| b.broker_id).collect::<BTreeSet<_>>(), listed);
    for id in &listed {
        let configs = cluster.broker_configs(*id).expect("the configs of a listed broker");
        assert!(configs.iter().any(|config| config.name == "shards"), "{id}");
    }
    assert!(cluster.broker_configs(77).is_err(), "nobody has this id");
    assert_sound(&mut broker);
}

fn create_at(talk: &mut Talk, name: &str, places: &[&[i32]]) -> (i16, String) {
    let mut topic = CreatableTopic::default();
    topic.name = StrBytes::from(name);
    (topic.num_partitions, topic.replication_factor) = (-1, -1);
    for (index, brokers) in places.iter().enumerate() {
        let mut place = CreatableReplicaAssignment::default();
        place.partition_index = index as i32;
        place.broker_ids = brokers.to_vec();
        topic.assignments.push(place);
    }
    let mut request = CreateTopicsRequest::default();
    request.topics.push(topic);
    request.timeout_ms = 10_000;
    let answer = one(talk.call(5, &request).topics);
    (answer.error_code, answer.error_message.map(|text| text.to_string()).unwrap_or_default())
}

/// A shard's broker id places a partition there, also for the next start under another advertisement.
#[test]
fn an_assignment_to_a_shards_broker_places_the_partition_there() {
    let Some((home, broker)) = start_if_can("assigned", &["advertise=shards"]) else { return };
    let shards = json(&["cluster", "shards", "-b", &broker.address]);
    let id = |shard: usize| shards["shards"][shard]["broker_id"].as_i64().expect("an id") as i32;
    let mut talk = Talk::to(&broker.address);
    assert_eq!(create_at(&mut talk, "t", &[&[id(3)], &[id(3)], &[id(1)]]).0, 0);
    let (code, why) = create_at(&mut talk, "two", &[&[id(0), id(1)]]);
    assert_eq!(code, codes::INVALID_REPLICA_ASSIGNMENT, "{why}");
    assert!(why.contains("shards of one broker"), "{why}");
    let (code, why) = create_at(&mut talk, "none", &[&[1]]);
    assert_eq!(code, codes::INVALID_REPLICA_ASSIGNMENT, "{why}");
    let copies = corelog(&["topic", "create", "copies", "-r", "2", "-b", &broker.address]);
    assert!(!copies.status.success(), "shards hold no copies of each other");
    let owners = |broker: &Broker| {
        let all = json(&["topic", "describe", "t", "-b", &broker.address]);
        let partitions = all["partitions"].as_array().expect("a list").clone();
        partitions.iter().map(|p| (p["shard"].as_u64(), p["leader"].as_i64())).collect::<Vec<_>>()
    };
    let led = |shard: usize| (Some(shard as u64), Some(i64::from(id(shard))));
    assert_eq!(owners(&broker), [led(3), led(3), led(1)]);
    broker.stop(PATIENCE);
    let broker = start(&home, SHARDS, &["advertise=broker"]);
    assert_eq!(owners(&broker), [(Some(3), Some(1)), (Some(3), Some(1)), (Some(1), Some(1))]);
}

/// Each way to accept serves; the default spreads evenly, and nobody else gets the port.
#[test]
fn connections_spread_and_the_port_stays_ours() {
    for accept in ["balanced", "shared", "reuseport"] {
        let setting = format!("shard.accept={accept}");
        let Some((home, mut broker)) = start_if_can(&format!("accept-{accept}"), &[&setting]) else { return };
        create(&mut broker.cluster(), "t", SHARDS as i32, &[]);
        let mut talks: Vec<Talk> = (0..40).map(|_| Talk::to(&broker.address)).collect();
        for (i, talk) in talks.iter_mut().enumerate() {
            produce(talk, "t", (i % SHARDS) as i32, b"x");
        }
        let shards = json(&["cluster", "shards", "-b", &broker.address]);
        assert_eq!(shards["accept"], accept);
        let count = |shard: &Value| shard["connections"].as_u64().expect("a count");
        let counts: Vec<u64> = shards["shards"].as_array().expect("a list").iter().map(count).collect();
        // Those of the command itself are there too.
        assert!((40..=42).contains(&counts.iter().sum::<u64>()), "{counts:?}");
        if accept == "balanced" {
            assert!(counts.iter().all(|count| (9..=12).contains(count)), "{counts:?}");
        }
        let other = home.dir.join("other");
        let arguments =
            ["--data-dir", other.to_str().expect("plain"), "--listen", &broker.address, "-X", &setting];
        let output = serve_until_end(&arguments, PATIENCE);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.contains("error[port-in-use]"), "{said}");
        drop(talks);
        assert_sound(&mut broker);
    }
}

/// What a shard tells of itself grows with what is asked of it.
#[test]
fn the_figures_of_shards_follow_the_load() {
    let Some((_home, mut broker)) = start_if_can("figures", &["shard.handover.requests=0"]) else { return };
    create(&mut broker.cluster(), "t", SHARDS as i32, &[]);
    let mut talk = Talk::to(&broker.address);
    let requests = 40;
    for i in 0..requests {
        produce(&mut talk, "t", i % SHARDS as i32, &[1; 10_000]);
    }
    std::thread::sleep(Duration::from_millis(1_500));
    let document = json(&["cluster", "shards", "-b", &broker.address]);
    let rows = document["shards"].as_array().expect("a list");
    assert_eq!(rows.len(), SHARDS);
    let of = |row: &Value, field: &str| row[field].as_u64().unwrap_or_else(|| panic!("no {field} in {row}"));
    let sum = |field: &str| rows.iter().map(|row| of(row, field)).sum::<u64>();
    assert!(rows.iter().all(|row| of(row, "partitions") == 1 && of(row, "commits_total") > 0));
    assert!(sum("requests_total") >= requests as u64);
    assert!(sum("received_bytes_total") > 400_000, "{}", sum("received_bytes_total"));
    assert!(sum("sent_bytes_total") > 0 && sum("flushes_total") > 0 && sum("pool_used_bytes") > 0);
    assert!(sum("commit_bytes_total") > 400_000 && sum("zeroed_bytes_total") > 0);
    assert_eq!((sum("segments_made_total"), sum("segments_recycled_total")), (SHARDS as u64, 0));
    // The connection lives on one shard, three quarters of its requests are for the others; the topic's creation may hop as well.
    let hops = sum("hops_sent_total");
    assert!((30..=31).contains(&hops) && sum("hops_served_total") == hops, "{document}");
    assert!(
        rows.iter()
            .all(|row| of(row, "busy_ns") < of(row, "elapsed_ns") && of(row, "busy_permille") <= 1_000)
    );
    assert!(sum("cpu_ns") > 0);
    for format in ["text", "wide", "yaml"] {
        let output = corelog(&["cluster", "shards", "-b", &broker.address, "--format", format]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{format}");
    }
    assert_sound(&mut broker);
}

/// Passes frames on to a broker, and closes the connection on a key that Kafka does not know: as a broker of another make.
fn stranger(broker: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut there) =
                (client.expect("a client"), TcpStream::connect(&broker).expect("the broker accepts"));
            let (mut back, mut from) =
                (client.try_clone().expect("a socket"), there.try_clone().expect("a socket"));
            std::thread::spawn(move || std::io::copy(&mut from, &mut back));
            std::thread::spawn(move || {
                let mut prefix = [0; 4];
                while client.read_exact(&mut prefix).is_ok() {
                    let mut frame = vec![0; i32::from_be_bytes(prefix) as usize];
                    let whole = client.read_exact(&mut frame).is_ok();
                    if !whole || i16::from_be_bytes([frame[0], frame[1]]) > 200 {
                        break;
                    }
                    there.write_all(&[&prefix[..], &frame].concat()).expect("the broker reads");
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = there.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

#[test]
fn a_broker_of_another_make_is_told_apart() {
    let Some((_home, broker)) = start_if_can("stranger", &["advertise=broker"]) else { return };
    create(&mut broker.cluster(), "t", 1, &[]);
    let address = stranger(broker.address.clone());
    for command in [&["cluster", "shards"][..], &["cluster", "partitions"]] {
        // Metadata leads past the stranger, so it is the bootstrap address that is asked.
        let output = corelog(&[command, &["-b", &address]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error[not-corelog]") && said.contains(&address), "{said}");
    }
    let described = json(&["topic", "describe", "t", "-b", &address]);
    assert_eq!(described["partitions"][0]["leader"], 1);
    assert!(described["partitions"][0].get("shard").is_none(), "{described}");
    let mut cluster = corelog::client::cluster::Cluster::new(corelog::client::settings::Settings {
        brokers: vec![address],
        ..Default::default()
    });
    assert!(matches!(cluster.shards(), Err(ClientError::NotCorelog { .. })));
}
