//! Hot path. What a response about topics and partitions needs of its request: how they were named, and in which order.

use crate::base::error::Refused;
use crate::base::few::Few;
use crate::base::ids::Uuid;
use crate::server::buffers::Buffers;
use crate::wire::topics::{Topic, TopicKey};

/// Topics and partitions in the order of the request.
#[derive(Debug)]
pub struct Asked {
    /// The topics' names, one after another.
    names: Vec<u8>,
    topics: Few<AskedTopic>,
    parts: Few<AskedPart>,
}

/// A topic as the request named it.
#[derive(Clone, Copy, Debug)]
pub struct AskedTopic {
    /// Bytes of its name; 0 if it goes by id.
    name_bytes: usize,
    id: Uuid,
    partitions: usize,
}

/// A partition, with the error if it never reached a shard.
#[derive(Clone, Copy, Debug)]
pub struct AskedPart {
    pub index: i32,
    pub refused: Option<Refused>,
}

impl Asked {
    /// With memory for so many. `names` is an empty buffer.
    pub fn new(names: Vec<u8>, topics: usize, parts: usize) -> Asked {
        Asked { names, topics: Few::with_capacity(topics), parts: Few::with_capacity(parts) }
    }

    pub fn part(&mut self, index: i32, refused: Option<Refused>) {
        self.parts.push(AskedPart { index, refused });
    }

    /// The topic of the last `partitions` parts.
    pub fn topic(&mut self, topic: &Topic, frame: &[u8], partitions: usize) {
        let name = topic.name(frame).unwrap_or_default();
        self.names.extend_from_slice(name.as_bytes());
        let id = topic.id().unwrap_or_default();
        self.topics.push(AskedTopic { name_bytes: name.len(), id, partitions });
    }

    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Some part was refused before it reached a shard.
    pub fn any_refused(&self) -> bool {
        self.parts.iter().any(|part| part.refused.is_some())
    }

    /// Each topic with the number of its partitions.
    pub fn each_topic(&self) -> impl Iterator<Item = (TopicKey<'_>, usize)> {
        let mut at = 0;
        self.topics.iter().map(move |topic| {
            let name = &self.names[at..at + topic.name_bytes];
            at += topic.name_bytes;
            let key = match name {
                [] => TopicKey::Id(topic.id),
                name => TopicKey::Name(std::str::from_utf8(name).unwrap_or_default()),
            };
            (key, topic.partitions)
        })
    }

    /// All partitions, those of one topic behind those of the other.
    pub fn each_part(&self) -> impl Iterator<Item = &AskedPart> {
        self.parts.iter()
    }

    /// Gives its memory back.
    pub fn recycle(self, buffers: &mut Buffers) {
        buffers.give(self.names);
    }
}
