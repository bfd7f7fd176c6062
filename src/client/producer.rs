//! A producer for one topic: records collect in one batch per partition, batches go out with several requests in flight, and
//! each batch is acknowledged once, in order, over any number of retries.
//!
//! Memory: one open batch per partition (together at most [`BUFFER_BYTES_MAX`]), and `in_flight` unacknowledged ones per broker.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::client::partitioner::{Sticky, partition_of_key};
use crate::client::settings::{Acks, BUFFER_BYTES_MAX};
use crate::wire::batch::build::{BatchBuilder, NewRecord};
use crate::wire::error::{codes, name};
use crate::wire::msg::produce_request::{PartitionProduceData, TopicProduceData};
use crate::wire::msg::{Bytes, ProduceRequest, StrBytes};

/// Room for the length, varints and header count of one record, added to its own bytes.
const RECORD_OVERHEAD: usize = 32;

pub struct Producer {
    cluster: Cluster,
    topic: String,
    partitions: i32,
    lanes: BTreeMap<i32, Lane>,
    /// Unanswered requests by broker, oldest first.
    flights: BTreeMap<i32, VecDeque<Flight>>,
    next_batch_id: u64,
    /// Bytes of all open batches.
    open_bytes: usize,
    sticky: Sticky,
    identity: Option<(i64, i16)>,
    acked: VecDeque<Ack>,
}

/// One partition: the batch being filled, and those that are not acknowledged, in the order of their sequences.
struct Lane {
    open: BatchBuilder,
    tags: Vec<u64>,
    unacked: VecDeque<Batch>,
}

struct Batch {
    id: u64,
    bytes: Bytes,
    tags: Vec<u64>,
    /// The last time it was sent, and the first.
    sent: Option<Instant>,
    first_sent: Option<Instant>,
    in_flight: bool,
}

struct Flight {
    partition: i32,
    batch: u64,
}

/// A batch that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub partition: i32,
    /// Offset of the first record; the others follow. -1: not told (acks=0, or a duplicate too old to be remembered).
    pub base_offset: i64,
    /// What the caller gave with each record, in order.
    pub tags: Vec<u64>,
    /// From the first send to the answer.
    pub latency: Duration,
}

impl Producer {
    /// Looks the topic up (creating it where that is allowed) and, if idempotent, gets an identity. `seed` spreads records
    /// without keys differently for each producer.
    pub fn new(mut cluster: Cluster, topic: &str, seed: u64) -> Result<Producer, ClientError> {
        let partitions = cluster.topic(topic)?.partitions.len() as i32;
        let idempotent = cluster.settings.idempotent && cluster.settings.acks == Acks::All;
        let identity = if idempotent { Some(cluster.init_producer_id()?) } else { None };
        Ok(Producer {
            sticky: Sticky::new(cluster.settings.batch_bytes, seed),
            cluster,
            topic: topic.to_string(),
            partitions,
            lanes: BTreeMap::new(),
            flights: BTreeMap::new(),
            next_batch_id: 0,
            open_bytes: 0,
            identity: identity.map(|(id, epoch)| (id.0, epoch.0)),
            acked: VecDeque::new(),
        })
    }

    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Adds a record: to `partition`, else to its key's, else to the sticky one. `tag` comes back in its [`Ack`]. Blocks while
    /// the window is full.
    pub fn push(
        &mut self,
        partition: Option<i32>,
        record: &NewRecord<'_>,
        tag: u64,
    ) -> Result<(), ClientError> {
        let headers: usize =
            record.headers.iter().map(|(k, v)| k.len() + v.map_or(0, <[u8]>::len) + 10).sum();
        let bytes = record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len)
            + headers
            + RECORD_OVERHEAD;
        let partition = match (partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, self.partitions),
            (None, None) => self.sticky.next(bytes, self.partitions),
        };
        if !(0..self.partitions).contains(&partition) {
            let has = self.partitions;
            return Err(ClientError::Input(format!(
                "topic {} has partitions 0 to {}, not {partition}",
                self.topic,
                has - 1
            )));
        }
        let batch_bytes = self.cluster.settings.batch_bytes;
        let lane = self.lane(partition);
        if lane.open.count() > 0 && lane.open.bytes() + bytes > batch_bytes {
            self.close(partition)?;
        }
        let lane = self.lane(partition);
        let before = if lane.open.count() > 0 { lane.open.bytes() } else { 0 };
        lane.open.push(record);
        lane.tags.push(tag);
        let after = lane.open.bytes();
        let full = after >= batch_bytes;
        self.open_bytes += after - before;
        if full {
            self.close(partition)
        } else if self.open_bytes > BUFFER_BYTES_MAX {
            self.close_all()
        } else {
            Ok(())
        }
    }

    /// Sends what is open and waits until everything is acknowledged.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.close_all()?;
        while let Some(broker) = self.flights.iter().find(|(_, f)| !f.is_empty()).map(|(broker, _)| *broker) {
            let received = self.receive(broker);
            self.survive(received)?;
        }
        Ok(())
    }

    /// The acknowledgements since the last call.
    pub fn take_acks(&mut self) -> impl Iterator<Item = Ack> + '_ {
        self.acked.drain(..)
    }

    /// Records that were pushed and are not acknowledged.
    pub fn unacked(&self) -> usize {
        self.lanes
            .values()
            .map(|l| l.tags.len() + l.unacked.iter().map(|b| b.tags.len()).sum::<usize>())
            .sum()
    }

    /// Sends the open batches of all partitions.
    pub fn close_all(&mut self) -> Result<(), ClientError> {
        let open: Vec<i32> = self.lanes.iter().filter(|(_, l)| l.open.count() > 0).map(|(p, _)| *p).collect();
        open.into_iter().try_for_each(|partition| self.close(partition))
    }

    fn lane(&mut self, partition: i32) -> &mut Lane {
        let (codec, identity) = (self.cluster.settings.compression, self.identity);
        self.lanes.entry(partition).or_insert_with(|| {
            let open = BatchBuilder::new(codec);
            let open = if let Some((id, epoch)) = identity { open.producer(id, epoch, 0) } else { open };
            Lane { open, tags: Vec::new(), unacked: VecDeque::new() }
        })
    }

    /// Finishes the open batch of a partition and sends it.
    fn close(&mut self, partition: i32) -> Result<(), ClientError> {
        let id = self.next_batch_id;
        self.next_batch_id += 1;
        let lane = self.lane(partition);
        let mut bytes = Vec::new();
        let open_bytes = lane.open.bytes();
        lane.open.finish(&mut bytes).map_err(|e| ClientError::Input(e.to_string()))?;
        let tags = std::mem::take(&mut lane.tags);
        let batch =
            Batch { id, bytes: Bytes::from(bytes), tags, sent: None, first_sent: None, in_flight: false };
        lane.unacked.push_back(batch);
        self.open_bytes -= open_bytes;
        let sent = self.transmit(partition, id);
        self.survive(sent)
    }

    /// Sends one unacknowledged batch, after waiting for room in its broker's window.
    fn transmit(&mut self, partition: i32, id: u64) -> Result<(), ClientError> {
        let leader = self.cluster.leader(&self.topic, partition)?;
        while self.flights.get(&leader).is_some_and(|f| f.len() >= self.cluster.settings.in_flight_allowed())
        {
            self.receive(leader)?;
        }
        let acks = self.cluster.settings.acks;
        let timeout = self.cluster.settings.request_timeout;
        let Some(batch) =
            self.lanes.get_mut(&partition).and_then(|l| l.unacked.iter_mut().find(|b| b.id == id))
        else {
            return Ok(());
        };
        let request = produce_request(&self.topic, partition, batch.bytes.clone(), acks, timeout);
        let now = Instant::now();
        batch.sent = Some(now);
        batch.first_sent.get_or_insert(now);
        let connection = self.cluster.connection(leader)?;
        if acks == Acks::None {
            connection.send_unanswered(&request)?;
            self.acknowledge(partition, id, -1);
            return Ok(());
        }
        connection.send(&request)?;
        batch.in_flight = true;
        self.flights.entry(leader).or_default().push_back(Flight { partition, batch: id });
        Ok(())
    }

    /// Reads the oldest answer of a broker.
    fn receive(&mut self, broker: i32) -> Result<(), ClientError> {
        let response = self.cluster.connection(broker)?.receive::<ProduceRequest>()?;
        let Some(flight) = self.flights.get_mut(&broker).and_then(VecDeque::pop_front) else { return Ok(()) };
        let lane = self.lanes.get_mut(&flight.partition);
        if let Some(batch) = lane.and_then(|l| l.unacked.iter_mut().find(|b| b.id == flight.batch)) {
            batch.in_flight = false;
        }
        let answer = response.responses.first().and_then(|t| t.partition_responses.first());
        let what = format!("producing to partition {} of topic {}", flight.partition, self.topic);
        let Some(answer) = answer else {
            return Err(ClientError::refused(
                codes::UNKNOWN_SERVER_ERROR,
                what,
                Some("no answer for the partition"),
            ));
        };
        match answer.error_code {
            codes::NONE => self.acknowledge(flight.partition, flight.batch, answer.base_offset),
            codes::DUPLICATE_SEQUENCE_NUMBER => self.acknowledge(flight.partition, flight.batch, -1),
            code => return Err(ClientError::refused(code, what, answer.error_message.as_deref())),
        }
        Ok(())
    }

    fn acknowledge(&mut self, partition: i32, id: u64, base_offset: i64) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        let Some(at) = lane.unacked.iter().position(|b| b.id == id) else { return };
        if let Some(batch) = lane.unacked.remove(at) {
            let latency = batch.first_sent.map_or(Duration::ZERO, |sent| sent.elapsed());
            self.acked.push_back(Ack { partition, base_offset, tags: batch.tags, latency });
        }
    }

    /// Passes success on; after a failure that time may heal, sends everything unacknowledged again until it is.
    fn survive(&mut self, outcome: Result<(), ClientError>) -> Result<(), ClientError> {
        let Err(mut error) = outcome else { return Ok(()) };
        let began = Instant::now();
        let mut pause = self.cluster.settings.retry_backoff;
        loop {
            if !error.is_retriable() {
                return Err(error);
            }
            let after = began.elapsed();
            if after > self.cluster.settings.delivery_timeout {
                let what = format!("producing to topic {}", self.topic);
                return Err(ClientError::Deadline { what, after, last: Box::new(error) });
            }
            self.settle(&error)?;
            self.cluster.forget(&error);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
            match self.resend() {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
    }

    /// Reads the answers that are still to come, so that nothing is in flight: behind a refused batch the broker refuses its
    /// successors as out of order. A lost connection ends it: what was in flight there is sent again.
    fn settle(&mut self, first: &ClientError) -> Result<(), ClientError> {
        let brokers: Vec<i32> = self.flights.keys().copied().collect();
        for broker in brokers {
            let mut lost = first.is_connection();
            while !lost && self.flights.get(&broker).is_some_and(|f| !f.is_empty()) {
                match self.receive(broker) {
                    Err(error) if error.is_connection() => lost = true,
                    Err(error) if error.is_retriable() || is_aftermath(&error) => {}
                    outcome => outcome?,
                }
            }
            if lost {
                self.cluster.close(broker);
            }
        }
        self.flights.clear();
        for batch in self.lanes.values_mut().flat_map(|l| &mut l.unacked) {
            batch.in_flight = false;
        }
        Ok(())
    }

    /// Sends all unacknowledged batches in order and waits for every answer.
    fn resend(&mut self) -> Result<(), ClientError> {
        let unacked = self.lanes.iter().flat_map(|(p, l)| l.unacked.iter().map(|b| (*p, b.id)));
        let unacked: Vec<(i32, u64)> = unacked.collect();
        for (partition, id) in unacked {
            self.transmit(partition, id)?;
        }
        while let Some(broker) = self.flights.iter().find(|(_, f)| !f.is_empty()).map(|(broker, _)| *broker) {
            self.receive(broker)?;
        }
        Ok(())
    }
}

/// What the successors of a refused batch get.
fn is_aftermath(error: &ClientError) -> bool {
    debug_assert!(name(codes::OUT_OF_ORDER_SEQUENCE_NUMBER).is_some());
    error.code() == Some(codes::OUT_OF_ORDER_SEQUENCE_NUMBER)
}

/// A request with one batch for one partition.
pub fn produce_request(
    topic: &str,
    partition: i32,
    batch: Bytes,
    acks: Acks,
    timeout: Duration,
) -> ProduceRequest {
    let mut data = PartitionProduceData::default();
    data.index = partition;
    data.records = Some(batch);
    let mut of_topic = TopicProduceData::default();
    of_topic.name = StrBytes::from(topic);
    of_topic.partition_data = vec![data];
    let mut request = ProduceRequest::default();
    request.transactional_id = None;
    request.acks = acks.wire();
    request.timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    request.topic_data = vec![of_topic];
    request
}
