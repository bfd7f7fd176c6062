//! The metadata of this broker at one revision: what records have made of it. Immutable once published; shards and connections
//! hold it by `Arc`. Topics are shared between revisions, so that a new one costs a pointer per topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::placement::home;
use super::record::{Key, Record};
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, PartitionKey, ShardId, Uuid};
use crate::config::broker::BrokerConfig;
use crate::config::topic::{Overrides, TopicConfig};

/// A broker as clients see it. Known from the start of the process, not from records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: BrokerId,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub replicas: Vec<BrokerId>,
    /// The shard that it was placed on. A start with another number of shards places anew ([`super::placement::placed_anew`]).
    pub shard: ShardId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub id: Uuid,
    /// What was set on the topic itself.
    pub overrides: Overrides,
    /// What follows from that and the broker's values.
    pub config: TopicConfig,
    pub partitions: Vec<Partition>,
    /// Of so many shards theirs were chosen; none if that is not known.
    pub placed_of: Option<u16>,
}

impl Topic {
    /// Kafka's own topics: coordinators write them, clients read them.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }
}

pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// Records that do not fit what came before them; nothing that this broker writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub key: String,
    pub what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Grows with each batch of records that is applied.
    pub revision: u64,
    /// As Kafka prints it: 22 characters.
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub brokers: Vec<Broker>,
    /// The broker's configuration, altered values included.
    pub config: Arc<BrokerConfig>,
    pub(super) next_producer_id: i64,
    topics: BTreeMap<String, Arc<Topic>>,
    names: BTreeMap<Uuid, String>,
    altered: BTreeMap<Option<BrokerId>, Overrides>,
}

impl Image {
    /// The metadata of a broker that was just formatted.
    pub fn new(cluster_id: String, config: Arc<BrokerConfig>, brokers: Vec<Broker>) -> Image {
        Image {
            revision: 0,
            cluster_id,
            node_id: config.node_id,
            brokers,
            config,
            next_producer_id: 0,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            altered: BTreeMap::new(),
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// By name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    pub fn partition(&self, key: PartitionKey) -> Option<&Partition> {
        self.topic_by_id(key.topic)?.partition(key.partition)
    }

    /// The shard that serves this partition, of as many as run.
    pub fn owner(&self, key: PartitionKey) -> Option<ShardId> {
        Some(home(self.partition(key)?.shard, self.config.shards))
    }

    /// Clients see each shard as a broker of its own, and not the node: `brokers` has one for each shard, in their order.
    pub fn advertises_shards(&self) -> bool {
        !self.brokers.is_empty() && self.brokers.iter().all(|broker| broker.id != self.node_id)
    }

    /// The broker that clients see a shard as.
    pub fn broker_of(&self, shard: ShardId) -> Option<&Broker> {
        self.brokers.get(if self.advertises_shards() { usize::from(shard.0) } else { 0 })
    }

    /// What can hold a replica each: shards of one node are not told apart by its failures.
    pub fn nodes(&self) -> Vec<BrokerId> {
        match self.advertises_shards() {
            true => vec![self.node_id],
            false => self.brokers.iter().map(|broker| broker.id).collect(),
        }
    }

    /// This node's id, or one under which clients see a shard of it.
    pub fn is_own(&self, id: i32) -> bool {
        id == self.node_id.0 || (self.advertises_shards() && self.brokers.iter().any(|b| b.id.0 == id))
    }

    /// The broker that clients send to what only the controller decides; always one that they see.
    pub fn controller(&self) -> BrokerId {
        match self.brokers.first() {
            Some(first) if self.advertises_shards() => first.id,
            _ => self.node_id,
        }
    }

    /// The broker that leads this partition, as clients see it: where every shard is a broker of its own, that of its owner.
    pub fn leader(&self, partition: &Partition) -> BrokerId {
        self.seen(partition).unwrap_or(partition.leader)
    }

    /// Its replicas, as clients see them: the same.
    pub fn replicas(&self, partition: &Partition) -> Vec<BrokerId> {
        self.seen(partition).map_or_else(|| partition.replicas.clone(), |shard| vec![shard])
    }

    /// The replicas that have everything: this node's.
    pub fn in_sync(&self, partition: &Partition) -> Vec<BrokerId> {
        vec![self.seen(partition).unwrap_or(self.node_id)]
    }

    fn seen(&self, partition: &Partition) -> Option<BrokerId> {
        let owner = home(partition.shard, self.config.shards);
        self.broker_of(owner).filter(|_| self.advertises_shards()).map(|broker| broker.id)
    }

    /// Partitions of all topics.
    pub fn partitions(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// What was altered on a broker, or for all of them.
    pub fn altered(&self, broker: Option<BrokerId>) -> Overrides {
        self.altered.get(&broker).cloned().unwrap_or_default()
    }

    /// Adds the records of one batch.
    pub fn apply(&mut self, records: &[Record]) -> Result<(), Misfit> {
        for record in records {
            self.apply_one(record).map_err(|what| Misfit { key: record.key().to_string(), what })?;
        }
        self.revision += 1;
        Ok(())
    }

    /// Adds everything of a snapshot, whatever its order: topics come before what belongs to them.
    pub fn load(&mut self, mut records: Vec<Record>) -> Result<(), Misfit> {
        records.sort_by_key(|record| {
            let key = record.key();
            let rank = match key {
                Key::Config(_) => 0,
                Key::Topic(_) => 1,
                Key::Partition(..) => 2,
                Key::Placement(_) | Key::ProducerIds => 3,
            };
            (rank, key)
        });
        self.apply(&records)
    }

    /// Everything, as the records that make it again.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (broker, config) in &self.altered {
            records.push(Record::Config { broker: *broker, config: config.clone() });
        }
        for topic in self.topics.values() {
            let (name, id, config) = (topic.name.clone(), topic.id, topic.overrides.clone());
            records.push(Record::Topic { name, id, config });
            for (index, partition) in topic.partitions.iter().enumerate() {
                records.push(Record::Partition {
                    topic: id,
                    index: PartitionIndex(index as i32),
                    leader: partition.leader,
                    epoch: partition.leader_epoch,
                    replicas: partition.replicas.clone(),
                });
            }
            let shards = topic.partitions.iter().map(|partition| partition.shard).collect();
            records.push(Record::Placement { topic: id, shards, of: topic.placed_of });
        }
        records.push(Record::ProducerIds { next: self.next_producer_id });
        records
    }

    fn apply_one(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Topic { name, id, config } => self.put_topic(name, *id, config),
            Record::Partition { topic, index, leader, epoch, replicas } => {
                let (leader, leader_epoch, replicas) = (*leader, *epoch, replicas.clone());
                let partitions = &mut self.topic_mut(*topic)?.partitions;
                let at = index.0 as usize;
                let shard = partitions.get(at).map_or(ShardId(0), |partition| partition.shard);
                let partition = Partition { leader, leader_epoch, replicas, shard };
                match at.cmp(&partitions.len()) {
                    std::cmp::Ordering::Less => partitions[at] = partition,
                    std::cmp::Ordering::Equal => partitions.push(partition),
                    std::cmp::Ordering::Greater => return Err("a partition before it is missing"),
                }
                Ok(())
            }
            Record::Placement { topic, shards, of } => {
                let topic = self.topic_mut(*topic)?;
                if topic.partitions.len() != shards.len() {
                    return Err("it places another number of partitions than there are");
                }
                for (partition, shard) in topic.partitions.iter_mut().zip(shards) {
                    partition.shard = *shard;
                }
                topic.placed_of = *of;
                Ok(())
            }
            Record::Config { broker, config } => {
                self.put_altered(*broker, config.clone());
                Ok(())
            }
            Record::ProducerIds { next } => {
                self.next_producer_id = *next;
                Ok(())
            }
            Record::Gone(key) => self.remove(key),
        }
    }

    fn put_topic(&mut self, name: &str, id: Uuid, overrides: &Overrides) -> Result<(), &'static str> {
        let config = TopicConfig::resolve(overrides, &self.config);
        let (partitions, placed_of) = match self.topics.get(name) {
            Some(topic) if topic.id != id => return Err("a topic of this name has another id"),
            Some(topic) => (topic.partitions.clone(), topic.placed_of),
            None => (Vec::new(), None),
        };
        let overrides = overrides.clone();
        self.names.insert(id, name.to_string());
        let topic = Topic { name: name.to_string(), id, overrides, config, partitions, placed_of };
        self.topics.insert(name.to_string(), Arc::new(topic));
        Ok(())
    }

    fn put_altered(&mut self, broker: Option<BrokerId>, config: Overrides) {
        match config.is_empty() {
            true => self.altered.remove(&broker),
            false => self.altered.insert(broker, config),
        };
        let config = self.config.with_dynamic(&self.altered(None), &self.altered(Some(self.node_id)));
        self.config = Arc::new(config);
        for topic in self.topics.values_mut() {
            let config = TopicConfig::resolve(&topic.overrides, &self.config);
            if config != topic.config {
                Arc::make_mut(topic).config = config;
            }
        }
    }

    fn remove(&mut self, key: &Key) -> Result<(), &'static str> {
        match key {
            Key::Topic(name) => {
                let topic = self.topics.remove(name).ok_or("there is no such topic")?;
                self.names.remove(&topic.id);
            }
            Key::Config(broker) => self.put_altered(*broker, Overrides::new()),
            // They go with their topic; the keys are removed for stores that keep each by itself.
            Key::Partition(..) | Key::Placement(_) => {}
            Key::ProducerIds => return Err("producer ids are never forgotten"),
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut Topic, &'static str> {
        let name = self.names.get(&id).ok_or("its topic is missing")?;
        self.topics.get_mut(name).map(Arc::make_mut).ok_or("its topic is missing")
    }
}
