//! Hot path. What Produce and Fetch have in common: topics by name or id, each with partitions.

use std::ops::Range;

use crate::base::ids::Uuid;
use crate::base::limits::REQUEST_PARTITIONS_MAX;
use crate::wire::error::WireError;
use crate::wire::primitive::{Reader, Span, put_length, put_no_tags, put_string, put_varint};

/// First version of Produce, and of Fetch, that names topics by id (KIP-516).
pub const FIRST_WITH_IDS: i16 = 13;

/// A topic as a request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRef {
    /// Up to version 12: the name's bytes in the frame.
    Name(Span),
    /// From version 13 on.
    Id(Uuid),
}

/// A topic of a request, and where its partitions stand in the request's list of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    pub topic: TopicRef,
    pub first: u32,
    pub count: u32,
}

impl Topic {
    /// Its part of the list of partitions.
    pub fn range(&self) -> Range<usize> {
        self.first as usize..self.first as usize + self.count as usize
    }

    /// Its name out of the frame it was parsed from; `None` if it goes by id.
    pub fn name<'a>(&self, frame: &'a [u8]) -> Option<&'a str> {
        match self.topic {
            TopicRef::Name(span) => Some(span.text(frame)),
            TopicRef::Id(_) => None,
        }
    }

    /// Its id; `None` if it goes by name.
    pub fn id(&self) -> Option<Uuid> {
        match self.topic {
            TopicRef::Name(_) => None,
            TopicRef::Id(id) => Some(id),
        }
    }
}

/// A topic as a response names it. Must be a name up to version 12 and an id from 13 on; the other kind goes out as "" or zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicKey<'a> {
    Name(&'a str),
    Id(Uuid),
}

/// Whom a client should talk to instead, in responses with NOT_LEADER_OR_FOLLOWER (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEndpoint<'a> {
    pub node_id: i32,
    pub host: &'a str,
    pub port: i32,
    pub rack: Option<&'a str>,
}

/// Leader of a partition, in responses with an error about it (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLeader {
    pub leader_id: i32,
    pub leader_epoch: i32,
}

/// Reads `[topic [partition]]` into two lists that the caller keeps and reuses. `read` reads one partition, of at least
/// `partition_bytes_min` bytes.
pub(crate) fn read_topics<'a, P>(
    reader: &mut Reader<'a>,
    version: i16,
    flexible: bool,
    partition_bytes_min: usize,
    (topics, partitions): (&mut Vec<Topic>, &mut Vec<P>),
    mut read: impl FnMut(&mut Reader<'a>) -> Result<P, WireError>,
) -> Result<(), WireError> {
    topics.clear();
    partitions.clear();
    let by_id = version >= FIRST_WITH_IDS;
    // Id, or the shortest name; then the count of partitions, then the tags.
    let topic_bytes_min = if by_id {
        18
    } else if flexible {
        3
    } else {
        6
    };
    let at = reader.position();
    let topic_count = reader.count_non_null(flexible, topic_bytes_min)?;
    if topic_count > REQUEST_PARTITIONS_MAX {
        return Err(WireError::Oversized { at });
    }
    for _ in 0..topic_count {
        let topic = match by_id {
            true => TopicRef::Id(reader.uuid()?),
            false => TopicRef::Name(reader.string_non_null(flexible)?),
        };
        let at = reader.position();
        let count = reader.count_non_null(flexible, partition_bytes_min)?;
        if count > REQUEST_PARTITIONS_MAX - partitions.len() {
            return Err(WireError::Oversized { at });
        }
        topics.push(Topic { topic, first: partitions.len() as u32, count: count as u32 });
        for _ in 0..count {
            partitions.push(read(reader)?);
        }
        reader.skip_tags(flexible)?;
    }
    Ok(())
}

/// Appends a topic and the number of partitions that follow.
pub(crate) fn put_topic(
    out: &mut Vec<u8>,
    version: i16,
    flexible: bool,
    key: TopicKey<'_>,
    partitions: usize,
) {
    if version >= FIRST_WITH_IDS {
        let id = if let TopicKey::Id(id) = key { id } else { Uuid::ZERO };
        out.extend_from_slice(&id.0);
    } else {
        let name = if let TopicKey::Name(name) = key { name } else { "" };
        put_string(out, flexible, Some(name));
    }
    put_length(out, flexible, partitions);
}

/// Appends the tagged field 0 of a whole response (node endpoints), and that there are no others.
pub(crate) fn put_endpoints(out: &mut Vec<u8>, endpoints: &[NodeEndpoint<'_>]) {
    if endpoints.is_empty() {
        return out.push(0);
    }
    out.extend_from_slice(&[1, 0]);
    // Written once to be measured, then moved behind its own size: rare, short, and needs no second buffer.
    let body = out.len();
    put_length(out, true, endpoints.len());
    for endpoint in endpoints {
        out.extend_from_slice(&endpoint.node_id.to_be_bytes());
        put_string(out, true, Some(endpoint.host));
        out.extend_from_slice(&endpoint.port.to_be_bytes());
        put_string(out, true, endpoint.rack);
        put_no_tags(out, true);
    }
    let end = out.len();
    put_varint(out, (end - body) as u32);
    let prefix = out.len() - end;
    out[body..].rotate_right(prefix);
}

/// Appends a tagged field that holds a current leader.
pub(crate) fn put_leader(out: &mut Vec<u8>, tag: u8, leader: CurrentLeader) {
    // Two i32 and an empty list of tags.
    out.extend_from_slice(&[tag, 9]);
    out.extend_from_slice(&leader.leader_id.to_be_bytes());
    out.extend_from_slice(&leader.leader_epoch.to_be_bytes());
    put_no_tags(out, true);
}
