//! Producers that write down what was acknowledged, and the check that all of it is there: for the demo and the crash tests.
//!
//! Each record carries its name (producer and sequence number) in a header, so that a reader can tell what it should be. Both
//! sides make the expected bytes from the same [`Source`], so a ledger holds only places.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use crate::client::cluster::Cluster;
use crate::client::consumer::{Consumer, Fetched};
use crate::client::error::ClientError;
use crate::client::producer::Producer;
use crate::client::settings::Settings;
use crate::wire::batch::build::NewRecord;

/// The header that names a record: producer u32, sequence u64, big-endian.
const NAME_HEADER: &[u8] = b"corelog-ledger";

/// Acknowledgements are collected at least this often, in records pushed.
const COLLECT_EVERY: u64 = 64;

/// What is produced: the same bytes each time it is asked for the same record.
pub trait Source: Sync {
    /// Writes key and value of a record; false where the producer has no such record.
    fn record(&self, producer: u32, sequence: u64, key: &mut Vec<u8>, value: &mut Vec<u8>) -> bool;
}

/// Where one producer's acknowledged records are.
pub struct Ledger {
    pub producer: u32,
    /// By sequence: partition and offset; offset -1 where the broker did not say; none where it was not acknowledged.
    pub placed: Vec<Option<(i32, i64)>>,
    /// From a batch's first send to its ack, in nanoseconds, counted once for each record in it, until `watch.disturbed`.
    pub latency: Histogram<u64>,
    pub bytes: u64,
    /// Why it ended early. What was acknowledged before stays acknowledged.
    pub error: Option<ClientError>,
}

/// What the producers and the one who watches them share.
#[derive(Default)]
pub struct Watch {
    pub stop: AtomicBool,
    /// The broker was interfered with: latencies are not collected from here on.
    pub disturbed: AtomicBool,
    /// Records acknowledged so far.
    pub acked: AtomicU64,
    /// Milliseconds since 1970 of the latest ack.
    pub last_ack_ms: AtomicU64,
}

/// An empty histogram of nanoseconds: up to an hour, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are in order")
}

/// Produces until the source ends, `watch.stop` is set, or an error is final.
pub fn produce(
    settings: &Settings,
    topic: &str,
    producer: u32,
    source: &dyn Source,
    watch: &Watch,
) -> Ledger {
    let mut ledger = Ledger { producer, placed: Vec::new(), latency: histogram(), bytes: 0, error: None };
    let made = meet(settings.clone()).and_then(|c| Producer::new(c, topic, u64::from(producer) + 1));
    ledger.error = match made {
        Ok(mut made) => {
            let outcome = stream(&mut made, producer, source, watch, &mut ledger);
            // Also what was acknowledged before a failure.
            collect(&mut made, watch, &mut ledger);
            outcome.err()
        }
        Err(error) => Some(error),
    };
    ledger
}

/// A broker may be killed before a client's first words with it, which to a client that knows none is final.
fn meet(settings: Settings) -> Result<Cluster, ClientError> {
    let patience = settings.delivery_timeout;
    let mut cluster = Cluster::new(settings);
    cluster.wait_until_answering(patience)?;
    Ok(cluster)
}

fn stream(
    out: &mut Producer,
    producer: u32,
    source: &dyn Source,
    watch: &Watch,
    ledger: &mut Ledger,
) -> Result<(), ClientError> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for sequence in 0u64.. {
        key.clear();
        value.clear();
        if watch.stop.load(Ordering::Relaxed) || !source.record(producer, sequence, &mut key, &mut value) {
            break;
        }
        let mut name = [0; 12];
        name[..4].copy_from_slice(&producer.to_be_bytes());
        name[4..].copy_from_slice(&sequence.to_be_bytes());
        let record = NewRecord {
            timestamp: now_ms() as i64,
            key: (!key.is_empty()).then_some(key.as_slice()),
            value: Some(&value),
            headers: &[(NAME_HEADER, Some(&name))],
        };
        ledger.placed.push(None);
        ledger.bytes += (key.len() + value.len()) as u64;
        out.push(None, &record, sequence)?;
        if sequence % COLLECT_EVERY == 0 {
            collect(out, watch, ledger);
        }
    }
    out.flush()
}

fn collect(producer: &mut Producer, watch: &Watch, ledger: &mut Ledger) {
    let mut count = 0;
    for ack in producer.take_acks() {
        for (i, sequence) in ack.tags.iter().enumerate() {
            let offset = if ack.base_offset < 0 { -1 } else { ack.base_offset + i as i64 };
            ledger.placed[*sequence as usize] = Some((ack.partition, offset));
        }
        count += ack.tags.len() as u64;
        if !watch.disturbed.load(Ordering::Relaxed) {
            ledger.latency.saturating_record_n(ack.latency.as_nanos() as u64, ack.tags.len() as u64);
        }
    }
    if count > 0 {
        watch.acked.fetch_add(count, Ordering::Relaxed);
        watch.last_ack_ms.store(now_ms(), Ordering::Relaxed);
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What a reading of the whole topic found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub records: u64,
    pub bytes: u64,
    /// Acknowledged, and not there.
    pub lost: u64,
    /// Records that are there more than once.
    pub duplicates: u64,
    /// Bytes that differ from what was sent, or records that no producer sent.
    pub wrong: u64,
    /// An acknowledged offset that holds another record, or an offset whose record changed since an earlier reading.
    pub replaced: u64,
    /// Steps in the offsets of a partition other than one.
    pub gaps: u64,
    /// What was found first, for people.
    pub first: Option<String>,
}

impl Verdict {
    /// Nothing acknowledged is lost, changed or out of place. Duplicates are a matter of what the producers promised.
    pub fn is_sound(&self) -> bool {
        self.lost + self.wrong + self.replaced + self.gaps == 0
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.first.is_none() {
            self.first = Some(what());
        }
    }
}

/// What each offset held when it was last read: the name of its record. An offset must never hold two.
#[derive(Default)]
pub struct History {
    names: BTreeMap<i32, Vec<(u32, u64)>>,
}

impl History {
    /// Remembers what an offset holds; an error if it held something else before.
    fn remember(&mut self, partition: i32, offset: i64, name: (u32, u64)) -> Result<(), String> {
        let names = self.names.entry(partition).or_default();
        match names.get(offset as usize) {
            Some(before) if *before != name => Err(format!(
                "offset {offset} of partition {partition} held {before:?} and now holds {name:?}"
            )),
            None if offset as usize == names.len() => {
                names.push(name);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn at(&self, partition: i32, offset: i64) -> Option<(u32, u64)> {
        self.names.get(&partition).and_then(|names| names.get(offset as usize)).copied()
    }

    /// Records that were read at least once.
    pub fn len(&self) -> usize {
        self.names.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads along until `stop`, over restarts, and remembers what it saw: a consumer must never see a record that is later gone.
/// An error, in words, if an offset changed under it or the end of a partition moved back.
pub fn observe(
    settings: &Settings,
    topic: &str,
    history: &mut History,
    stop: &AtomicBool,
) -> Result<(), String> {
    let said = |error: ClientError| format!("the reader of {topic}: {error}");
    let mut cluster = meet(Settings { auto_create: false, ..settings.clone() }).map_err(said)?;
    let partitions: Vec<i32> =
        cluster.topic(topic).map_err(said)?.partitions.iter().map(|p| p.index).collect();
    let from = partitions.iter().map(|p| (*p, history.names.get(p).map_or(0, |n| n.len() as i64))).collect();
    let mut consumer = Consumer::new(cluster, topic, &from);
    let mut outcome = Ok(());
    while outcome.is_ok() && !stop.load(Ordering::Relaxed) {
        let polled = consumer.poll(&mut |record| {
            if let Some(name) = name_of(&record) {
                outcome = history.remember(record.partition, record.offset, name);
            }
            if outcome.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        polled.map_err(said)?;
    }
    outcome
}

/// Reads the whole topic and compares it with the ledgers and with earlier readings.
pub fn verify(
    settings: &Settings,
    topic: &str,
    ledgers: &[Ledger],
    source: &dyn Source,
    history: &mut History,
) -> Result<Verdict, ClientError> {
    let mut cluster = Cluster::new(Settings { auto_create: false, ..settings.clone() });
    let ranges = cluster.offset_ranges(topic)?;
    let from: BTreeMap<i32, i64> = ranges.iter().map(|(p, (start, _))| (*p, *start)).collect();
    let mut consumer = Consumer::new(cluster, topic, &from);
    let mut audit = Audit::new(ledgers, source, history);
    for (partition, (start, end)) in &ranges {
        audit.known_end(*partition, *start, *end);
        if start == end {
            consumer.finish(*partition);
        }
    }
    while !consumer.is_done() {
        consumer.poll(&mut |record| {
            audit.take(&record);
            ControlFlow::Continue(())
        })?;
        let at_end = |(p, position): (&i32, &crate::client::consumer::Position)| {
            (position.next >= ranges[p].1).then_some(*p)
        };
        let ended: Vec<i32> = consumer.positions().iter().filter_map(at_end).collect();
        ended.into_iter().for_each(|p| consumer.finish(p));
    }
    Ok(audit.finish())
}

struct Audit<'a> {
    ledgers: BTreeMap<u32, &'a Ledger>,
    source: &'a dyn Source,
    history: &'a mut History,
    /// By producer and sequence: the record was there.
    seen: BTreeMap<u32, Vec<bool>>,
    next: BTreeMap<i32, i64>,
    verdict: Verdict,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Audit<'a> {
    fn new(ledgers: &'a [Ledger], source: &'a dyn Source, history: &'a mut History) -> Audit<'a> {
        let seen = ledgers.iter().map(|l| (l.producer, vec![false; l.placed.len()])).collect();
        let ledgers = ledgers.iter().map(|l| (l.producer, l)).collect();
        Audit {
            ledgers,
            source,
            history,
            seen,
            next: BTreeMap::new(),
            verdict: Verdict::default(),
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// A partition never ends before what a reader has seen.
    fn known_end(&mut self, partition: i32, start: i64, end: i64) {
        self.next.insert(partition, start);
        let read = self.history.names.get(&partition).map_or(0, |n| n.len() as i64);
        if end < read {
            self.verdict.lost += (read - end) as u64;
            self.verdict
                .note(|| format!("partition {partition} ends at {end}, and was read up to {read} before"));
        }
    }

    fn take(&mut self, record: &Fetched<'_>) {
        let place = (record.partition, record.offset);
        let verdict = &mut self.verdict;
        verdict.records += 1;
        verdict.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        let next = self.next.entry(record.partition).or_default();
        if record.offset != *next {
            verdict.gaps += 1;
            verdict.note(|| format!("partition {} steps to offset {} where {next} is due", place.0, place.1));
        }
        *next = record.offset + 1;
        let Some((producer, sequence)) = name_of(record) else {
            verdict.wrong += 1;
            return verdict.note(|| format!("{place:?} holds a record that nobody named"));
        };
        self.key.clear();
        self.value.clear();
        let known = self.source.record(producer, sequence, &mut self.key, &mut self.value);
        if !known || record.key.unwrap_or_default() != self.key || record.value != Some(&self.value) {
            verdict.wrong += 1;
            verdict.note(|| {
                format!("{place:?} holds other bytes than record {sequence} of producer {producer}")
            });
        }
        match self.seen.get_mut(&producer).and_then(|s| s.get_mut(sequence as usize)) {
            Some(seen) if *seen => {
                verdict.duplicates += 1;
            }
            Some(seen) => *seen = true,
            None => {
                verdict.wrong += 1;
                verdict.note(|| {
                    format!("{place:?} holds record {sequence} of producer {producer}, which was never sent")
                });
            }
        }
        if let Err(what) = self.history.remember(place.0, place.1, (producer, sequence)) {
            verdict.replaced += 1;
            verdict.note(|| what);
        }
    }

    fn finish(mut self) -> Verdict {
        for (producer, ledger) in &self.ledgers {
            for (sequence, place) in ledger.placed.iter().enumerate() {
                let Some((partition, offset)) = place else { continue };
                if !self.seen[producer][sequence] {
                    self.verdict.lost += 1;
                    self.verdict.note(|| format!("record {sequence} of producer {producer}, acknowledged at {partition}/{offset}, is lost"));
                } else if *offset >= 0 {
                    let name = self.history.at(*partition, *offset);
                    if name != Some((*producer, sequence as u64)) {
                        self.verdict.replaced += 1;
                        self.verdict.note(|| {
                            format!(
                                "{partition}/{offset} was acknowledged to {:?} and holds {name:?}",
                                (producer, sequence)
                            )
                        });
                    }
                }
            }
        }
        self.verdict
    }
}

fn name_of(record: &Fetched<'_>) -> Option<(u32, u64)> {
    let (_, name) = record.headers.clone().find(|(key, _)| *key == NAME_HEADER)?;
    let name: [u8; 12] = name?.try_into().ok()?;
    let producer = u32::from_be_bytes([name[0], name[1], name[2], name[3]]);
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&name[4..]);
    Some((producer, u64::from_be_bytes(sequence)))
}

/// Starts one producer thread for each of `producers`, calls `meanwhile`, and joins them.
pub fn run<T>(
    settings: &Settings,
    topic: &str,
    producers: std::ops::Range<u32>,
    source: &dyn Source,
    watch: &Watch,
    meanwhile: impl FnOnce() -> T,
) -> (Vec<Ledger>, T) {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            producers.map(|p| scope.spawn(move || produce(settings, topic, p, source, watch))).collect();
        let result = meanwhile();
        let ledgers =
            threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (ledgers.collect(), result)
    })
}

/// Waits until `acked` records are acknowledged or time is up; true if they are.
pub fn wait_for_acks(watch: &Watch, acked: u64, patience: Duration) -> bool {
    let deadline = std::time::Instant::now() + patience;
    while watch.acked.load(Ordering::Relaxed) < acked {
        if std::time::Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
