//! What the handlers know of topics and brokers, and the way from them to the controller.
//!
//! The image is a snapshot that the controller published; looking a topic up takes no lock and sees whole transactions only.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::error::Refused;
use crate::base::ids::{PartitionIndex, PartitionKey, Uuid};
use crate::config::broker::BrokerConfig;
use crate::controller::image::{Image, Topic};
use crate::controller::{Command, Outcome};
use crate::router::message::Ticket;

/// Makes the response frame out of what the controller answered.
pub type Encode = Box<dyn FnOnce(Outcome) -> Vec<u8>>;

/// A command on its way to the controller.
pub struct Asked {
    pub ticket: Ticket,
    pub command: Command,
    pub encode: Encode,
}

/// Commands that may wait for the controller: each belongs to a request in flight, so this only guards against a loop of ours.
const ASKED_MAX: usize = 100_000;

pub struct Metadata {
    pub image: Arc<Image>,
    pub config: Arc<BrokerConfig>,
    /// Host and port that clients are told to connect to.
    pub advertised: (String, i32),
    asked: VecDeque<Asked>,
}

/// A topic that a request named.
#[derive(Clone, Copy)]
pub struct Found<'a>(pub &'a Topic);

impl Found<'_> {
    pub fn partition(&self, index: PartitionIndex) -> Result<PartitionKey, Refused> {
        let count = self.0.partitions.len();
        if usize::try_from(index.0).is_ok_and(|i| i < count) {
            return Ok(PartitionKey { topic: self.0.id, partition: index });
        }
        Err(Refused::UnknownTopicOrPartition)
    }
}

impl Metadata {
    pub fn new(image: Arc<Image>, config: Arc<BrokerConfig>, advertised: (String, i32)) -> Metadata {
        Metadata { image, config, advertised, asked: VecDeque::new() }
    }

    pub fn topic_by_name(&self, name: &str) -> Result<Found<'_>, Refused> {
        self.image.topic(name).map(Found).ok_or(Refused::UnknownTopicOrPartition)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Result<Found<'_>, Refused> {
        self.image.topic_by_id(id).map(Found).ok_or(Refused::UnknownTopicId)
    }

    pub fn partition(&self, name: &str, index: i32) -> Result<PartitionKey, Refused> {
        self.topic_by_name(name)?.partition(PartitionIndex(index))
    }

    /// Hands a command to the controller; the ticket's place in the queue must be `Pending::Control`.
    pub fn ask(&mut self, ticket: Ticket, command: Command, encode: Encode) {
        assert!(self.asked.len() < ASKED_MAX, "commands without requests");
        self.asked.push_back(Asked { ticket, command, encode });
    }

    pub fn next_asked(&mut self) -> Option<Asked> {
        self.asked.pop_front()
    }
}
