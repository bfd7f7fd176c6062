//! What becomes of the requests of a broker's story, and whether it may.

use std::path::{Path, PathBuf};

use corelog::base::ids::Uuid;
use corelog::log::store::Durability;
use corelog::wire::msg::{
    Bytes, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    FetchRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest,
};

use super::{Asked, Created, Identity, Part, Story};
use crate::batch::{BatchId, parse};
use crate::kafka;
use crate::oracle::Verdict;
use crate::shards::DATA_DIR;

impl Story {
    pub(super) fn answered(&mut self, name: u64, frame: &Bytes) -> Verdict {
        match self.asked.remove(&name).expect("asked") {
            Asked::Create(topic) => self.created(topic, frame),
            Asked::Remove(topic) => self.removed(topic, frame),
            Asked::Grow(topic, life, count) => self.grown(topic, life, count, frame),
            Asked::Identity(at, life) => {
                self.identified(at, life, frame);
                Ok(())
            }
            Asked::Produce(parts) => self.produced(&parts, frame),
            Asked::Fetch(parts, max_bytes) => self.fetched(&parts, max_bytes, frame),
            Asked::Latest(parts) => self.latest_known(&parts, frame),
            Asked::Delete(part) => {
                let response = kafka::answer::<DeleteRecordsRequest>(frame, kafka::DELETE_RECORDS);
                let of = &response.topics[0].partitions[0];
                if of.error_code == 0 && self.is_current(part) {
                    self.partitions[part.at].oracle.log_start_durable(of.low_watermark);
                    self.world.mark("delete_records");
                }
                Ok(())
            }
        }
    }

    fn created(&mut self, topic: usize, frame: &Bytes) -> Verdict {
        let response = kafka::answer::<CreateTopicsRequest>(frame, kafka::CREATE_TOPICS);
        let code = response.topics[0].error_code;
        // 36: an earlier request did it, and its answer was lost.
        if code != 0 && !(code == 36 && self.topics[topic].tainted) {
            return Err(format!("{} is not created: {code}", self.topics[topic].name));
        }
        self.topics[topic].created = Created::Yes;
        if code == 0 {
            let id = Uuid(*response.topics[0].topic_id.as_bytes());
            self.topics[topic].dir = Path::new(DATA_DIR).join(id.to_string());
        }
        Ok(())
    }

    fn removed(&mut self, at: usize, frame: &Bytes) -> Verdict {
        let response = kafka::answer::<DeleteTopicsRequest>(frame, kafka::DELETE_TOPICS);
        let code = response.responses[0].error_code;
        let topic = &mut self.topics[at];
        // 3: an earlier request did it, and its answer was lost.
        if code != 0 && !(code == 3 && topic.tainted) {
            return Err(format!("{} is not deleted: {code}", topic.name));
        }
        self.world.mark("topic_removed");
        topic.life += 1;
        (topic.created, topic.growing, topic.dir) = (Created::No, false, PathBuf::new());
        if std::mem::take(&mut topic.tainted) {
            topic.name = format!("topic-{at}-{}", topic.life);
        }
        for i in 0..self.partitions.len() {
            if self.partitions[i].topic == at {
                let name = self.oracle_name(at, self.partitions[i].index);
                let partition = &mut self.partitions[i];
                partition.oracle = partition.oracle.made_again(name);
                (partition.next_fetch, partition.start_seen, partition.newest_segment) = (0, 0, None);
                partition.producer.begin_anew();
            }
        }
        Ok(())
    }

    fn grown(&mut self, topic: usize, life: u32, count: i32, frame: &Bytes) -> Verdict {
        let response = kafka::answer::<CreatePartitionsRequest>(frame, kafka::CREATE_PARTITIONS);
        let code = response.results[0].error_code;
        if self.topics[topic].life != life {
            return Ok(());
        }
        self.topics[topic].growing = false;
        match code {
            // 37: an earlier request did it, and its answer was lost.
            0 | 37 => {
                self.world.mark("topic_grown");
                self.topics[topic].partitions = count;
                self.add_partition(topic, count - 1);
                Ok(())
            }
            3 if self.topics[topic].created != Created::Yes => Ok(()),
            code => Err(format!("{} does not grow: {code}", self.topics[topic].name)),
        }
    }

    fn identified(&mut self, at: usize, life: u32, frame: &Bytes) {
        let response = kafka::answer::<InitProducerIdRequest>(frame, kafka::INIT_PRODUCER_ID);
        if response.error_code != 0 {
            self.world.mark("identity_refused");
        }
        if self.topics[self.partitions[at].topic].life != life {
            return;
        }
        let known = Identity::Known(response.producer_id);
        self.partitions[at].producer.identity =
            if response.error_code == 0 { known } else { Identity::Wanted };
    }

    /// The answer is about the topic as it is.
    fn is_current(&self, part: Part) -> bool {
        let topic = &self.topics[self.partitions[part.at].topic];
        topic.life == part.life && topic.created == Created::Yes
    }

    fn produced(&mut self, parts: &[(usize, BatchId)], frame: &Bytes) -> Verdict {
        let response = kafka::answer::<ProduceRequest>(frame, kafka::PRODUCE);
        for (at, id) in parts {
            let (topic, index) = (self.partitions[*at].topic, self.partitions[*at].index);
            let pending = self.partitions[*at].producer.pending.iter();
            let Some(place) = pending.into_iter().position(|batch| batch.id == *id) else { continue };
            let name = self.topics[topic].name.as_str();
            let of = response.responses.iter().find(|topic| *topic.name == *name);
            let of = of.and_then(|topic| topic.partition_responses.iter().find(|p| p.index == index));
            let Some(of) = of else { return Err(format!("{name}-{index}: no answer to a produce")) };
            let partition = &mut self.partitions[*at];
            match of.error_code {
                0 => {
                    partition.oracle.answered(*id, of.base_offset)?;
                    partition.producer.pending.remove(place);
                    partition.producer.in_flight = partition.producer.in_flight.saturating_sub(1);
                    self.check_disk(*at, *id, of.base_offset)?;
                }
                // Not available for a moment, or out of order behind a batch that was lost: all are sent again, in order.
                5 | 6 | 7 | 45 | 56 => {
                    self.world.mark("produce_refused");
                    self.send_again(*at);
                }
                3 if self.topics[topic].created != Created::Yes => self.world.mark("produce_to_removed"),
                code => return Err(format!("{}: {id:?} is refused with {code}", partition.oracle.name)),
            }
        }
        Ok(())
    }

    /// The bytes of an acked record are where its level says, at this moment.
    fn check_disk(&mut self, at: usize, id: BatchId, base: i64) -> Verdict {
        self.look_for_roll(at);
        let partition = &self.partitions[at];
        let topic = &self.topics[partition.topic];
        if topic.retention || base < partition.oracle.log_start_asked() || topic.created != Created::Yes {
            // Its segment may be gone by now.
            return Ok(());
        }
        if topic.dir.as_os_str().is_empty() || partition.oracle.durability == Durability::Memory {
            return Ok(());
        }
        let dir = topic.dir.join(partition.index.to_string());
        let body = partition.oracle.body(id).to_vec();
        let name = partition.oracle.name.clone();
        let durable = topic.durability == Durability::Durable;
        let world = self.world.clone();
        let Some(io) = self.broker().io() else { return Ok(()) };
        let listed = io.list_dir(&dir).unwrap_or_default();
        let found = listed.iter().rev().any(|entry| {
            let path = dir.join(&entry.name);
            let at =
                if durable { world.find_flushed(&path, 0, &body) } else { world.find_live(&path, 0, &body) };
            at.is_some()
        });
        if found { Ok(()) } else { Err(format!("{name}: {id:?} was acked and is not on the disk")) }
    }

    /// What has more segments than before in one run has rolled: a start makes its own before the first ack.
    fn look_for_roll(&mut self, at: usize) {
        let partition = &self.partitions[at];
        let dir = self.topics[partition.topic].dir.join(partition.index.to_string());
        let Some(io) = self.broker().io() else { return };
        let names = io.list_dir(&dir).unwrap_or_default();
        let segments = names.iter().filter_map(|entry| entry.name.strip_suffix(".seg")?.parse().ok());
        let newest = segments.max();
        let before = std::mem::replace(&mut self.partitions[at].newest_segment, newest);
        if before.is_some() && newest > before {
            self.world.mark("rolled");
        }
    }

    fn fetched(&mut self, parts: &[Part], max_bytes: i32, frame: &Bytes) -> Verdict {
        let response = kafka::answer::<FetchRequest>(frame, kafka::FETCH);
        let all = response.responses.iter().flat_map(|topic| &topic.partitions);
        let bytes = all.map(|of| of.records.as_ref().map_or(0, Bytes::len)).filter(|bytes| *bytes > 0);
        let (count, total) = bytes.fold((0, 0), |(count, total), bytes| (count + 1, total + bytes));
        if count > 1 && total > max_bytes as usize {
            return Err(format!(
                "a fetch of {max_bytes} bytes at most brought {total} from {count} partitions"
            ));
        }
        for part in parts {
            if !self.is_current(*part) {
                continue;
            }
            let (topic, index) = (self.partitions[part.at].topic, self.partitions[part.at].index);
            let name = self.topics[topic].name.as_str();
            let of = response.responses.iter().find(|topic| *topic.topic == *name);
            let of = of.and_then(|topic| topic.partitions.iter().find(|p| p.partition_index == index));
            let Some(of) = of else { return Err(format!("{name}-{index}: no answer to a fetch")) };
            let (from, partition) = (part.offset, &mut self.partitions[part.at]);
            match of.error_code {
                0 => {
                    let records = of.records.as_ref().map_or_else(Vec::new, |bytes| bytes.to_vec());
                    let name = &partition.oracle.name;
                    let found = parse(&records).map_err(|e| format!("{name}: fetch from {from}: {e}"))?;
                    let reached = partition.oracle.fetched(from, of.high_watermark, &found)?;
                    partition.oracle.saw_high_watermark(of.high_watermark);
                    if of.log_start_offset > partition.start_seen.max(partition.oracle.log_start_asked()) {
                        if !partition.oracle.retention {
                            let (name, start) = (&partition.oracle.name, of.log_start_offset);
                            return Err(format!("{name}: begins at {start}, which nobody asked for"));
                        }
                        self.world.mark("retained");
                    }
                    partition.start_seen = partition.start_seen.max(of.log_start_offset);
                    let start = partition.start_seen.max(partition.oracle.log_start());
                    partition.next_fetch = if reached > from { reached } else { start };
                }
                1 => {
                    let behind = partition.oracle.retention && partition.start_seen <= from;
                    partition.next_fetch = if behind {
                        // Nobody has said yet where the log begins now.
                        partition.oracle.high_watermark()
                    } else {
                        partition.start_seen.max(partition.oracle.log_start_asked())
                    };
                    self.world.mark("out_of_range");
                }
                // Its owner did not answer in time.
                6 if self.setup.shards > 1 => self.world.mark("fetch_without_owner"),
                code => return Err(format!("{}: fetch from {from}: error {code}", partition.oracle.name)),
            }
        }
        Ok(())
    }

    fn latest_known(&mut self, parts: &[Part], frame: &Bytes) -> Verdict {
        let response = kafka::answer::<ListOffsetsRequest>(frame, kafka::LIST_OFFSETS);
        for part in parts {
            if !self.is_current(*part) {
                continue;
            }
            let (topic, index) = (self.partitions[part.at].topic, self.partitions[part.at].index);
            let name = self.topics[topic].name.as_str();
            let of = response.topics.iter().find(|topic| *topic.name == *name);
            let of = of.and_then(|topic| topic.partitions.iter().find(|p| p.partition_index == index));
            let Some(of) = of else { return Err(format!("{name}-{index}: no answer to a question")) };
            match of.error_code {
                0 if of.offset >= part.offset => {
                    self.partitions[part.at].oracle.saw_high_watermark(of.offset);
                    self.world.mark("latest_known");
                }
                0 => return Err(format!("{name}-{index}: ends at {}, was at {}", of.offset, part.offset)),
                5..=7 => {}
                code => return Err(format!("{name}-{index}: its end is not known: {code}")),
            }
        }
        Ok(())
    }

    /// The connection broke under a request: nobody knows.
    pub(super) fn lost(&mut self, name: u64) {
        self.world.mark("unknown_outcome");
        match self.asked.remove(&name).expect("asked") {
            Asked::Create(topic) => {
                self.topics[topic].tainted = true;
                self.topics[topic].created = Created::No;
            }
            Asked::Remove(topic) => {
                self.topics[topic].tainted = true;
                self.topics[topic].created = Created::RemovalLost;
            }
            Asked::Grow(topic, life, _) => {
                if self.topics[topic].life == life {
                    self.topics[topic].growing = false;
                }
            }
            Asked::Identity(at, life) => {
                if self.topics[self.partitions[at].topic].life == life {
                    self.partitions[at].producer.identity = Identity::Wanted;
                }
            }
            Asked::Produce(parts) => {
                for (at, id) in parts {
                    // Not for what an earlier life was sent.
                    if self.partitions[at].producer.pending.iter().any(|batch| batch.id == id) {
                        self.send_again(at);
                    }
                }
            }
            Asked::Fetch(..) | Asked::Latest(_) | Asked::Delete(_) => {}
        }
    }

    /// An idempotent producer sends everything again that is not acked; any other gives it up.
    fn send_again(&mut self, at: usize) {
        let producer = &mut self.partitions[at].producer;
        producer.in_flight = 0;
        if producer.identity == Identity::None {
            producer.pending.clear();
        }
    }
}
