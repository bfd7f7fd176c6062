//! One shard's log store in one process of the world, with the loop around it that a broker has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corelog::base::error::Fatal;
use corelog::base::ids::{PartitionKey, Uuid};
use corelog::base::limits::BLOCK_BYTES;
use corelog::io::buffer::Block;
use corelog::io::sim::{ProcessId, World};
use corelog::io::{DirEntry, Done, Errno, FileId, Io, Mono, Op, OpenMode, Payload, Token, Wait};
use corelog::log::store::{
    Bounds, ColdRead, Event, LogConfig, LogSlot, ReadPlan, ReadRequest, Source, Store, StoreConfig, Tag,
};

pub const DATA_DIR: &str = "/disk/data";

const POOL_BLOCKS: usize = 24;
const KIND_STORE: u8 = 1;
const KIND_READ: u8 = 2;

/// Longest sleep of a turn, as in the broker.
const SLEEP_MS_MAX: u64 = 100;

pub struct Node {
    pub process: ProcessId,
    pub io: Io,
    pub store: Store,
    pub slots: BTreeMap<PartitionKey, LogSlot>,
    reads: BTreeMap<u32, Read>,
    next_read: u32,
    /// Reads that ended: by their number.
    pub finished: Vec<(u32, Outcome)>,
    pub events: Vec<Event>,
    next_disk_check: Mono,
}

struct Read {
    slot: LogSlot,
    request: ReadRequest,
    state: ReadState,
}

enum ReadState {
    /// To be planned (again), at the next turn.
    Plan,
    Cold {
        read: ColdRead,
        blocks: Vec<Option<Result<Block, Errno>>>,
    },
}

/// How a fetch ended.
pub enum Outcome {
    Records(Vec<u8>),
    Refused(corelog::base::error::Refused),
}

impl Node {
    /// Starts a process: locks the directory, recovers every log, serves.
    pub fn start(
        world: &World,
        config: impl Fn(corelog::io::StorageCaps) -> StoreConfig,
        logs: &BTreeMap<PartitionKey, LogConfig>,
    ) -> Result<Node, Fatal> {
        let process = world.start_process();
        let mut io = Io::Sim(Box::new(world.io(process, POOL_BLOCKS * BLOCK_BYTES)));
        while !io.grow_pool() {}
        prepare_dir(&mut io);
        io.lock_dir(Path::new(DATA_DIR)).unwrap_or_else(|e| world.fail(format_args!("no lock: {e:?}")));
        let caps = io.storage_caps(Path::new(DATA_DIR)).expect("the data directory is there");
        let mut store = Store::new(config(caps));
        let mut slots = BTreeMap::new();
        for (key, log) in logs {
            let slot = store.open(&mut Blocking { io: &mut io }, *key, log.clone())?;
            slots.insert(*key, slot);
        }
        let now = io.now();
        let (reads, finished, events) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut node =
            Node { process, io, store, slots, reads, next_read: 0, finished, events, next_disk_check: now };
        node.tend();
        Ok(node)
    }

    /// Begins a fetch. It ends in `finished` under the returned number.
    pub fn read(&mut self, slot: LogSlot, request: ReadRequest) -> u32 {
        self.next_read += 1;
        self.reads.insert(self.next_read, Read { slot, request, state: ReadState::Plan });
        self.next_read
    }

    pub fn bounds(&self, key: PartitionKey) -> Bounds {
        self.store.bounds(self.slots[&key])
    }

    pub fn reads_in_flight(&self) -> usize {
        self.reads.len()
    }

    /// One turn of the shard. Sleeps until the store's next deadline, the end of `patience_ms`, or a completion.
    pub fn turn(&mut self, patience_ms: u64) {
        let mut dones = Vec::new();
        let latest = self.io.now().plus_ms(patience_ms.min(SLEEP_MS_MAX));
        let until = self.store.next_deadline().map_or(latest, |at| at.min(latest));
        self.io.turn(Wait::Until(until), &mut dones);
        let now = self.io.now();
        let mut ops = Vec::new();
        for done in dones {
            match done.token.kind() {
                KIND_STORE => self.store.done(Tag(done.token.slot()), done, now, &mut ops),
                _ => self.read_done(done),
            }
        }
        self.plan_reads();
        let wall_ms = self.io.wall_ms();
        self.store.turn(now, wall_ms, self.io.pool(), &mut ops);
        for (op, tag) in ops {
            self.io.push(op, Token::new(KIND_STORE, 0, tag.0));
        }
        self.store.events(&mut self.events);
        self.tend();
    }

    fn tend(&mut self) {
        let wanted = self.store.uuids_wanted();
        let uuids: Vec<Uuid> = (0..wanted).map(|_| random_uuid(&mut self.io)).collect();
        self.store.add_uuids(uuids.into_iter());
        if self.io.pool().available() == 0 {
            self.io.grow_pool();
        }
        if self.io.now() >= self.next_disk_check {
            let free = self.io.disk_space(Path::new(DATA_DIR)).map_or(0, |space| space.free);
            self.store.set_disk_free(free);
            self.next_disk_check = self.io.now().plus_ms(200);
        }
    }

    fn plan_reads(&mut self) {
        let waiting = self.reads.iter().filter(|(_, read)| matches!(read.state, ReadState::Plan));
        let waiting: Vec<u32> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            let read = &self.reads[&id];
            let plan = self.store.plan_read(read.slot, read.request);
            self.follow(id, plan);
        }
    }

    fn follow(&mut self, id: u32, plan: ReadPlan) {
        let outcome = match plan {
            ReadPlan::Opening => return,
            ReadPlan::Cold(read) => return self.start_cold(id, read),
            ReadPlan::Ready(records) => {
                let bytes: Vec<u8> = records.parts.iter().flat_map(|part| part.to_vec()).collect();
                Outcome::Records(bytes)
            }
            ReadPlan::Empty => Outcome::Records(Vec::new()),
            ReadPlan::Refused(refused) => Outcome::Refused(refused),
        };
        self.reads.remove(&id);
        self.finished.push((id, outcome));
    }

    fn start_cold(&mut self, id: u32, mut read: ColdRead) {
        let mut offset = read.position;
        let mut pushed = 0;
        for (i, len) in read.lens.iter().enumerate() {
            let Some(into) = self.store.take_block(self.io.pool()) else { break };
            let token = Token::new(KIND_READ, i as u32, id);
            self.io.push(Op::Read { file: read.file, offset, into, at: 0, len: *len }, token);
            offset += u64::from(*len);
            pushed += 1;
        }
        read.lens.truncate(pushed);
        let state = self.reads.get_mut(&id).expect("planned");
        if pushed == 0 {
            // The plan holds its file open: it is given up, and made again when there is memory.
            self.store.drop_read(read);
            state.state = ReadState::Plan;
            return;
        }
        state.state = ReadState::Cold { blocks: (0..pushed).map(|_| None).collect(), read };
    }

    fn read_done(&mut self, done: Done) {
        let id = done.token.slot();
        let Some(read) = self.reads.get_mut(&id) else { return };
        let ReadState::Cold { blocks, .. } = &mut read.state else { unreachable!("a read of a cold plan") };
        let Payload::Read(mut block) = done.payload else { unreachable!("a read hands its block back") };
        block.set_filled(done.result.unwrap_or(0) as usize);
        blocks[done.token.generation() as usize] = Some(done.result.map(|_| block));
        if blocks.iter().any(Option::is_none) {
            return;
        }
        let ReadState::Cold { read, blocks } = std::mem::replace(&mut read.state, ReadState::Plan) else {
            return;
        };
        let plan = self.store.finish_read(read, blocks.into_iter().flatten().collect());
        self.follow(id, plan);
    }
}

/// The data directory is made once, by the controller, and durable before anything else is.
fn prepare_dir(io: &mut Io) {
    if io.list_dir(Path::new(DATA_DIR)).is_ok() {
        return;
    }
    for op in [Op::MakeDir { path: PathBuf::from(DATA_DIR) }, Op::SyncDir { path: PathBuf::from("/disk") }] {
        io.wait(op).result.expect("an empty disk takes a directory");
    }
}

fn random_uuid(io: &mut Io) -> Uuid {
    let mut bytes = [0; 16];
    io.random(&mut bytes);
    Uuid::from_random(bytes)
}

/// Recovery's view of the seam.
pub struct Blocking<'a> {
    pub io: &'a mut Io,
}

impl Source for Blocking<'_> {
    fn list(&mut self, dir: &Path) -> Result<Vec<DirEntry>, Errno> {
        self.io.list_dir(dir)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> Result<FileId, Errno> {
        let done = self.io.wait(Op::OpenFile { path: path.to_path_buf(), mode });
        match (done.result, done.payload) {
            (Ok(_), Payload::Opened(file, _)) => Ok(file),
            (Err(errno), _) => Err(errno),
            other => unreachable!("an open ended as {other:?}"),
        }
    }

    fn close(&mut self, file: FileId) {
        self.io.wait(Op::CloseFile { file });
    }

    fn read(&mut self, file: FileId, position: u64, len: usize) -> Result<Block, Errno> {
        let into = loop {
            match self.io.pool().take() {
                Some(block) => break block,
                None if self.io.grow_pool() => {}
                None => return Err(Errno::NOMEM),
            }
        };
        let done = self.io.wait(Op::Read { file, offset: position, into, at: 0, len: len as u32 });
        let read = done.result?;
        let Payload::Read(mut block) = done.payload else { unreachable!("a read hands its block back") };
        block.set_filled(read as usize);
        Ok(block)
    }

    fn run(&mut self, op: Op) -> Result<(), Errno> {
        let mut op = op;
        // A short write is not yet a write: it is done again from its start.
        loop {
            let again = match &op {
                Op::Write { file, offset, data, sync } => Some((*file, *offset, data.clone(), *sync)),
                _ => None,
            };
            let written = self.io.wait(op).result?;
            match again {
                Some((file, offset, data, sync)) if (written as usize) < data.len() => {
                    op = Op::Write { file, offset, data, sync };
                }
                _ => return Ok(()),
            }
        }
    }

    fn uuid(&mut self) -> Uuid {
        random_uuid(self.io)
    }

    fn wall_ms(&self) -> i64 {
        self.io.wall_ms()
    }
}
