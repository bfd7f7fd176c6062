//! Whole brokers of one shard on the simulator's disk: what starts and stops do with a directory.

use std::path::{Path, PathBuf};

use super::assemble::assemble;
use super::pump::Node;
use super::source::IoSource;
use crate::base::error::Fatal;
use crate::base::ids::{PartitionIndex, PartitionKey, ShardId};
use crate::config::source::{Loader, Source as From};
use crate::controller::configs::{Alter, AlterResource};
use crate::controller::journal::{BLOCK, JOURNAL_BYTES_MAX, Txn};
use crate::controller::metastore::{FOLDER, journal_name};
use crate::controller::topics::NewTopic;
use crate::io::clock::Clock;
use crate::io::sim::{DiskConfig, Faults, World};
use crate::io::{DirEntry, Io, Op, OpenMode};
use crate::log::store::Source;
use crate::router::message::{Message, Produce, ProducePart, Ticket};
use crate::shard::Cx;
use crate::wire::batch::build::{BatchBuilder, NewRecord};
use crate::wire::codec::Codec;

const DATA: &str = "/data";
const POOL_BYTES: usize = 32 << 20;

/// Turns that any test may take for one thing.
const TURNS_MAX: usize = 10_000;

/// Kafka's number for topics, in requests that alter configurations.
const OF_TOPIC: i8 = 2;

fn world() -> World {
    let world = World::new(5, Faults::none());
    world.add_disk(DATA, DiskConfig::default());
    world
}

fn io(world: &World) -> Io {
    Io::Sim(Box::new(world.io(world.start_process(), POOL_BYTES)))
}

fn start(world: &World) -> Result<Node, Fatal> {
    let mut loader = Loader::default();
    for (key, value) in [("log.dirs", DATA), ("listeners", "PLAINTEXT://127.0.0.1:9092"), ("shards", "1")] {
        loader.set(From::Flag, key, value)?;
    }
    let (mut nodes, _) = assemble(vec![io(world)], loader.finish()?, POOL_BYTES as u64)?;
    Ok(nodes.remove(0))
}

// Two shards of a node with a large id were one broker to clients: both got the largest id that there is.
#[test]
fn every_advertised_shard_has_an_id_of_its_own_or_the_start_is_refused() {
    let advertised = |node: &str| {
        let world = world();
        let mut loader = Loader::default();
        let pairs = [("log.dirs", DATA), ("shards", "2"), ("advertise", "shards"), ("node.id", node)];
        for (key, value) in pairs {
            loader.set(From::Flag, key, value)?;
        }
        let (nodes, _) = assemble(vec![io(&world), io(&world)], loader.finish()?, POOL_BYTES as u64)?;
        Ok(nodes[0].meta.image.brokers.iter().map(|broker| broker.id.0).collect::<Vec<_>>())
    };
    assert_eq!(advertised("2097151"), Ok(vec![2_147_482_625, 2_147_482_626]));
    for node in ["2097152", "3000000"] {
        let refused: Fatal = advertised(node).expect_err("no such ids");
        assert_eq!(refused.code, "bad-config-value");
        assert!(refused.tries[0].contains("node.id=2097151 or less"), "{refused}");
    }
}

/// What a start says that must not succeed.
fn refusal(world: &World) -> Fatal {
    match start(world) {
        Ok(_) => panic!("it starts"),
        Err(fatal) => fatal,
    }
}

/// Decides on a topic of one partition; returns the number of that decision.
fn decide(node: &mut Node, name: &str) -> u64 {
    let Node { meta, .. } = node;
    let topic =
        NewTopic { name: name.to_string(), partitions: 1, replication_factor: 1, ..NewTopic::default() };
    let controller = meta.controller.as_mut().expect("the controller's shard");
    let created = controller.create_topics(&[topic], false, || meta.ids.draw());
    assert!(created.reply[0].1.is_ok());
    created.after
}

fn create(node: &mut Node, name: &str) {
    decide(node, name);
    turn_until(node, |node| node.meta.image.topic(name).is_some());
}

fn turn_until(node: &mut Node, there: impl Fn(&Node) -> bool) {
    for _ in 0..TURNS_MAX {
        if there(node) {
            return;
        }
        node.turn();
    }
    panic!("it does not come to that");
}

fn stop(mut node: Node) {
    node.begin_stop();
    turn_until(&mut node, Node::is_stopped);
}

/// The topics of a broker, by name.
fn topics(node: &Node) -> Vec<&str> {
    node.meta.image.topics().map(|topic| topic.name.as_str()).collect()
}

fn list(world: &World, dir: &Path) -> Vec<DirEntry> {
    io(world).list_dir(dir).expect("a directory")
}

/// A start that found no file handle to list a topic's directory with took its partitions for new ones. They began at offset 0 again, and
/// the segments that were there were removed one by one as new ones came.
#[test]
fn a_topic_whose_directory_cannot_be_listed_ends_the_start() {
    let world = world();
    let mut node = start(&world).expect("a new directory");
    create(&mut node, "t");
    let dir = Path::new(DATA).join(node.meta.image.topic("t").expect("it was made").id.to_string());
    stop(node);
    // Before its first record a topic has no directory. Here is one that no broker can list: it is a file.
    stop(start(&world).expect("no directory is no error"));
    let mut elsewhere = io(&world);
    let mut source = IoSource::new(&mut elsewhere);
    let file = source.open(&dir, OpenMode::Create).expect("a free name");
    source.close(file);
    drop(elsewhere);
    let fatal = refusal(&world);
    assert_eq!(fatal.code, "data-dir-unusable");
    assert!(fatal.summary.contains(&dir.display().to_string()), "{fatal}");
}

/// Every path below the data directory, locks and what is made anew at each start aside.
fn all_paths(world: &World) -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from(DATA)];
    let mut paths = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in list(world, &dir) {
            let path = dir.join(&entry.name);
            if entry.is_dir {
                dirs.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

fn run(world: &World, op: Op) {
    IoSource::new(&mut io(world)).run(op).expect("an operation of the test");
}

fn lose_meta(world: &World) {
    run(world, Op::RemoveFile { path: Path::new(DATA).join("meta") });
}

/// Somebody cleans up and removes one small file. The next start took the directory for one that was never formatted, began with no topics,
/// and then removed all of theirs as strangers.
#[test]
fn a_directory_with_topics_is_not_formatted_again() {
    let topic_dir = Path::new(DATA).join("0f0f0f0f-0f0f-4f0f-8f0f-0f0f0f0f0f0f");
    // The journal knows a topic; a snapshot does, of a second start; only its directory tells of it.
    for (starts, has_metadata) in [(1, true), (2, true), (0, false)] {
        let world = world();
        for at in 0..starts {
            let mut node = start(&world).expect("it starts");
            if at == 0 {
                create(&mut node, "t");
            }
            stop(node);
        }
        match has_metadata {
            true => lose_meta(&world),
            false => run(&world, Op::MakeDir { path: topic_dir.clone() }),
        }
        let before = all_paths(&world);
        let fatal = refusal(&world);
        assert_eq!(fatal.code, "metadata-corrupt");
        assert!(fatal.summary.contains("meta is missing") && !fatal.tries.is_empty(), "{fatal}");
        let mut after = all_paths(&world);
        after.retain(|path| before.contains(path));
        assert_eq!(after, before, "nothing is removed");
    }
}

/// The `meta` file is the last that a format makes: without it, and with nothing else that counts, the format begins again.
#[test]
fn a_format_that_did_not_end_is_begun_again() {
    let world = world();
    for _ in 0..3 {
        stop(start(&world).expect("it starts"));
        lose_meta(&world);
    }
    let mut node = start(&world).expect("it starts");
    create(&mut node, "t");
    stop(node);
    assert_eq!(topics(&start(&world).expect("it starts")), ["t"]);
}

/// Decides on a value of a topic's configuration; returns the number of that decision.
fn decide_value(node: &mut Node, topic: &str, key: &str, value: &str) -> u64 {
    let alters = vec![Alter { key: key.to_string(), op: 0, value: Some(value.to_string()) }];
    let resource = AlterResource { kind: OF_TOPIC, name: topic.to_string(), alters };
    let altered = node.meta.controller.as_mut().expect("the controller's shard");
    let altered = altered.alter_configs(&[resource], false);
    assert!(altered.reply[0].is_ok());
    altered.after
}

/// Many decisions, which the next turn writes as one transaction: always of the same length.
fn decide_much(node: &mut Node, topic: &str) -> u64 {
    let values = [200_000, 300_000].into_iter().cycle().take(200);
    values.map(|ms: i64| decide_value(node, topic, "retention.ms", &ms.to_string())).last().expect("some")
}

fn turn_until_durable(node: &mut Node, decision: u64) {
    turn_until(node, |node| node.meta.controller.as_ref().is_some_and(|it| it.durable_through() >= decision));
}

/// Where the next transaction of the first generation goes.
fn journal_end(world: &World) -> u64 {
    let path = Path::new(DATA).join(FOLDER).join(journal_name(0));
    let bytes = world.live_bytes(&path).expect("the first journal");
    let mut at = BLOCK;
    while let Some(txn) = Txn::decode(&bytes[at..]) {
        at += txn.len;
    }
    at as u64
}

/// A topic is being written as the broker begins to flush its logs, and it is what makes the journal full. The shard takes no new image any
/// more, so the next generation began with a snapshot that lacked the topic and yet said that it was in there: after the next start it was gone.
#[test]
fn a_generation_that_begins_while_the_logs_are_flushed_has_everything() {
    let world = world();
    let mut node = start(&world).expect("a new directory");
    let name = "t".repeat(249);
    create(&mut node, &name);
    let before = journal_end(&world);
    let decision = decide_much(&mut node, &name);
    turn_until_durable(&mut node, decision);
    let len = journal_end(&world) - before;
    for _ in 0..(JOURNAL_BYTES_MAX - journal_end(&world)) / len {
        let decision = decide_much(&mut node, &name);
        turn_until_durable(&mut node, decision);
    }
    assert!(journal_end(&world) <= JOURNAL_BYTES_MAX, "the next one makes it full");

    produce(&mut node, &name);
    decide_much(&mut node, &name);
    let decision = decide(&mut node, "last");
    // No connections: the turn that pushes the write ends with the logs being flushed.
    node.begin_stop();
    node.turn();
    turn_until_durable(&mut node, decision);
    assert!(!node.is_stopped() && node.meta.image.topic("last").is_none(), "the shard has seen no more");
    turn_until(&mut node, Node::is_stopped);
    let next = Path::new(DATA).join(FOLDER).join(journal_name(1));
    assert!(world.live_bytes(&next).is_some(), "another generation has begun");
    drop(node);
    assert_eq!(topics(&start(&world).expect("it starts")), ["last", &name]);
}

/// Something for a stop to flush.
fn produce(node: &mut Node, topic: &str) {
    let topic = node.meta.image.topic(topic).expect("it was made").id;
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(b"value"), headers: &[] });
    let mut records = Vec::new();
    builder.finish(&mut records).expect("a batch");
    let key = PartitionKey { topic, partition: PartitionIndex(0) };
    let parts = std::iter::once(ProducePart { key, records: &records }).collect();
    let ticket = Ticket { shard: ShardId(0), conn: 0, generation: 0, sequence: 0 };
    let produce = Produce { ticket, version: 9, acks: 0, timeout_ms: 0, parts };
    let (now, wall_ms) = (node.io.now(), node.io.wall_ms());
    let mut cx = Cx { pool: node.io.pool(), now, clock: Clock::Still(now), wall_ms };
    node.shard.handle(Message::Produce(produce), &mut cx);
}
