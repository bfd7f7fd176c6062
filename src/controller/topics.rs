//! CreateTopics, DeleteTopics and CreatePartitions: what is asked, checked as Kafka checks it, as results and records. Order of the checks,
//! numbers and texts are those of a Kafka 4.1.1 broker.
//!
//! Differs from Apache Kafka: too many new partitions are refused with POLICY_VIOLATION by CreatePartitions too, where Kafka answers
//! UNKNOWN_SERVER_ERROR; a broker takes at most [`PARTITIONS_MAX`] partitions in all.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Image, Topic};
use super::placement::Load;
use super::record::{Key, Record};
use super::{ByName, Refusal, refusal};
use crate::base::error::Refused;
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, ShardId, Uuid};
use crate::config::topic::{self, Overrides};

/// New partitions in one request: Kafka's bound.
pub const PARTITIONS_PER_REQUEST_MAX: i64 = 10_000;

/// Partitions of one broker. The image takes about 100 bytes of each, a log a few KiB: at this number the first stays
/// under 10 MiB and the second under 1 GiB.
pub const PARTITIONS_MAX: usize = 100_000;

/// Bytes of a topic's name: Kafka's bound.
const NAME_BYTES_MAX: usize = 249;

const EXCESSIVE: &str = "Excessively large number of partitions per request.";

/// A topic to create. -1 asks for the broker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i16,
    /// Brokers of each partition, if the client chose them.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that was created, or that would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub id: Uuid,
    pub partitions: i32,
    pub replication_factor: i16,
    pub overrides: Overrides,
}

/// A topic to delete, by name or by id (zero where it is by name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRef {
    pub name: Option<String>,
    pub id: Uuid,
}

/// The answer for one topic to delete: both name and id where they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    pub name: Option<String>,
    pub id: Uuid,
    pub refused: Option<Refusal>,
}

/// Partitions to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MorePartitions {
    pub name: String,
    /// All partitions afterwards, not the additional ones.
    pub count: i32,
    /// Brokers of each additional partition, if the client chose them.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// One result per name, in the order of first mention.
pub(super) fn create(
    image: &Image,
    topics: &[NewTopic],
    mut new_id: impl FnMut() -> Uuid,
) -> (ByName<Created>, Vec<Record>) {
    let total: i64 = topics.iter().map(|topic| asked_partitions(image, topic)).sum();
    let policy = refuse_too_many(image, total);
    let mut seen = BTreeMap::new();
    for topic in topics {
        *seen.entry(topic.name.as_str()).or_insert(0) += 1;
    }
    let collisions: BTreeMap<String, &str> =
        image.topics().map(|topic| (collision_key(&topic.name), topic.name.as_str())).collect();
    let mut load = Load::of(image, image.config.shards);
    let (mut results, mut records) = (Vec::new(), Vec::new());
    for topic in topics {
        let Some(times) = seen.remove(topic.name.as_str()) else { continue };
        let checked = if let Err(refused) = &policy {
            Err(refused.clone())
        } else if times > 1 {
            Err(refusal(Refused::InvalidRequest, "Duplicate topic name."))
        } else {
            check_new_name(image, &collisions, &topic.name).and_then(|()| plan(image, topic))
        };
        let created = checked.map(|(overrides, places)| {
            let id = new_id();
            let (partitions, factor) = (places.len() as i32, places[0].replicas.len() as i16);
            let config = overrides.clone();
            records.push(Record::Topic { name: topic.name.clone(), id, config });
            records.extend(partition_records(id, 0, &places));
            records.push(Record::Placement {
                topic: id,
                shards: load.place(places.iter().map(|place| place.shard)),
                of: Some(image.config.shards),
            });
            Created { id, partitions, replication_factor: factor, overrides }
        });
        results.push((topic.name.clone(), created));
    }
    (results, records)
}

/// Results in the order of the request; a name that is mentioned twice is answered once.
pub(super) fn delete(image: &Image, refs: &[TopicRef]) -> (Vec<Deleted>, Vec<Record>) {
    let mut names = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for asked in refs {
        match &asked.name {
            Some(name) => *names.entry(name.as_str()).or_insert(0) += 1,
            None => *ids.entry(asked.id).or_insert(0) += 1,
        }
    }
    let mut answered = BTreeSet::new();
    let (mut results, mut records) = (Vec::new(), Vec::new());
    for asked in refs {
        let (name, id) = (asked.name.clone(), asked.id);
        if !answered.insert((name.clone(), id)) {
            continue;
        }
        let found = match &asked.name {
            Some(_) if !id.is_zero() => Err("You may not specify both topic name and topic id."),
            None if id.is_zero() => Err("Neither topic name nor id were specified."),
            Some(name) if names[name.as_str()] > 1 => Err("Duplicate topic name."),
            None if ids[&id] > 1 => Err("Duplicate topic id."),
            Some(name) => Ok(image.topic(name)),
            None => Ok(image.topic_by_id(id)),
        };
        let found = found.map_err(|what| refusal(Refused::InvalidRequest, what));
        results.push(match found {
            Err(refused) => Deleted { name, id, refused: Some(refused) },
            Ok(None) => Deleted { refused: Some(unknown(name.is_some())), name, id },
            Ok(Some(topic)) if names.contains_key(topic.name.as_str()) && ids.contains_key(&topic.id) => {
                // Asked for in both ways: one answer stands for both.
                answered.extend([(Some(topic.name.clone()), Uuid::ZERO), (None, topic.id)]);
                let what = "The provided topic name maps to an ID that was already supplied.";
                let refused = Some(refusal(Refused::InvalidRequest, what));
                Deleted { name: Some(topic.name.clone()), id: topic.id, refused }
            }
            Ok(Some(topic)) => {
                records.extend(removal_records(topic));
                Deleted { name: Some(topic.name.clone()), id: topic.id, refused: None }
            }
        });
    }
    (results, records)
}

/// One result per name, in the order of first mention.
pub(super) fn add_partitions(image: &Image, topics: &[MorePartitions]) -> (ByName<()>, Vec<Record>) {
    let mut seen = BTreeMap::new();
    for topic in topics {
        *seen.entry(topic.name.as_str()).or_insert(0) += 1;
    }
    let mut load = Load::of(image, image.config.shards);
    let (mut results, mut records) = (Vec::new(), Vec::new());
    let mut total = 0;
    for asked in topics {
        let Some(times) = seen.remove(asked.name.as_str()) else { continue };
        let planned = if times > 1 {
            Err(refusal(Refused::InvalidRequest, "Duplicate topic name."))
        } else {
            plan_more(image, asked, &mut total)
        };
        let result = planned.map(|(topic, places)| {
            let mut shards: Vec<_> = topic.partitions.iter().map(|partition| partition.shard).collect();
            shards.extend(load.place(places.iter().map(|place| place.shard)));
            records.extend(partition_records(topic.id, topic.partitions.len(), &places));
            records.push(Record::Placement { topic: topic.id, shards, of: Some(image.config.shards) });
        });
        results.push((asked.name.clone(), result));
    }
    (results, records)
}

/// Kafka's rule for a topic's name, at every place where one comes in.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let what = if name.is_empty() {
        "the empty string is not allowed".to_string()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.chars().count() > NAME_BYTES_MAX {
        format!("the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}")
    } else if !name.bytes().all(legal) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    Err(Refusal { error: Refused::InvalidTopic, message: Some(format!("Topic name is invalid: {what}")) })
}

fn check_new_name(image: &Image, collisions: &BTreeMap<String, &str>, name: &str) -> Result<(), Refusal> {
    check_name(name)?;
    if image.topic(name).is_some() {
        return Err(refusal(Refused::TopicAlreadyExists, &format!("Topic '{name}' already exists.")));
    }
    match collisions.get(&collision_key(name)) {
        Some(other) => {
            let what = format!("Topic '{name}' collides with existing topic: {other}");
            Err(refusal(Refused::InvalidTopic, &what))
        }
        None => Ok(()),
    }
}

/// Kafka names metrics after topics with dots replaced, so `a.b` and `a_b` would be one.
fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

fn asked_partitions(image: &Image, topic: &NewTopic) -> i64 {
    match (topic.assignments.len(), topic.partitions) {
        (0, -1) => i64::from(image.config.num_partitions),
        // One below zero is refused by itself, and must not make room in the sum.
        (0, count) => i64::from(count.max(0)),
        (assigned, _) => assigned as i64,
    }
}

fn refuse_too_many(image: &Image, new: i64) -> Result<(), Refusal> {
    if new > PARTITIONS_PER_REQUEST_MAX {
        return Err(refusal(Refused::PolicyViolation, EXCESSIVE));
    }
    if image.partitions() as i64 + new > PARTITIONS_MAX as i64 {
        let what = format!("This broker takes at most {PARTITIONS_MAX} partitions.");
        return Err(refusal(Refused::PolicyViolation, &what));
    }
    Ok(())
}

/// Where a new partition goes.
#[derive(Clone)]
struct Place {
    replicas: Vec<BrokerId>,
    /// The shard that the client chose, by the broker id under which it is advertised.
    shard: Option<ShardId>,
}

/// Configuration and places of a new topic. Configs are checked first, as in Kafka.
fn plan(image: &Image, topic: &NewTopic) -> Result<(Overrides, Vec<Place>), Refusal> {
    let overrides = new_overrides(image, &topic.configs)?;
    let places = if topic.assignments.is_empty() { by_count(image, topic)? } else { by_hand(image, topic)? };
    Ok((overrides, places))
}

fn new_overrides(image: &Image, configs: &[(String, Option<String>)]) -> Result<Overrides, Refusal> {
    let mut overrides = Overrides::new();
    for (key, value) in configs {
        let Some(value) = value else {
            let what = format!("Null value not supported for topic configs: {key}");
            return Err(refusal(Refused::InvalidConfig, &what));
        };
        let bad = |not: topic::NotSet| refusal(Refused::InvalidConfig, &not.to_string());
        topic::set(&mut overrides, key, value).map_err(bad)?;
    }
    let bad = |not: topic::NotSet| refusal(Refused::InvalidConfig, &not.to_string());
    topic::check(&overrides, &image.config).map_err(bad)?;
    Ok(overrides)
}

fn by_count(image: &Image, topic: &NewTopic) -> Result<Vec<Place>, Refusal> {
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let what = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(refusal(Refused::InvalidReplicationFactor, what));
    }
    if topic.partitions < -1 || topic.partitions == 0 {
        let what = "Number of partitions was set to an invalid non-positive value.";
        return Err(refusal(Refused::InvalidPartitions, what));
    }
    let brokers = image.nodes();
    let mut factor = match topic.replication_factor {
        -1 => image.config.default_replication_factor,
        factor => factor,
    };
    if image.config.replication_factor_clamp {
        factor = factor.min(brokers.len() as i16);
    }
    let factor = usize::from(factor.max(0) as u16);
    if factor > brokers.len() {
        let what = format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot \
             be reached because only {} broker(s) are registered.",
            brokers.len()
        );
        return Err(refusal(Refused::InvalidReplicationFactor, &what));
    }
    let count = asked_partitions(image, topic) as usize;
    let spread = |index: usize| Place {
        replicas: (0..factor).map(|i| brokers[(index + i) % brokers.len()]).collect(),
        shard: None,
    };
    Ok((0..count).map(spread).collect())
}

fn by_hand(image: &Image, topic: &NewTopic) -> Result<Vec<Place>, Refusal> {
    let not_set =
        |what: &str| format!("A manual partition assignment was specified, but {what} was not set to -1.");
    if topic.replication_factor != -1 {
        return Err(refusal(Refused::InvalidRequest, &not_set("replication factor")));
    }
    if topic.partitions != -1 {
        return Err(refusal(Refused::InvalidRequest, &not_set("numPartitions")));
    }
    let mut chosen: BTreeMap<i32, Place> = BTreeMap::new();
    let mut factor = None;
    for (index, brokers) in &topic.assignments {
        if chosen.contains_key(index) {
            let what = format!("Found multiple manual partition assignments for partition {index}");
            return Err(refusal(Refused::InvalidReplicaAssignment, &what));
        }
        chosen.insert(*index, check_assignment(image, brokers, factor)?);
        factor = Some(brokers.len());
    }
    if !chosen.keys().copied().eq(0..chosen.len() as i32) {
        let what = "partitions should be a consecutive 0-based integer sequence";
        return Err(refusal(Refused::InvalidReplicaAssignment, what));
    }
    Ok(chosen.into_values().collect())
}

/// The replicas that a client chose. Where clients see shards, the id of one stands for this node, and says on which shard.
fn check_assignment(image: &Image, brokers: &[i32], factor: Option<usize>) -> Result<Place, Refusal> {
    let bad = |what: String| {
        refusal(
            Refused::InvalidReplicaAssignment,
            &format!("The manual partition assignment includes {what}"),
        )
    };
    if brokers.is_empty() {
        return Err(bad("an empty replica list.".to_string()));
    }
    let mut sorted = brokers.to_vec();
    sorted.sort_unstable();
    for (at, id) in sorted.iter().enumerate() {
        if !image.brokers.iter().any(|broker| broker.id.0 == *id) {
            return Err(bad(format!("broker {id}, but no such broker is registered.")));
        }
        if at > 0 && sorted[at - 1] == *id {
            return Err(bad(format!("the broker {id} more than once.")));
        }
    }
    match factor {
        Some(factor) if factor != brokers.len() => Err(bad(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, which have \
             {factor} replica(s).",
            brokers.len()
        ))),
        _ if !image.advertises_shards() => {
            Ok(Place { replicas: brokers.iter().map(|id| BrokerId(*id)).collect(), shard: None })
        }
        _ if brokers.len() > 1 => Err(bad(format!(
            "the brokers {brokers:?}, which are shards of one broker: it holds one replica of a partition.",
        ))),
        _ => {
            let shard = image.brokers.iter().position(|broker| broker.id.0 == brokers[0]);
            Ok(Place { replicas: vec![image.node_id], shard: shard.map(|shard| ShardId(shard as u16)) })
        }
    }
}

type Plan<'a> = (&'a Topic, Vec<Place>);

fn plan_more<'a>(image: &'a Image, asked: &MorePartitions, total: &mut i64) -> Result<Plan<'a>, Refusal> {
    let unknown = Refusal { error: Refused::UnknownTopicOrPartition, message: None };
    let topic = image.topic(&asked.name).ok_or(unknown)?;
    let now = topic.partitions.len() as i32;
    if asked.count == now {
        let what = format!("Topic already has {now} partition(s).");
        return Err(refusal(Refused::InvalidPartitions, &what));
    }
    if asked.count < now {
        let (name, count) = (&asked.name, asked.count);
        let what =
            format!("The topic {name} currently has {now} partition(s); {count} would not be an increase.");
        return Err(refusal(Refused::InvalidPartitions, &what));
    }
    let more = asked.count - now;
    refuse_too_many(image, *total + i64::from(more))?;
    let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let places = match &asked.assignments {
        None => topic.partitions.first().map_or_else(Vec::new, |first| {
            vec![Place { replicas: first.replicas.clone(), shard: None }; more as usize]
        }),
        Some(chosen) if chosen.len() != more as usize => {
            let what = format!(
                "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                chosen.len()
            );
            return Err(refusal(Refused::InvalidReplicaAssignment, &what));
        }
        Some(chosen) => {
            let checked = chosen.iter().map(|brokers| check_assignment(image, brokers, Some(factor)));
            checked.collect::<Result<Vec<_>, Refusal>>()?
        }
    };
    *total += i64::from(more);
    Ok((topic, places))
}

fn partition_records(topic: Uuid, from: usize, places: &[Place]) -> impl Iterator<Item = Record> + use<'_> {
    places.iter().enumerate().map(move |(i, Place { replicas, .. })| Record::Partition {
        topic,
        index: PartitionIndex((from + i) as i32),
        leader: replicas[0],
        epoch: LeaderEpoch(0),
        replicas: replicas.clone(),
    })
}

fn removal_records(topic: &Topic) -> Vec<Record> {
    let indexes = (0..topic.partitions.len() as i32).map(PartitionIndex);
    let mut records: Vec<Record> =
        indexes.map(|index| Record::Gone(Key::Partition(topic.id, index))).collect();
    records.push(Record::Gone(Key::Placement(topic.id)));
    records.push(Record::Gone(Key::Topic(topic.name.clone())));
    records
}

fn unknown(by_name: bool) -> Refusal {
    match by_name {
        true => refusal(Refused::UnknownTopicOrPartition, "This server does not host this topic-partition."),
        false => refusal(Refused::UnknownTopicId, "This server does not host this topic ID."),
    }
}
