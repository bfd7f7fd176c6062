//! What the handlers know of topics and brokers, and the way from them to the controller.
//!
//! The image is a snapshot that the controller published: looking a topic up takes no lock and sees whole transactions only. The
//! controller itself lives on shard 0, where the frames that need it are forwarded; its answers are encoded at once and leave when
//! what they may have seen is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::handlers::Handled;
use super::pending::{Encoded, Pending};
use crate::base::board::Board;
use crate::base::error::Refused;
use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, Uuid};
use crate::controller::Controller;
use crate::controller::image::{Image, Topic};
use crate::router::message::Ticket;

pub struct Metadata {
    /// What is durable: all that answers may show.
    pub image: Arc<Image>,
    /// On its own shard only.
    pub controller: Option<Controller>,
    /// Epochs that this start gave to the partitions that it found. A partition that came later has its first.
    epochs: Arc<BTreeMap<PartitionKey, LeaderEpoch>>,
    pub ids: Ids,
    /// What the shards tell of themselves.
    pub board: Arc<Board>,
    /// Answers that wait for a decision to be durable, in the order of those decisions.
    parked: VecDeque<(u64, Answer)>,
}

/// A response frame and the request that it belongs to.
pub struct Answer {
    pub ticket: Ticket,
    pub bytes: Vec<u8>,
}

/// Random ids from a seed of the seam: xoshiro256**, whose 256 bits of state make a repeated id as unlikely as the kernel's
/// own generator does.
pub struct Ids([u64; 4]);

impl Ids {
    /// `seed` must be random and not all zero.
    pub fn new(seed: [u8; 32]) -> Ids {
        let mut words = [1u64; 4];
        for (word, bytes) in words.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(*word, |w, b| w.rotate_left(8) ^ u64::from(*b));
        }
        Ids(words)
    }

    fn next(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.0;
        let result = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= t;
        *s3 = s3.rotate_left(45);
        result
    }

    pub fn draw(&mut self) -> Uuid {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        Uuid::from_random(bytes)
    }
}

/// A topic that a request named.
#[derive(Clone, Copy)]
pub struct Found<'a>(pub &'a Topic);

impl Found<'_> {
    pub fn partition(&self, index: PartitionIndex) -> Result<PartitionKey, Refused> {
        self.0.partition(index).ok_or(Refused::UnknownTopicOrPartition)?;
        Ok(PartitionKey { topic: self.0.id, partition: index })
    }
}

impl Metadata {
    pub fn new(
        image: Arc<Image>,
        controller: Option<Controller>,
        epochs: Arc<BTreeMap<PartitionKey, LeaderEpoch>>,
        ids: Ids,
        board: Arc<Board>,
    ) -> Metadata {
        Metadata { image, controller, epochs, ids, board, parked: VecDeque::new() }
    }

    /// The leader epoch of a partition, on whichever shard it lives.
    pub fn leader_epoch(&self, key: &PartitionKey) -> LeaderEpoch {
        self.epochs.get(key).copied().unwrap_or(LeaderEpoch(0))
    }

    pub fn topic_by_name(&self, name: &str) -> Result<Found<'_>, Refused> {
        self.image.topic(name).map(|topic| Found(topic)).ok_or(Refused::UnknownTopicOrPartition)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Result<Found<'_>, Refused> {
        self.image.topic_by_id(id).map(|topic| Found(topic)).ok_or(Refused::UnknownTopicId)
    }

    pub fn partition(&self, name: &str, index: i32) -> Result<PartitionKey, Refused> {
        self.topic_by_name(name)?.partition(PartitionIndex(index))
    }

    /// Answers once everything that the controller had decided by `after` is durable.
    pub fn reply_after(&mut self, ticket: Ticket, after: u64, bytes: Vec<u8>) -> Handled {
        if after <= self.durable_through() {
            return Handled::Encoded(Encoded::bytes(bytes));
        }
        self.parked.push_back((after, Answer { ticket, bytes }));
        Handled::Wait(Pending::Control(0))
    }

    fn durable_through(&self) -> u64 {
        self.controller.as_ref().map_or(0, Controller::durable_through)
    }

    /// The answers that may leave now.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        let through = self.durable_through();
        let count = self.parked.iter().take_while(|(after, _)| *after <= through).count();
        self.parked.drain(..count).map(|(_, answer)| answer).collect()
    }
}
