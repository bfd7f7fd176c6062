//! A consumer of one topic by explicit positions: no group. Fetches from each leader in turn, checks every batch, and hands out
//! records one at a time without keeping them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::wire::batch::records::{self, Headers};
use crate::wire::batch::{self, Batch};
use crate::wire::error::codes;
use crate::wire::msg::fetch_request::{FetchPartition, FetchTopic};
use crate::wire::msg::fetch_response::PartitionData;
use crate::wire::msg::{FetchRequest, StrBytes};

pub struct Consumer {
    pub cluster: Cluster,
    topic: String,
    positions: BTreeMap<i32, Position>,
    /// The partition that is asked for first, so that each gets its turn when one fetch cannot hold all.
    turn: usize,
    /// Decompressed records of the batch at hand; kept for its memory.
    scratch: Vec<u8>,
    /// Since when every attempt has failed.
    failing: Option<Instant>,
}

/// Where a partition's reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Offset of the next record to hand out.
    pub next: i64,
    /// As the last fetch said; -1 before.
    pub high_watermark: i64,
    /// Not fetched any more.
    pub done: bool,
}

/// One record as it is handed out.
#[derive(Clone, Debug)]
pub struct Fetched<'a> {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970; -1 = none.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// What a caller of [`Consumer::poll`] says to each record.
pub type Verdict = ControlFlow<()>;

impl Consumer {
    /// Begins at the given offset of each partition.
    pub fn new(cluster: Cluster, topic: &str, from: &BTreeMap<i32, i64>) -> Consumer {
        let position = |next: &i64| Position { next: *next, high_watermark: -1, done: false };
        Consumer {
            cluster,
            topic: topic.to_string(),
            positions: from.iter().map(|(p, next)| (*p, position(next))).collect(),
            turn: 0,
            scratch: Vec::new(),
            failing: None,
        }
    }

    /// Where each partition stands.
    pub fn positions(&self) -> &BTreeMap<i32, Position> {
        &self.positions
    }

    /// Ends the reading of a partition.
    pub fn finish(&mut self, partition: i32) {
        if let Some(position) = self.positions.get_mut(&partition) {
            position.done = true;
        }
    }

    /// All partitions are done.
    pub fn is_done(&self) -> bool {
        self.positions.values().all(|p| p.done)
    }

    /// Fetches once from each leader, waiting up to `fetch.max.wait.ms` for data, and hands each record to `each` until it
    /// breaks. Returns how many were handed out. A failure that time may heal counts as nothing found, until
    /// `delivery.timeout.ms` of them in a row.
    pub fn poll(&mut self, each: &mut dyn FnMut(Fetched<'_>) -> Verdict) -> Result<u64, ClientError> {
        match self.poll_once(each) {
            Ok(count) => {
                self.failing = None;
                Ok(count)
            }
            Err(error) if error.is_retriable() => {
                let began = *self.failing.get_or_insert_with(Instant::now);
                self.cluster.forget(&error);
                if began.elapsed() > self.cluster.settings.delivery_timeout {
                    let what = format!("fetching from topic {}", self.topic);
                    return Err(ClientError::Deadline {
                        what,
                        after: began.elapsed(),
                        last: Box::new(error),
                    });
                }
                std::thread::sleep(self.cluster.settings.retry_backoff);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    fn poll_once(&mut self, each: &mut dyn FnMut(Fetched<'_>) -> Verdict) -> Result<u64, ClientError> {
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        let wanted: Vec<i32> = self.positions.iter().filter(|(_, p)| !p.done).map(|(p, _)| *p).collect();
        for partition in &wanted {
            by_leader.entry(self.cluster.leader(&self.topic, *partition)?).or_default().push(*partition);
        }
        // One leader may wait for data; several must not wait for each other.
        let wait = if by_leader.len() > 1 { Duration::ZERO } else { self.cluster.settings.fetch_max_wait };
        self.turn = self.turn.wrapping_add(1);
        let mut count = 0;
        for (leader, mut partitions) in by_leader {
            let turn = self.turn % partitions.len();
            partitions.rotate_left(turn);
            let request = self.request(&partitions, wait);
            let response = self.cluster.call(leader, &request)?;
            ClientError::check(response.error_code, format!("fetching from topic {}", self.topic), None)?;
            for data in response.responses.iter().flat_map(|t| &t.partitions) {
                if self.take(data, &mut count, each)?.is_break() {
                    return Ok(count);
                }
            }
        }
        Ok(count)
    }

    fn request(&self, partitions: &[i32], wait: Duration) -> FetchRequest {
        let settings = &self.cluster.settings;
        let wanted = partitions.iter().map(|index| {
            let mut wanted = FetchPartition::default();
            wanted.partition = *index;
            wanted.current_leader_epoch = -1;
            wanted.fetch_offset = self.positions[index].next;
            wanted.partition_max_bytes = settings.fetch_partition_bytes;
            wanted
        });
        let mut of_topic = FetchTopic::default();
        of_topic.topic = StrBytes::from(self.topic.as_str());
        of_topic.partitions = wanted.collect();
        let mut request = FetchRequest::default();
        request.replica_id = -1;
        request.max_wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        request.min_bytes = settings.fetch_min_bytes;
        request.max_bytes = settings.fetch_max_bytes;
        // No fetch session: id 0, epoch -1.
        request.session_epoch = -1;
        request.topics = vec![of_topic];
        request
    }

    /// Hands out what one partition returned.
    fn take(
        &mut self,
        data: &PartitionData,
        count: &mut u64,
        each: &mut dyn FnMut(Fetched<'_>) -> Verdict,
    ) -> Result<Verdict, ClientError> {
        let partition = data.partition_index;
        let what = format!("partition {partition} of topic {}", self.topic);
        let Some(position) = self.positions.get_mut(&partition) else { return Ok(Verdict::Continue(())) };
        if data.error_code == codes::OFFSET_OUT_OF_RANGE && position.next < data.log_start_offset {
            // Retention overtook the reading: go on with the first record that is left.
            position.next = data.log_start_offset;
            return Ok(Verdict::Continue(()));
        }
        ClientError::check(data.error_code, what.as_str(), None)?;
        position.high_watermark = data.high_watermark;
        let bytes = data.records.as_deref().unwrap_or_default();
        for batch in batch::batches(bytes) {
            let corrupt = |e| ClientError::Corrupt(format!("{what}, offset {}: {e:?}", position.next));
            let batch = batch.map_err(corrupt)?;
            batch.check().map_err(corrupt)?;
            let verdict =
                hand_out(partition, position, &batch, &mut self.scratch, count, each).map_err(|e| {
                    ClientError::Corrupt(format!("{what}, batch at {}: {e:?}", batch.base_offset()))
                })?;
            if verdict.is_break() {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Continue(()))
    }
}

fn hand_out(
    partition: i32,
    position: &mut Position,
    batch: &Batch<'_>,
    scratch: &mut Vec<u8>,
    count: &mut u64,
    each: &mut dyn FnMut(Fetched<'_>) -> Verdict,
) -> Result<Verdict, crate::base::error::Refused> {
    if batch.is_control() {
        position.next = position.next.max(batch.next_offset());
        return Ok(Verdict::Continue(()));
    }
    for record in records::open(batch, scratch)? {
        let record = record?;
        let offset = records::offset(batch, &record);
        if offset < position.next {
            continue;
        }
        position.next = offset + 1;
        *count += 1;
        let timestamp = records::timestamp(batch, &record);
        let fetched = Fetched {
            partition,
            offset,
            timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        if each(fetched).is_break() {
            return Ok(Verdict::Break(()));
        }
    }
    position.next = position.next.max(batch.next_offset());
    Ok(Verdict::Continue(()))
}
