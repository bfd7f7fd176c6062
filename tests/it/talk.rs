//! A conversation with a broker on one plain socket: chosen API versions, and any bytes where a test wants to be wrong on purpose.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use corelog::client::admin::NewTopic;
use corelog::client::cluster::Cluster;
use corelog::client::producer::produce_request;
use corelog::client::settings::Acks;
use corelog::wire::batch::build::{BatchBuilder, NewRecord};
use corelog::wire::batch::{self, records};
use corelog::wire::codec::Codec;
use corelog::wire::msg::fetch_request::{FetchPartition, FetchTopic};
use corelog::wire::msg::fetch_response::PartitionData;
use corelog::wire::msg::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use corelog::wire::msg::list_offsets_response::ListOffsetsPartitionResponse;
use corelog::wire::msg::produce_response::PartitionProduceResponse;
use corelog::wire::msg::{self, Bytes, Call, FetchRequest, ListOffsetsRequest, ProduceRequest, StrBytes};

/// No answer of a healthy broker takes longer, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The last versions that name topics instead of giving their ids.
pub const PRODUCE: i16 = 12;
pub const FETCH: i16 = 12;
pub const LIST_OFFSETS: i16 = 10;

pub struct Talk {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl Talk {
    pub fn to(address: &str) -> Talk {
        let stream = TcpStream::connect(address).expect("the broker accepts");
        stream.set_nodelay(true).expect("an open socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        Talk { stream, next_correlation_id: 1 }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are; false if the broker has closed the connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(e) if is_closed(&e) => false,
            Err(e) => panic!("sending {} bytes: {e}", bytes.len()),
        }
    }

    /// Sends a request and returns its correlation id.
    pub fn send<R: Call>(&mut self, version: i16, request: &R) -> i32 {
        let id = self.next_correlation_id;
        self.next_correlation_id += 1;
        assert!(self.send_bytes(&encode(id, version, request)), "the broker closed the connection");
        id
    }

    /// The next response frame, from its correlation id on; none if the broker closed the connection.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        self.try_frame().unwrap_or_else(|e| panic!("waiting for a response: {e}"))
    }

    /// As `frame`; an error if none comes in time.
    pub fn try_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut prefix = [0; 4];
        let mut frame = Vec::new();
        let read = self.stream.read_exact(&mut prefix).and_then(|()| {
            frame.resize(i32::from_be_bytes(prefix) as usize, 0);
            self.stream.read_exact(&mut frame)
        });
        match read {
            Ok(()) => Ok(Some(frame)),
            Err(e) if is_closed(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The next response, which must be that of `R` in `version`: its correlation id and body.
    pub fn receive<R: Call>(&mut self, version: i16) -> (i32, R::Response) {
        let frame = self.frame().expect("the broker closed the connection");
        let id = msg::response_correlation_id(&frame).expect("a correlation id");
        (id, msg::decode_response::<R>(Bytes::from(frame), version).expect("a response that decodes"))
    }

    pub fn call<R: Call>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request);
        let (id, response) = self.receive::<R>(version);
        assert_eq!(id, sent, "the answer to another request");
        response
    }

    /// Sends a fetch so many times, and reads nothing.
    pub fn send_times(&mut self, times: usize, ask: &Ask<'_>) {
        let request = ask.request();
        for _ in 0..times {
            self.send(FETCH, &request);
        }
    }

    /// Produces one batch to partition 0 with acks=all.
    pub fn produce(&mut self, topic: &str, batch: Vec<u8>) -> PartitionProduceResponse {
        self.produce_to(topic, 0, batch, Acks::All)
    }

    pub fn produce_to(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
        acks: Acks,
    ) -> PartitionProduceResponse {
        let response = self.call(PRODUCE, &produce_request(topic, partition, batch.into(), acks, PATIENCE));
        one(one(response.responses).partition_responses)
    }

    /// As `produce_to`; none if the connection ended instead.
    pub fn try_produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
        acks: Acks,
    ) -> Option<PartitionProduceResponse> {
        let request = produce_request(topic, partition, batch.into(), acks, PATIENCE);
        if !self.send_bytes(&encode(self.next_correlation_id, PRODUCE, &request)) {
            return None;
        }
        let response = msg::decode_response::<ProduceRequest>(Bytes::from(self.frame()?), PRODUCE);
        Some(one(one(response.expect("a response that decodes").responses).partition_responses))
    }

    /// Produces without an answer.
    pub fn produce_silently(&mut self, topic: &str, batch: Vec<u8>) {
        self.send(PRODUCE, &produce_request(topic, 0, batch.into(), Acks::None, PATIENCE));
    }

    /// What partition 0 holds from `offset` on, at once.
    pub fn fetch(&mut self, topic: &str, offset: i64) -> PartitionData {
        self.fetch_as(&Ask { offset, ..Ask::of(topic) })
    }

    pub fn fetch_as(&mut self, ask: &Ask<'_>) -> PartitionData {
        let response = self.call(FETCH, &ask.request());
        assert_eq!(response.error_code, 0);
        one(one(response.responses).partitions)
    }

    pub fn list_offset(&mut self, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
        let response = self.call(LIST_OFFSETS, &list_offsets_request(topic, timestamp));
        one(one(response.topics).partitions)
    }

    /// The values that partition 0 holds from `offset` to its high watermark, each with its offset.
    pub fn values(&mut self, topic: &str, offset: i64) -> Vec<(i64, Vec<u8>)> {
        let (mut found, mut next) = (Vec::new(), offset);
        loop {
            let data = self.fetch(topic, next);
            assert_eq!(data.error_code, 0, "fetching {topic} at {next}");
            let more = unpack(data.records.as_deref().unwrap_or_default());
            let Some((last, _)) = more.last() else {
                assert_eq!(next, data.high_watermark.max(offset), "nothing below the high watermark");
                return found;
            };
            let from = std::mem::replace(&mut next, last + 1);
            found.extend(more.into_iter().filter(|(at, _)| *at >= from));
        }
    }

    /// Whether the broker closes the connection within `patience`; what it sends before is dropped.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut sink = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("an open socket");
            let closed = match self.stream.read(&mut sink) {
                Ok(0) => true,
                Ok(_) if Instant::now() < deadline => continue,
                Ok(_) => false,
                Err(e) => is_closed(&e),
            };
            self.stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
            return closed;
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
    )
}

/// The only element.
pub fn one<T>(mut list: Vec<T>) -> T {
    assert_eq!(list.len(), 1, "one answer");
    list.pop().expect("counted")
}

pub fn encode<R: Call>(correlation_id: i32, version: i16, request: &R) -> Vec<u8> {
    let mut bytes = Vec::new();
    msg::encode_request(&mut bytes, correlation_id, Some("test"), version, request)
        .expect("a request of that version");
    bytes
}

/// A fetch of one partition.
pub struct Ask<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl<'a> Ask<'a> {
    /// From the start, without waiting.
    pub fn of(topic: &'a str) -> Ask<'a> {
        Ask {
            topic,
            partition: 0,
            offset: 0,
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 16 << 20,
            partition_max_bytes: 16 << 20,
        }
    }

    pub fn request(&self) -> FetchRequest {
        let mut wanted = FetchPartition::default();
        wanted.partition = self.partition;
        wanted.current_leader_epoch = -1;
        wanted.last_fetched_epoch = -1;
        wanted.fetch_offset = self.offset;
        wanted.log_start_offset = -1;
        wanted.partition_max_bytes = self.partition_max_bytes;
        let mut of_topic = FetchTopic::default();
        of_topic.topic = StrBytes::from(self.topic);
        of_topic.partitions = vec![wanted];
        let mut request = FetchRequest::default();
        request.replica_id = -1;
        request.max_wait_ms = self.max_wait_ms;
        request.min_bytes = self.min_bytes;
        request.max_bytes = self.max_bytes;
        request.session_epoch = -1;
        request.topics = vec![of_topic];
        request
    }
}

pub fn list_offsets_request(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    let mut wanted = ListOffsetsPartition::default();
    wanted.current_leader_epoch = -1;
    wanted.timestamp = timestamp;
    let mut of_topic = ListOffsetsTopic::default();
    of_topic.name = StrBytes::from(topic);
    of_topic.partitions = vec![wanted];
    let mut request = ListOffsetsRequest::default();
    request.replica_id = -1;
    request.topics = vec![of_topic];
    request
}

pub fn produce_unanswered(topic: &str, batch: Vec<u8>) -> ProduceRequest {
    produce_request(topic, 0, batch.into(), Acks::None, PATIENCE)
}

/// A batch of these values, stamped from 1,000,000 ms on, one millisecond apart.
pub fn batch_of(codec: Codec, values: &[&[u8]]) -> Vec<u8> {
    finish(BatchBuilder::new(codec), values)
}

pub fn batch(value: &[u8]) -> Vec<u8> {
    batch_of(Codec::None, &[value])
}

/// A batch of an idempotent producer.
pub fn sequenced(producer: (i64, i16), sequence: i32, values: &[&[u8]]) -> Vec<u8> {
    finish(BatchBuilder::new(Codec::None).producer(producer.0, producer.1, sequence), values)
}

fn finish(mut builder: BatchBuilder, values: &[&[u8]]) -> Vec<u8> {
    for (timestamp, value) in (1_000_000..).zip(values) {
        builder.push(&NewRecord { timestamp, key: None, value: Some(value), headers: &[] });
    }
    let mut bytes = Vec::new();
    builder.finish(&mut bytes).expect("a batch");
    bytes
}

/// The values in fetched bytes, each with its offset; every batch is whole and matches its checksum.
pub fn unpack(bytes: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let (mut found, mut scratch) = (Vec::new(), Vec::new());
    for batch in batch::batches(bytes) {
        let batch = batch.expect("a batch");
        batch.check().expect("a sound batch");
        for record in records::open(&batch, &mut scratch).expect("records") {
            let record = record.expect("a record");
            found.push((records::offset(&batch, &record), record.value.unwrap_or_default().to_vec()));
        }
    }
    found
}

/// Creates a topic of one partition, or of as many as `partitions` says.
pub fn create(cluster: &mut Cluster, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let topic = NewTopic {
        name: name.to_string(),
        partitions,
        replication: 1,
        configs: configs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        validate_only: false,
    };
    cluster.create_topic(&topic).expect("the topic is created");
}
