//! L6, the metadata of one broker as a replicated-log state machine: topics, placement, configurations, producer ids. No I/O, no clock,
//! no randomness: commands come in with what they need, records and answers go out.
//!
//! # The contract (that of a coordinator)
//! A command returns a [`Parked`] answer at once and leaves records behind. The caller
//! 1. asks [`Controller::take_batch`] for the records that no write carries yet, whenever no metadata write is in flight,
//! 2. encodes them ([`journal::Writer::encode`]) and writes them durably,
//! 3. reports that with [`Controller::durable`], which hands out the image to publish, and
//! 4. sends every parked answer whose `after` is not above what is durable.
//!
//! Commands see staged state, their own and that of others; so an answer waits not only for its own records but for everything it may have
//! seen (a refusal because a topic exists is only true once that topic is durable). A failed write ends the broker: there is no
//! rollback, a restart re-reads the journal and decides again.
//!
//! # Files and their order
//! [`metastore`] says which files there are and which operations make them, in which order; [`journal`] and [`snapshot`] are their bytes.
//!
//! # Non-obvious
//! - Validation runs against the staged image, publishing hands out the durable one.
//! - Results keep the order of the request. Kafka's come in the order of a hash map, and clients look them up by name.
//! - Within one CreateTopics request `c.d` and `c_d` do not collide with each other, only with topics that exist: as in Kafka.
//! - Producer ids come from blocks of [`PRODUCER_ID_BLOCK`]: a restart leaves the rest of a block unused, so that no id is given twice.

pub mod configs;
pub mod image;
pub mod journal;
pub mod meta;
pub mod metastore;
pub mod placement;
pub mod published;
pub mod record;
pub mod snapshot;
pub mod topics;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::error::Refused;
use crate::base::ids::{ProducerId, Uuid};
use configs::AlterResource;
use image::Image;
use record::Record;
use topics::{Created, Deleted, MorePartitions, NewTopic, TopicRef};

/// Producer ids that one record hands out: Kafka's number.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// A request, or a part of one, that is not carried out: the code, and Kafka's text where clients show one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: Refused,
    pub message: Option<String>,
}

pub(crate) fn refusal(error: Refused, message: &str) -> Refusal {
    Refusal { error, message: Some(message.to_string()) }
}

/// The same refusal for each name, in the order of first mention.
fn all<'a, T>(names: impl Iterator<Item = &'a String>, refused: &Refusal) -> ByName<T> {
    let mut reply: ByName<T> = Vec::new();
    for name in names {
        if !reply.iter().any(|(known, _)| known == name) {
            reply.push((name.clone(), Err(refused.clone())));
        }
    }
    reply
}

/// One result per name, in the order of first mention in the request.
pub type ByName<T> = Vec<(String, Result<T, Refusal>)>;

/// An answer that may leave once everything up to `after` is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Parked<T> {
    pub reply: T,
    pub after: u64,
}

/// Records to write as one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub records: Vec<Record>,
    /// To be handed to [`Controller::durable`] when they are on disk.
    pub through: u64,
}

pub struct Controller {
    /// With everything that was decided, durable or not.
    staged: Image,
    /// The last number given to a decision, and the last that is durable.
    decided: u64,
    durable: u64,
    /// Decided, and not in a batch yet.
    pending: Vec<Record>,
    /// The images of batches on their way to disk.
    in_flight: VecDeque<(u64, Arc<Image>)>,
    /// Producer ids of a block that is at least decided.
    producer_ids: std::ops::Range<i64>,
    /// The journal's reserve of space cannot be filled up: what it still takes is left to deletions and producer ids.
    no_space: bool,
}

/// What a client is told while the journal has no space.
const NO_SPACE: &str =
    "The disk is full: topics can be deleted, and nothing else be changed, until there is space.";

impl Controller {
    /// Begins from a recovered image, everything of which is durable.
    pub fn new(image: Image) -> Controller {
        Controller {
            producer_ids: image.next_producer_id..image.next_producer_id,
            staged: image,
            decided: 0,
            durable: 0,
            pending: Vec::new(),
            in_flight: VecDeque::new(),
            no_space: false,
        }
    }

    /// Whether the journal lacks space. While it does, topics are not created or changed: `KafkaStorageError`.
    pub fn set_no_space(&mut self, no_space: bool) {
        self.no_space = no_space;
    }

    fn refuses(&self, validate_only: bool) -> Option<Refusal> {
        (self.no_space && !validate_only).then(|| refusal(Refused::KafkaStorageError, NO_SPACE))
    }

    /// State with everything that was decided. Answers made from it must be parked; [`Controller::durable`] gives what may be shown.
    pub fn staged(&self) -> &Image {
        &self.staged
    }

    /// Creates topics, or with `validate_only` says whether it would. `new_id` draws a random uuid for each.
    pub fn create_topics(
        &mut self,
        topics: &[NewTopic],
        validate_only: bool,
        new_id: impl FnMut() -> Uuid,
    ) -> Parked<ByName<Created>> {
        if let Some(refused) = self.refuses(validate_only) {
            return self.decide(all(topics.iter().map(|t| &t.name), &refused), Vec::new(), false);
        }
        let (results, records) = topics::create(&self.staged, topics, new_id);
        self.decide(results, records, validate_only)
    }

    /// Creates topics with the broker's defaults, for a Metadata request that names unknown ones: as one request, whose bounds hold for all
    /// of them together. Whether the broker allows that is the caller's question.
    pub fn auto_create(&mut self, names: &[&str], new_id: impl FnMut() -> Uuid) -> Parked<ByName<Created>> {
        let topic = |name: &&str| NewTopic {
            name: name.to_string(),
            partitions: -1,
            replication_factor: -1,
            ..NewTopic::default()
        };
        let topics: Vec<NewTopic> = names.iter().map(topic).collect();
        self.create_topics(&topics, false, new_id)
    }

    /// Deletes topics. Where the broker forbids it, every one is refused with `TopicDeletionDisabled`.
    pub fn delete_topics(&mut self, refs: &[TopicRef]) -> Parked<Vec<Deleted>> {
        if !self.staged.config.delete_topics {
            let refused = refusal(Refused::TopicDeletionDisabled, "Topic deletion is disabled.");
            let reply = refs.iter().map(|asked| {
                let (name, id) = (asked.name.clone(), asked.id);
                Deleted { name, id, refused: Some(refused.clone()) }
            });
            return self.decide(reply.collect(), Vec::new(), false);
        }
        let (results, records) = topics::delete(&self.staged, refs);
        self.decide(results, records, false)
    }

    pub fn create_partitions(
        &mut self,
        topics: &[MorePartitions],
        validate_only: bool,
    ) -> Parked<ByName<()>> {
        if let Some(refused) = self.refuses(validate_only) {
            return self.decide(all(topics.iter().map(|t| &t.name), &refused), Vec::new(), false);
        }
        let (results, records) = topics::add_partitions(&self.staged, topics);
        self.decide(results, records, validate_only)
    }

    pub fn alter_configs(
        &mut self,
        resources: &[AlterResource],
        validate_only: bool,
    ) -> Parked<Vec<Result<(), Refusal>>> {
        if let Some(refused) = self.refuses(validate_only) {
            let reply = resources.iter().map(|_| Err(refused.clone())).collect();
            return self.decide(reply, Vec::new(), false);
        }
        let (results, records) = configs::alter(&self.staged, resources);
        self.decide(results, records, validate_only)
    }

    /// A producer id that was never given before, not by an earlier process either.
    pub fn next_producer_id(&mut self) -> Parked<ProducerId> {
        let mut records = Vec::new();
        if self.producer_ids.is_empty() {
            let next = self.staged.next_producer_id;
            self.producer_ids = next..next + PRODUCER_ID_BLOCK;
            records.push(Record::ProducerIds { next: next + PRODUCER_ID_BLOCK });
        }
        let id = self.producer_ids.next().expect("a block is not empty");
        self.decide(ProducerId(id), records, false)
    }

    /// The records that no write carries yet. None: nothing to write. Ask only while no metadata write is in flight: the journal's proof
    /// that a hole is damage rests on that.
    pub fn take_batch(&mut self) -> Option<Batch> {
        if self.pending.is_empty() {
            return None;
        }
        self.in_flight.push_back((self.decided, Arc::new(self.staged.clone())));
        Some(Batch { records: std::mem::take(&mut self.pending), through: self.decided })
    }

    /// A batch is durable: answers up to it may leave, and this image is what everyone may see.
    pub fn durable(&mut self, through: u64) -> Option<Arc<Image>> {
        self.durable = self.durable.max(through);
        let mut newest = None;
        while self.in_flight.front().is_some_and(|(batch, _)| *batch <= through) {
            newest = self.in_flight.pop_front().map(|(_, image)| image);
        }
        newest
    }

    /// Answers with an `after` up to this may leave.
    pub fn durable_through(&self) -> u64 {
        self.durable
    }

    fn decide<T>(&mut self, reply: T, records: Vec<Record>, validate_only: bool) -> Parked<T> {
        if !records.is_empty() && !validate_only {
            // Our own records always fit: they were made from this image.
            self.staged.apply(&records).expect("records of a command fit the image that they were made from");
            self.pending.extend(records);
            self.decided += 1;
        }
        // Also an answer without records may have seen what is not durable yet.
        Parked { reply, after: self.decided }
    }
}
