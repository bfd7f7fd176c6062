//! Carries the controller's decisions to disk, and their consequences to the shard: the file operations of
//! `controller/metastore.rs`, in the order that it demands.
//!
//! One metadata write is in flight at a time. When it is durable the new image is published, partitions that came or went are
//! made or removed, and the answers that waited for it leave. A failed write ends the broker: there is no rollback.
//!
//! **A full disk** must not come to that: the journal's file reaches [`RESERVE`] further than what it holds. Where it cannot be extended any more
//! the controller refuses changes, the reserve is left to deletions, and the extension is tried again until it succeeds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files;
use super::source::IoSource;
use crate::base::error::Fatal;
use crate::base::ids::{PartitionIndex, PartitionKey, Uuid};
use crate::base::limits::{ALIGN, BLOCK_BYTES, WRITE_TRIES_MAX};
use crate::config::broker::BrokerConfig;
use crate::controller::Controller;
use crate::controller::image::{Broker, Image, Misfit, Topic};
use crate::controller::journal::{Point, Write, Writer};
use crate::controller::meta::{self, Meta};
use crate::controller::metastore::{self, FOLDER, Files, JOURNAL_ALLOCATE, journal_name, snapshot_name};
use crate::controller::placement::placed_anew;
use crate::io::buffer::BlockSlice;
use crate::io::{Done, Errno, FileId, Io, Mono, Op, OpenMode, Payload, Token, WriteSync};
use crate::log::store::Source;
use crate::shard::{Cx, Shard, rules};

/// Token kind of the journal's writes.
pub const TOKEN_CONTROL: u8 = 32;

/// Slot of the token by which the journal's file is extended.
const EXTENSION: u32 = u32::MAX;

/// Bytes of the journal's file beyond which it is extended: a hundred deletions fit.
const RESERVE: u64 = 512 * 1024;

/// Between two tries to extend the file, or to begin a new one, on a full disk.
const RETRY_MS: u64 = 500;

pub struct Control {
    data_dir: PathBuf,
    cluster: Uuid,
    journal: FileId,
    writer: Writer,
    /// Encoded, and not pushed for lack of memory.
    waiting: Option<(Write, u64)>,
    in_flight: Option<InFlight>,
    /// End of what the journal's file has space for.
    allocated: u64,
    extending: bool,
    /// The disk is full: not tried again before.
    retry_at: Option<Mono>,
    ops: Vec<(Op, Token)>,
    failed: Option<String>,
}

/// A transaction on its way: through which decision it reaches, and its writes.
struct InFlight {
    through: u64,
    pending: usize,
    /// Where each write goes on.
    offsets: Vec<u64>,
    /// Short and interrupted writes so far.
    tries: u32,
    /// Writes that found no space, to be made again.
    parked: Vec<(BlockSlice, Token)>,
}

/// What a start found.
pub struct Recovered {
    pub directory: Uuid,
    pub image: Image,
    pub controller: Controller,
    pub control: Control,
}

/// Reads, or formats, the metadata of a data directory and begins a new generation of it. Blocks; for start-up.
pub fn recover(
    io: &mut Io,
    dir: &Path,
    config: Arc<BrokerConfig>,
    brokers: Vec<Broker>,
) -> Result<Recovered, Fatal> {
    let failed = |errno: Errno| unusable(dir, errno);
    let folder = dir.join(FOLDER);
    files::make_dirs(io, &folder).map_err(failed)?;
    let known = match files::read(io, &dir.join(meta::FILE)).map_err(failed)? {
        Some(bytes) => Some(Meta::decode(&bytes, &dir.display().to_string(), config.node_id)?),
        None => None,
    };
    let found = read_folder(io, &folder).map_err(failed)?;
    let (next, point, remove, records) = match &known {
        Some(meta) => {
            let recovered = metastore::recover(&found, meta.cluster, &dir.display().to_string())?;
            for row in &recovered.rows {
                tracing::info!(?row, "metadata");
            }
            (recovered.next, recovered.point, recovered.remove, recovered.records)
        }
        None => {
            let next = metastore::unformatted(&found, &dir.display().to_string())?;
            refuse_topics(io, dir)?;
            (next, Point::default(), found.iter().map(|f| f.generation).collect(), Vec::new())
        }
    };
    let fresh = known.is_none();
    let meta = known.unwrap_or_else(|| Meta {
        cluster: super::source::random_uuid(io),
        node_id: config.node_id,
        directory: super::source::random_uuid(io),
    });
    let mut image = Image::new(meta.cluster_id(), config, brokers);
    let corrupt = |misfit: Misfit| Fatal {
        code: "metadata-corrupt",
        summary: format!("{} does not fit what came before it", misfit.key),
        found: misfit.what.into(),
        means: "the metadata on disk contradicts itself".into(),
        tries: vec![format!("restore {} from a backup", folder.display())],
    };
    image.load(records).map_err(corrupt)?;
    // In the snapshot that `begin` writes.
    let placed = placed_anew(&image);
    if !placed.is_empty() {
        let (topics, shards) = (placed.len(), image.config.shards);
        tracing::info!(topics, shards, "partitions are placed for this number of shards");
        image.apply(&placed).map_err(corrupt)?;
    }
    let (journal, writer) = begin(io, &folder, &image, meta.cluster, next, point).map_err(failed)?;
    if fresh {
        files::replace(io, &dir.join(meta::FILE), &meta.encode()).map_err(failed)?;
    }
    remove_old(io, &folder, &remove).map_err(failed)?;
    let control = Control {
        data_dir: dir.to_path_buf(),
        cluster: meta.cluster,
        journal,
        writer,
        waiting: None,
        in_flight: None,
        allocated: JOURNAL_ALLOCATE,
        extending: false,
        retry_at: None,
        ops: Vec::new(),
        failed: None,
    };
    Ok(Recovered { directory: meta.directory, controller: Controller::new(image.clone()), image, control })
}

/// A directory is formatted only where there is no topic's: one that the new metadata does not know would be removed.
fn refuse_topics(io: &mut Io, dir: &Path) -> Result<(), Fatal> {
    let entries = io.list_dir(dir).map_err(|errno| unusable(dir, errno))?;
    match entries.iter().find(|entry| entry.is_dir && Uuid::parse(&entry.name).is_some()) {
        Some(topic) => {
            Err(metastore::was_formatted(&dir.display().to_string(), &topic.name, "is a topic's directory"))
        }
        None => Ok(()),
    }
}

/// Reads every file of the folder; flushes the journals, so that what counts now cannot vanish later.
fn read_folder(io: &mut Io, folder: &Path) -> Result<Vec<Files>, Errno> {
    let mut found: Vec<Files> = Vec::new();
    for entry in io.list_dir(folder)? {
        let Some((generation, is_snapshot)) = metastore::parse_name(&entry.name) else { continue };
        let path = folder.join(&entry.name);
        let bytes = files::read(io, &path)?;
        if !is_snapshot {
            let mut source = IoSource::new(io);
            let file = source.open(&path, OpenMode::Write)?;
            let flushed = source.run(Op::Flush { file });
            source.close(file);
            flushed?;
        }
        let at = match found.iter().position(|files| files.generation == generation) {
            Some(at) => at,
            None => {
                found.push(Files { generation, ..Files::default() });
                found.len() - 1
            }
        };
        if is_snapshot {
            found[at].snapshot = bytes;
        } else {
            found[at].journal = bytes;
        }
    }
    Ok(found)
}

/// Steps 3 and 4 of a start: a new journal, then the snapshot that it continues.
fn begin(
    io: &mut Io,
    folder: &Path,
    image: &Image,
    cluster: Uuid,
    generation: u64,
    point: Point,
) -> Result<(FileId, Writer), Errno> {
    let files = metastore::begin(image, cluster, generation, point);
    let header = files::block_of(io, &files.journal_header)?.slice_padded(0);
    let mut source = IoSource::new(io);
    let journal = source.open(&folder.join(journal_name(generation)), OpenMode::Create)?;
    source.run(Op::Allocate { file: journal, offset: 0, len: JOURNAL_ALLOCATE })?;
    source.write(journal, 0, header, WriteSync::Dsync)?;
    source.run(Op::SyncDir { path: folder.to_path_buf() })?;
    files::replace(io, &folder.join(snapshot_name(generation)), &files.snapshot)?;
    Ok((journal, files.writer))
}

/// Removes what there is of a generation that could not be begun, durably: the journal before it goes on, which a start would take to have ended. The
/// snapshot first: one without its journal is damage.
fn take_back(io: &mut Io, folder: &Path, generation: u64) -> Result<(), Errno> {
    let snapshot = snapshot_name(generation);
    for name in [format!("{snapshot}.tmp"), snapshot, journal_name(generation)] {
        let mut source = IoSource::new(io);
        match source.run(Op::RemoveFile { path: folder.join(name) }) {
            Ok(()) | Err(Errno::NOENT) => source.run(Op::SyncDir { path: folder.to_path_buf() })?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn remove_old(io: &mut Io, folder: &Path, generations: &[u64]) -> Result<(), Errno> {
    for entry in io.list_dir(folder)? {
        let old = metastore::parse_name(&entry.name).is_some_and(|(n, _)| generations.contains(&n));
        if old || entry.name.ends_with(".tmp") {
            IoSource::new(io).run(Op::RemoveFile { path: folder.join(&entry.name) })?;
        }
    }
    IoSource::new(io).run(Op::SyncDir { path: folder.to_path_buf() })
}

impl Control {
    /// Why the broker must end, once a metadata write failed.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    pub fn take_ops(&mut self) -> std::vec::Drain<'_, (Op, Token)> {
        self.ops.drain(..)
    }

    /// True when nothing is on its way: a stop may go on, a new generation may begin.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.waiting.is_none() && !self.extending
    }

    /// Once per turn: writes what was decided since the last write.
    pub fn turn(&mut self, controller: &mut Controller, shard: &mut Shard, cx: &mut Cx<'_>) {
        if self.failed.is_some() {
            return;
        }
        self.extend(cx.now);
        controller.set_no_space(self.retry_at.is_some());
        if self.in_flight.is_some() {
            return self.push_parked(cx.now);
        }
        if self.waiting.is_none() {
            let Some(batch) = controller.take_batch() else { return };
            self.waiting = Some((self.writer.encode(&batch.records), batch.through));
        }
        self.push_waiting(shard, cx);
    }

    /// Extends the journal's file while its reserve is not complete.
    fn extend(&mut self, now: Mono) {
        let due = self.retry_at.is_none_or(|at| at <= now);
        if self.extending || !due {
            return;
        }
        if self.writer.position() + RESERVE <= self.allocated {
            // What else found no space is tried again.
            self.retry_at = None;
            return;
        }
        self.extending = true;
        let missing = (self.writer.position() + RESERVE).saturating_sub(self.allocated);
        let len = missing.next_multiple_of(JOURNAL_ALLOCATE);
        let op = Op::Allocate { file: self.journal, offset: self.allocated, len };
        self.ops.push((op, Token::new(TOKEN_CONTROL, (len / JOURNAL_ALLOCATE) as u32, EXTENSION)));
    }

    fn extended(&mut self, done: &Done, now: Mono) {
        self.extending = false;
        match done.result {
            Ok(_) => {
                self.allocated += u64::from(done.token.generation()) * JOURNAL_ALLOCATE;
                if self.retry_at.take().is_some() {
                    tracing::info!("the metadata journal has space again");
                }
            }
            Err(errno) if errno.is_passing() => {}
            Err(Errno::NOSPC) => self.lacks_space(now),
            Err(errno) => self.failed = Some(format!("extending the metadata journal: {errno}")),
        }
    }

    fn lacks_space(&mut self, now: Mono) {
        if self.retry_at.is_none() {
            tracing::warn!("no space for the metadata journal: changes of topics are refused until there is");
        }
        self.retry_at = Some(now.plus_ms(RETRY_MS));
    }

    /// Makes the writes again that found no space.
    fn push_parked(&mut self, now: Mono) {
        let Some(in_flight) = &mut self.in_flight else { return };
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        for (data, token) in std::mem::take(&mut in_flight.parked) {
            let offset = in_flight.offsets[token.slot() as usize];
            self.ops.push((Op::Write { file: self.journal, offset, data, sync: WriteSync::Dsync }, token));
        }
    }

    fn push_waiting(&mut self, shard: &mut Shard, cx: &mut Cx<'_>) {
        let Some((write, through)) = self.waiting.take() else { return };
        if write.position + write.bytes.len() as u64 > self.allocated {
            // The extension is on its way, or waits for space.
            self.waiting = Some((write, through));
            return;
        }
        let mut blocks = Vec::new();
        for chunk in write.bytes.chunks(BLOCK_BYTES) {
            let Some(mut block) = shard.take_block(cx) else {
                self.waiting = Some((write, through));
                return;
            };
            block.append(chunk);
            blocks.push(block.slice_padded(0));
        }
        let mut offset = write.position;
        let mut offsets = Vec::new();
        for (i, data) in blocks.into_iter().enumerate() {
            debug_assert!(data.len().is_multiple_of(ALIGN));
            let len = data.len() as u64;
            offsets.push(offset);
            let op = Op::Write { file: self.journal, offset, data, sync: WriteSync::Dsync };
            self.ops.push((op, Token::new(TOKEN_CONTROL, 0, i as u32)));
            offset += len;
        }
        self.in_flight =
            Some(InFlight { through, pending: offsets.len(), offsets, tries: 0, parked: Vec::new() });
    }

    /// A journal write completed. Returns the image to publish, if that made one durable.
    pub fn done(&mut self, done: Done, controller: &mut Controller, now: Mono) -> Option<Arc<Image>> {
        if done.token.slot() == EXTENSION {
            self.extended(&done, now);
            return None;
        }
        let in_flight = self.in_flight.as_mut()?;
        let Payload::Written(data) = done.payload else { return None };
        if done.result == Err(Errno::NOSPC) {
            in_flight.parked.push((data, done.token));
            self.lacks_space(now);
            return None;
        }
        let left = match done.result {
            Ok(written) if written as usize == data.len() => None,
            // The last whole block is where direct I/O can go on.
            Ok(written) => Some(written as usize / ALIGN * ALIGN),
            Err(errno) if errno.is_passing() => Some(0),
            Err(errno) => {
                self.failed = Some(format!("metadata write: {errno}"));
                None
            }
        };
        if let Some(at) = left.filter(|_| in_flight.tries < WRITE_TRIES_MAX) {
            in_flight.tries += 1;
            let offset = &mut in_flight.offsets[done.token.slot() as usize];
            *offset += at as u64;
            let data = data.sub(at..data.len());
            let op = Op::Write { file: self.journal, offset: *offset, data, sync: WriteSync::Dsync };
            self.ops.push((op, done.token));
            return None;
        }
        if left.is_some() {
            self.failed = Some("metadata write: it stays short".into());
        }
        in_flight.pending -= 1;
        if in_flight.pending > 0 || self.failed.is_some() {
            return None;
        }
        let through = in_flight.through;
        self.in_flight = None;
        controller.durable(through)
    }

    /// Begins a new generation when the journal has grown long, with the image that was published last: that of the last transaction
    /// that is durable. Blocks for a few milliseconds, once in thousands of changes.
    pub fn roll_if_full(&mut self, io: &mut Io, image: &Image) {
        if !self.writer.is_full() || !self.is_idle() || self.failed.is_some() || self.retry_at.is_some() {
            return;
        }
        let (folder, generation) = (self.data_dir.join(FOLDER), self.writer.generation());
        match begin(io, &folder, image, self.cluster, generation + 1, self.writer.point()) {
            Ok((journal, writer)) => {
                io.wait(Op::CloseFile { file: std::mem::replace(&mut self.journal, journal) });
                (self.writer, self.allocated) = (writer, JOURNAL_ALLOCATE);
                if let Err(errno) = remove_old(io, &folder, &(0..generation).collect::<Vec<_>>()) {
                    tracing::warn!(%errno, "old metadata generations stay behind");
                }
            }
            Err(Errno::NOSPC) => match take_back(io, &folder, generation + 1) {
                // The journal goes on as it is, and its extension tells when to try again.
                Ok(()) => self.lacks_space(io.now()),
                Err(errno) => self.failed = Some(format!("half a metadata generation: {errno}")),
            },
            Err(errno) => self.failed = Some(format!("new metadata generation: {errno}")),
        }
    }
}

/// Makes, changes and removes the partitions of a shard that differ between two images.
pub fn catch_up(old: &Image, new: &Image, shard: &mut Shard, cx: &mut Cx<'_>) {
    let config_changed = old.config != new.config;
    for topic in new.topics() {
        match old.topic_by_id(topic.id) {
            Some(before) if Arc::ptr_eq(before, topic) && !config_changed => {}
            before => change_topic(before.map(|t| &**t), topic, new, shard),
        }
    }
    for topic in old.topics() {
        if new.topic_by_id(topic.id).is_none() {
            // Those of other shards are not known here.
            keys(topic).for_each(|key| shard.delete(key, cx));
        }
    }
}

fn change_topic(before: Option<&Topic>, topic: &Topic, image: &Image, shard: &mut Shard) {
    let there = before.map_or(0, |t| t.partitions.len());
    for (index, key) in keys(topic).enumerate() {
        if image.owner(key) != Some(shard.id()) {
            continue;
        }
        let rules = rules::of(&topic.config, &image.config);
        if index < there {
            shard.set_rules(key, rules);
        } else {
            shard.create(key, rules);
        }
    }
}

fn keys(topic: &Topic) -> impl Iterator<Item = PartitionKey> + '_ {
    (0..topic.partitions.len())
        .map(|index| PartitionKey { topic: topic.id, partition: PartitionIndex(index as i32) })
}

fn unusable(dir: &Path, errno: Errno) -> Fatal {
    Fatal {
        code: if errno == Errno::NOSPC { "disk-full" } else { "data-dir-unusable" },
        summary: format!("the metadata in {} cannot be read or written", dir.display()),
        found: errno.to_string(),
        means: "without it the broker does not know its topics".into(),
        tries: vec!["free space (df), the disk's health (dmesg), or another --data-dir".into()],
    }
}
