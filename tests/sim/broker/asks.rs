//! What the clients of a broker's story ask for.

use super::{Asked, Created, Identity, Part, STALL_NS_MAX, Story, Topic};
use crate::batch::{Batch, BatchId, Sequence};
use crate::kafka;

/// Batches that a producer may have in flight.
const IN_FLIGHT_MAX: usize = 5;

/// Partitions that a topic grows to.
const PARTITIONS_MAX: i32 = 4;

/// Requests of a client in flight, from which on it fetches no more.
const FETCHING_MAX: usize = 20;

impl Story {
    pub(super) fn act(&mut self) {
        for _ in 0..=self.below(3) {
            let client = self.below(self.clients.len() as u64) as usize;
            let at = self.below(self.partitions.len() as u64) as usize;
            match self.below(80) {
                0..40 => self.produce(client, at),
                40..66 => self.fetch(client, at),
                66..69 => self.latest(client, at),
                69..71 => self.delete_records(client, at),
                71..73 => self.clients[client].deaf = self.below(3) == 0,
                73 => self.remove_topic(client, at),
                74 => self.grow_topic(client, at),
                75 if self.below(2) == 0 => self.disconnect(client),
                76 if self.plan.stalls => self.stall(),
                _ => self.world.pass(self.below(300_000_000)),
            }
        }
    }

    pub(super) fn act_calmly(&mut self) {
        let client = self.below(self.clients.len() as u64) as usize;
        let at = self.below(self.partitions.len() as u64) as usize;
        match self.below(16) {
            0 => self.disconnect(client),
            1..5 => self.fetch(client, at),
            5..8 => self.latest(client, at),
            _ => self.produce(client, at),
        }
    }

    fn stall(&mut self) {
        let (shard, shift) = (self.below(u64::from(self.setup.shards)) as usize, self.below(6));
        let ns = self.below(STALL_NS_MAX >> shift);
        self.broker().stall(shard, ns);
    }

    /// What to do first before a partition can be used; true if it is ready.
    pub(super) fn prepare(&mut self, client: usize, at: usize) -> bool {
        let topic = self.partitions[at].topic;
        let Topic { name, partitions, configs, created, life, .. } = &self.topics[topic];
        let life = *life;
        match created {
            Created::Yes => {}
            Created::No => {
                let request = kafka::create_topic(name, *partitions, configs);
                if self.send(client, Asked::Create(topic), kafka::CREATE_TOPICS, &request) {
                    self.topics[topic].created = Created::Asked;
                }
                return false;
            }
            Created::RemovalLost => {
                self.send_removal(client, topic);
                return false;
            }
            Created::Asked | Created::Removing => return false,
        }
        if self.partitions[at].producer.identity == Identity::Wanted {
            let asked = Asked::Identity(at, life);
            if self.send(client, asked, kafka::INIT_PRODUCER_ID, &kafka::init_producer_id()) {
                self.partitions[at].producer.identity = Identity::Asked;
            }
        }
        !matches!(self.partitions[at].producer.identity, Identity::Wanted | Identity::Asked)
    }

    fn send<R: corelog::wire::msg::Call>(
        &mut self,
        client: usize,
        about: Asked,
        version: i16,
        request: &R,
    ) -> bool {
        self.next_name += 1;
        let sent = self.clients[client].send(self.next_name, version, request);
        if sent {
            self.asked.insert(self.next_name, about);
        }
        sent
    }

    /// A producer keeps to one connection, so that its batches arrive in order.
    fn producing_client(&self, client: usize, at: usize) -> usize {
        match self.partitions[at].producer.identity {
            Identity::None => client,
            _ => at % self.clients.len(),
        }
    }

    pub(super) fn produce(&mut self, client: usize, at: usize) {
        let client = self.producing_client(client, at);
        if !self.prepare(client, at) {
            return;
        }
        let mut ats = vec![at];
        if self.below(3) == 0 {
            let fits = |other: &usize| {
                let partition = &self.partitions[*other];
                *other != at
                    && self.topics[partition.topic].created == Created::Yes
                    && !matches!(partition.producer.identity, Identity::Wanted | Identity::Asked)
                    && self.producing_client(client, *other) == client
            };
            ats.extend((0..self.partitions.len()).filter(fits).take(1 + self.below(4) as usize));
        }
        for at in &ats {
            if self.partitions[*at].producer.pending.len() < IN_FLIGHT_MAX {
                let batch = self.new_batch(*at);
                self.partitions[*at].producer.pending.push_back(batch);
            }
        }
        self.send_pending(client, &ats);
    }

    fn new_batch(&mut self, at: usize) -> Batch {
        let wall_ms = 1_700_000_000_000 + (self.world.now() / 1_000_000) as i64;
        self.next_batch += 1;
        let records = 1 + self.below(5) as u32;
        let padding = if self.below(8) == 0 { self.below(60_000) } else { self.below(500) } as usize;
        let producer = &mut self.partitions[at].producer;
        let sequence = match producer.identity {
            Identity::Known(id) => Some(Sequence { producer: id, first: producer.next }),
            _ => None,
        };
        producer.next += records as i32;
        let id = BatchId(self.next_batch);
        let batch = Batch::new(id, records, padding / records as usize, wall_ms, sequence);
        self.partitions[at].oracle.sent(batch.clone());
        batch
    }

    /// Sends what these producers have, the oldest batch of each first.
    pub(super) fn send_pending(&mut self, client: usize, ats: &[usize]) {
        loop {
            let mut parts = Vec::new();
            let mut about = Vec::new();
            for at in ats {
                let partition = &self.partitions[*at];
                if let Some(batch) = partition.producer.pending.get(partition.producer.in_flight) {
                    let name = self.topics[partition.topic].name.as_str();
                    parts.push(((name, partition.index), &batch.bytes[..]));
                    about.push((*at, batch.id));
                }
            }
            if parts.is_empty() {
                return;
            }
            let no_identity = |at: &usize| self.partitions[*at].producer.identity == Identity::None;
            if self.below(16) == 0 && ats.iter().all(no_identity) {
                let request = kafka::produce(parts, 0);
                self.clients[client].send_unanswered(kafka::PRODUCE, &request);
                self.world.mark("produce_unanswered");
                // Nobody will know.
                for (at, id) in about {
                    self.partitions[at].producer.pending.retain(|batch| batch.id != id);
                }
                continue;
            }
            let acks = if self.below(2) == 0 { 1 } else { -1 };
            let request = kafka::produce(parts, acks);
            let ats: Vec<usize> = about.iter().map(|(at, _)| *at).collect();
            if !self.send(client, Asked::Produce(about), kafka::PRODUCE, &request) {
                return;
            }
            if ats.len() > 1 {
                self.world.mark("produce_of_several");
            }
            ats.iter().for_each(|at| self.partitions[*at].producer.in_flight += 1);
        }
    }

    pub(super) fn part(&self, at: usize, offset: i64) -> Part {
        Part { at, life: self.topics[self.partitions[at].topic].life, offset }
    }

    /// This partition and perhaps others, in any order, as far as they are there.
    fn some(&self, at: usize) -> Vec<usize> {
        let mut ats = vec![at];
        while self.below(2) == 0 && ats.len() < self.partitions.len() {
            let other = self.below(self.partitions.len() as u64) as usize;
            if !ats.contains(&other) {
                ats.push(other);
            }
        }
        ats.retain(|at| self.topics[self.partitions[*at].topic].created == Created::Yes);
        ats
    }

    pub(super) fn fetch(&mut self, client: usize, at: usize) {
        let ats = self.some(at);
        if ats.is_empty() || self.clients[client].in_flight() > FETCHING_MAX {
            return;
        }
        let (max_bytes, max_wait_ms) = (1 << self.below(21), self.below(500) as i32);
        let min_bytes = [0, 1, 1, 4_000][self.below(4) as usize];
        let parts = ats.iter().map(|at| self.part(*at, self.partitions[*at].next_fetch)).collect();
        self.send_fetch(client, parts, max_bytes, max_wait_ms, min_bytes);
    }

    pub(super) fn send_fetch(
        &mut self,
        client: usize,
        parts: Vec<Part>,
        max_bytes: i32,
        wait_ms: i32,
        min: i32,
    ) {
        let request = kafka::fetch(
            parts.iter().map(|part| (self.named(part.at), part.offset)),
            max_bytes,
            wait_ms,
            min,
        );
        if parts.len() > 1 {
            self.world.mark("fetch_of_several");
        }
        self.send(client, Asked::Fetch(parts, max_bytes), kafka::FETCH, &request);
    }

    fn named(&self, at: usize) -> kafka::Named<'_> {
        let partition = &self.partitions[at];
        (&self.topics[partition.topic].name, partition.index)
    }

    fn latest(&mut self, client: usize, at: usize) {
        let ats = self.some(at);
        if ats.is_empty() {
            return;
        }
        let known = |at: &usize| self.part(*at, self.partitions[*at].oracle.high_watermark());
        let parts = ats.iter().map(known).collect();
        let request = kafka::list_offsets(ats.iter().map(|at| self.named(*at)), kafka::LATEST);
        self.send(client, Asked::Latest(parts), kafka::LIST_OFFSETS, &request);
    }

    fn delete_records(&mut self, client: usize, at: usize) {
        let partition = &mut self.partitions[at];
        let (start, hw) = (partition.oracle.log_start(), partition.oracle.high_watermark());
        if self.topics[partition.topic].created != Created::Yes || hw <= start {
            return;
        }
        let offset = start + self.world.below((hw - start) as u64 + 1) as i64;
        partition.oracle.asked_log_start(offset);
        let request = kafka::delete_records(&self.topics[partition.topic].name, partition.index, offset);
        self.send(client, Asked::Delete(self.part(at, offset)), kafka::DELETE_RECORDS, &request);
    }

    fn remove_topic(&mut self, client: usize, at: usize) {
        let topic = self.partitions[at].topic;
        if self.topics[topic].created == Created::Yes {
            self.send_removal(client, topic);
        }
    }

    fn send_removal(&mut self, client: usize, topic: usize) {
        let request = kafka::delete_topic(&self.topics[topic].name);
        if self.send(client, Asked::Remove(topic), kafka::DELETE_TOPICS, &request) {
            self.topics[topic].created = Created::Removing;
        }
    }

    fn grow_topic(&mut self, client: usize, at: usize) {
        let topic = self.partitions[at].topic;
        let Topic { name, partitions, created, growing, life, .. } = &self.topics[topic];
        if *created != Created::Yes || *growing || *partitions >= PARTITIONS_MAX {
            return;
        }
        let (count, life) = (partitions + 1, *life);
        let request = kafka::create_partitions(name, count);
        if self.send(client, Asked::Grow(topic, life, count), kafka::CREATE_PARTITIONS, &request) {
            self.topics[topic].growing = true;
        }
    }
}
