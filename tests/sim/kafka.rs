//! A Kafka client of the simulated world: real frames over a [`SimConn`], never blocking. It keeps one connection, several
//! requests in flight, and reports what became of each: an answer, or *unknown* when the connection broke.

use std::collections::VecDeque;
use std::net::SocketAddr;

use corelog::io::sim::{ClientRead, SimConn, World};
use corelog::wire::msg::{
    Bytes, Call, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    FetchRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest, create_partitions_request,
    create_topics_request, decode_response, delete_records_request, encode_request, fetch_request,
    list_offsets_request, produce_request, response_correlation_id,
};

pub struct Client {
    world: World,
    /// One of them is called by chance.
    pub addrs: Vec<SocketAddr>,
    conn: Option<SimConn>,
    /// Request bytes that the socket has not taken.
    out: Vec<u8>,
    /// Response bytes that are not yet a frame.
    partial: Vec<u8>,
    next_correlation: i32,
    /// Requests without an answer, in order: that is how their answers come.
    waiting: VecDeque<(i32, u64)>,
    /// A client that does not read its responses for a while.
    pub deaf: bool,
    /// Bytes at the end of what is to be sent that it keeps for later.
    pub held_back: usize,
}

/// What became of a request, by the caller's name for it.
pub enum Answer {
    Frame(u64, Bytes),
    /// The connection broke: it may have been carried out or not.
    Unknown(u64),
}

impl Client {
    pub fn new(world: &World, addrs: Vec<SocketAddr>) -> Client {
        Client {
            world: world.clone(),
            addrs,
            conn: None,
            out: Vec::new(),
            partial: Vec::new(),
            next_correlation: 0,
            waiting: VecDeque::new(),
            deaf: false,
            held_back: 0,
        }
    }

    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Sends a request under the caller's name for it; false without a connection.
    pub fn send<R: Call>(&mut self, name: u64, version: i16, request: &R) -> bool {
        let sent = self.send_unanswered(version, request);
        if sent {
            self.waiting.push_back((self.next_correlation, name));
        }
        sent
    }

    /// Sends a request that gets no answer; false without a connection.
    pub fn send_unanswered<R: Call>(&mut self, version: i16, request: &R) -> bool {
        if self.conn.is_none() {
            let addr = self.addrs[self.world.below(self.addrs.len() as u64) as usize];
            self.conn = self.world.connect(addr).ok();
        }
        if self.conn.is_none() {
            return false;
        }
        self.next_correlation += 1;
        encode_request(&mut self.out, self.next_correlation, Some("sim"), version, request)
            .expect("a valid request");
        true
    }

    /// Moves bytes in both directions and returns what came of it.
    pub fn turn(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let Some(conn) = &self.conn else { return answers };
        let taken = conn.send(&self.out[..self.out.len().saturating_sub(self.held_back)]);
        self.out.drain(..taken);
        let mut open = true;
        while !self.deaf && open {
            match conn.recv(usize::MAX) {
                ClientRead::Bytes(bytes) => self.partial.extend(bytes),
                ClientRead::Nothing => break,
                ClientRead::End | ClientRead::Reset => open = false,
            }
        }
        while let Some(frame) = self.frame() {
            let correlation = response_correlation_id(&frame).expect("four bytes");
            match self.waiting.pop_front() {
                Some((due, name)) if due == correlation => answers.push(Answer::Frame(name, frame)),
                due => self.world.fail(format_args!("a response to {correlation} where {due:?} is due")),
            }
        }
        if !open {
            answers.extend(self.disconnect());
        }
        answers
    }

    fn frame(&mut self) -> Option<Bytes> {
        let len = u32::from_be_bytes(self.partial.get(..4)?.try_into().ok()?) as usize;
        let frame = Bytes::copy_from_slice(self.partial.get(4..4 + len)?);
        self.partial.drain(..4 + len);
        Some(frame)
    }

    /// Drops the connection: all that waits is unknown.
    pub fn disconnect(&mut self) -> Vec<Answer> {
        self.conn = None;
        self.out.clear();
        self.partial.clear();
        std::mem::take(&mut self.waiting).into_iter().map(|(_, name)| Answer::Unknown(name)).collect()
    }
}

pub const PRODUCE: i16 = 9;
pub const FETCH: i16 = 11;
pub const CREATE_TOPICS: i16 = 7;
pub const INIT_PRODUCER_ID: i16 = 2;
pub const DELETE_RECORDS: i16 = 2;
pub const DELETE_TOPICS: i16 = 4;
pub const CREATE_PARTITIONS: i16 = 2;
pub const LIST_OFFSETS: i16 = 5;

pub fn answer<R: Call>(frame: &Bytes, version: i16) -> R::Response {
    decode_response::<R>(frame.clone(), version).expect("a response of that version")
}

/// A partition as requests name it.
pub type Named<'a> = (&'a str, i32);

/// Groups what is asked of partitions by topic, as requests do.
fn by_topic<'a, T>(parts: impl IntoIterator<Item = (Named<'a>, T)>) -> Vec<(&'a str, Vec<(i32, T)>)> {
    let mut topics: Vec<(&str, Vec<(i32, T)>)> = Vec::new();
    for ((topic, index), part) in parts {
        match topics.iter_mut().find(|(name, _)| *name == topic) {
            Some((_, parts)) => parts.push((index, part)),
            None => topics.push((topic, vec![(index, part)])),
        }
    }
    topics
}

pub fn produce<'a>(parts: impl IntoIterator<Item = (Named<'a>, &'a [u8])>, acks: i16) -> ProduceRequest {
    let mut request = ProduceRequest::default();
    request.acks = acks;
    request.timeout_ms = 30_000;
    for (topic, parts) in by_topic(parts) {
        let mut of_topic = produce_request::TopicProduceData::default();
        of_topic.name = topic.to_string().into();
        for (index, batch) in parts {
            let mut data = produce_request::PartitionProduceData::default();
            data.index = index;
            data.records = Some(Bytes::copy_from_slice(batch));
            of_topic.partition_data.push(data);
        }
        request.topic_data.push(of_topic);
    }
    request
}

pub fn fetch<'a>(
    parts: impl IntoIterator<Item = (Named<'a>, i64)>,
    max_bytes: i32,
    max_wait_ms: i32,
    min_bytes: i32,
) -> FetchRequest {
    let mut request = FetchRequest::default();
    request.max_wait_ms = max_wait_ms;
    request.min_bytes = min_bytes;
    request.max_bytes = max_bytes;
    for (topic, parts) in by_topic(parts) {
        let mut of_topic = fetch_request::FetchTopic::default();
        of_topic.topic = topic.to_string().into();
        for (index, from) in parts {
            let mut wanted = fetch_request::FetchPartition::default();
            wanted.partition = index;
            wanted.fetch_offset = from;
            wanted.partition_max_bytes = max_bytes;
            of_topic.partitions.push(wanted);
        }
        request.topics.push(of_topic);
    }
    request
}

pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

pub fn list_offsets<'a>(parts: impl IntoIterator<Item = Named<'a>>, timestamp: i64) -> ListOffsetsRequest {
    let mut request = ListOffsetsRequest::default();
    request.replica_id = -1;
    for (topic, parts) in by_topic(parts.into_iter().map(|named| (named, ()))) {
        let mut of_topic = list_offsets_request::ListOffsetsTopic::default();
        of_topic.name = topic.to_string().into();
        for (index, ()) in parts {
            let mut wanted = list_offsets_request::ListOffsetsPartition::default();
            wanted.partition_index = index;
            wanted.current_leader_epoch = -1;
            wanted.timestamp = timestamp;
            of_topic.partitions.push(wanted);
        }
        request.topics.push(of_topic);
    }
    request
}

pub fn delete_topic(topic: &str) -> DeleteTopicsRequest {
    let mut request = DeleteTopicsRequest::default();
    request.topic_names = vec![topic.to_string().into()];
    request.timeout_ms = 30_000;
    request
}

pub fn create_partitions(topic: &str, count: i32) -> CreatePartitionsRequest {
    let mut wanted = create_partitions_request::CreatePartitionsTopic::default();
    wanted.name = topic.to_string().into();
    wanted.count = count;
    wanted.assignments = None;
    let mut request = CreatePartitionsRequest::default();
    request.topics = vec![wanted];
    request.timeout_ms = 30_000;
    request
}

pub fn create_topic(topic: &str, partitions: i32, configs: &[(&str, String)]) -> CreateTopicsRequest {
    let mut creatable = create_topics_request::CreatableTopic::default();
    creatable.name = topic.to_string().into();
    creatable.num_partitions = partitions;
    creatable.replication_factor = 1;
    for (key, value) in configs {
        let mut config = create_topics_request::CreatableTopicConfig::default();
        config.name = key.to_string().into();
        config.value = Some(value.clone().into());
        creatable.configs.push(config);
    }
    let mut request = CreateTopicsRequest::default();
    request.timeout_ms = 30_000;
    request.topics = vec![creatable];
    request
}

pub fn init_producer_id() -> InitProducerIdRequest {
    let mut request = InitProducerIdRequest::default();
    request.transactional_id = None;
    request.transaction_timeout_ms = 60_000;
    request
}

pub fn delete_records(topic: &str, partition: i32, offset: i64) -> DeleteRecordsRequest {
    let mut of_partition = delete_records_request::DeleteRecordsPartition::default();
    of_partition.partition_index = partition;
    of_partition.offset = offset;
    let mut of_topic = delete_records_request::DeleteRecordsTopic::default();
    of_topic.name = topic.to_string().into();
    of_topic.partitions = vec![of_partition];
    let mut request = DeleteRecordsRequest::default();
    request.timeout_ms = 30_000;
    request.topics = vec![of_topic];
    request
}
