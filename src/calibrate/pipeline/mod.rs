//! The bare pipeline: receive, CRC-32C, append, durable, small reply, with the broker's io, placement and group commit, and nothing
//! of Kafka. Its rate is the ceiling that includes CPU: what the broker reaches of it is what Kafka's protocol costs.
//!
//! [`run`] serves until the process ends; [`measure`] runs a server and a driver for a while in this process and reports.
//!
//! # Non-obvious
//! - A connection writes to one file, so its replies keep the order of its requests.
//! - Receive buffers of unfinished large requests stay pinned, which saves a copy, until they run out; then they are copied.
//! - The numbers of a connection are used again: replies that are owed to a closed one are recognised by their epoch.

mod commit;
mod drive;
mod frames;
mod log;

pub use drive::{Load, Measured, measure};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::commit::Rounds;
use self::frames::{HEADER_BYTES, REPLY_BYTES, Stream};
use self::log::{Owed, RingLog};
use crate::base::error::Fatal;
use crate::base::limits::BLOCK_BYTES;
use crate::config::runtime::Runtime;
use crate::io::open::{self, DriverConfig, SPIN_MAX};
use crate::io::{
    ConnId, Done, Errno, FileId, Io, ListenerId, Op, OpenMode, Payload, SendChain, SendPart, Token, Wait,
    WriteSync,
};

/// Largest payload: four blocks, so that a request never needs more than a small part of the pool.
const PAYLOAD_BYTES_MAX: u32 = 4 * BLOCK_BYTES as u32;

/// Name of a file in the data directory, before its number.
const FILE_NAME: &str = "pipeline-";

#[derive(Clone, Debug)]
pub struct Args {
    pub runtime: Runtime,
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub files: usize,
    /// Bytes of all files together, zeroed at the start and then written around and around: 512 MiB is plenty.
    pub bytes_total: u64,
    /// CPU of the server.
    pub cpu: Option<usize>,
    pub spin: bool,
}

/// Serves until the process ends.
pub fn run(args: &Args) -> Result<(), Fatal> {
    let mut pipeline = open(args)?;
    tracing::info!(addr = %pipeline.addr, files = args.files, "bare pipeline");
    loop {
        pipeline.turn(Wait::Forever)?;
    }
}

/// A pipeline on a driver of this thread.
fn open(args: &Args) -> Result<Pipeline, Fatal> {
    let spin = if args.spin { SPIN_MAX } else { Duration::ZERO };
    let config = DriverConfig { cpu: args.cpu, spin, ..DriverConfig::default() };
    Pipeline::new(open::open(args.runtime, config)?, args)
}

struct Conn {
    id: ConnId,
    epoch: u32,
    stream: Stream,
    replies: Vec<u8>,
    sending: bool,
    receiving: bool,
}

pub struct Pipeline {
    io: Io,
    addr: SocketAddr,
    listener: ListenerId,
    logs: Vec<RingLog>,
    rounds: Rounds,
    /// By number.
    conns: Vec<Option<Conn>>,
    next_epoch: u32,
    /// Connections with replies to send.
    dirty: Vec<ConnId>,
    /// Connections whose requests wait for pool blocks.
    stalled: Vec<ConnId>,
    done: Vec<Done>,
    requests_total: u64,
}

/// What a token stands for: kind in the upper byte, then the round (32 bits) or nothing, then the file or the connection (24 bits).
#[derive(Clone, Copy)]
enum Kind {
    Accept = 1,
    Recv,
    Send,
    Close,
    Write,
    Flush,
}

fn token(kind: Kind, round: u32, index: usize) -> Token {
    debug_assert!(index < 1 << 24);
    Token((kind as u64) << 56 | u64::from(round) << 24 | index as u64)
}

impl Pipeline {
    pub fn new(mut io: Io, args: &Args) -> Result<Pipeline, Fatal> {
        while io.grow_pool() {}
        let (dir, files) = (args.data_dir.as_path(), args.files.max(1));
        let caps = io.storage_caps(dir).map_err(|e| failed("the data directory", e))?;
        let block = BLOCK_BYTES as u64;
        let bytes = (args.bytes_total / files as u64).max(8 * block) / block * block;
        let logs = (0..files).map(|i| {
            let file = zeroed_file(&mut io, dir.join(format!("{FILE_NAME}{i}")), bytes)?;
            Ok(RingLog::new(file, bytes))
        });
        let logs = logs.collect::<Result<Vec<_>, Fatal>>()?;
        io.wait(Op::SyncDir { path: dir.to_path_buf() })
            .result
            .map_err(|e| failed("sync of the directory", e))?;
        let (listener, addr) = io.listen(args.listen).map_err(|e| failed("listen", e))?;
        io.push(Op::Accept { listener }, token(Kind::Accept, 0, 0));
        Ok(Pipeline {
            io,
            addr,
            listener,
            logs,
            rounds: Rounds::new(&caps),
            conns: Vec::new(),
            next_epoch: 0,
            dirty: Vec::new(),
            stalled: Vec::new(),
            done: Vec::new(),
            requests_total: 0,
        })
    }

    /// The address in effect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// One turn: completions, commit, replies.
    pub fn turn(&mut self, wait: Wait) -> Result<(), Fatal> {
        let mut done = std::mem::take(&mut self.done);
        self.io.turn(wait, &mut done);
        for completion in done.drain(..) {
            self.complete(completion)?;
        }
        self.done = done;
        for conn in std::mem::take(&mut self.stalled) {
            self.consume(conn);
        }
        self.rounds.plan(&mut self.logs, &mut self.io, |round, file| token(Kind::Write, round, file));
        while let Some(owed) = self.rounds.acknowledged() {
            owed.into_iter().for_each(|owed| self.reply(owed));
        }
        while let Some(conn) = self.dirty.pop() {
            self.send(conn);
        }
        Ok(())
    }

    fn complete(&mut self, done: Done) -> Result<(), Fatal> {
        let round = (done.token.0 >> 24) as u32;
        let index = (done.token.0 & 0xff_ffff) as usize;
        match done.token.0 >> 56 {
            k if k == Kind::Accept as u64 => self.accepted(done),
            k if k == Kind::Recv as u64 => self.received(ConnId(index as u32), done),
            k if k == Kind::Send as u64 => self.sent(ConnId(index as u32), done),
            k if k == Kind::Close as u64 => {}
            k if k == Kind::Write as u64 => {
                let Payload::Written(data) = done.payload else {
                    unreachable!("a write hands its bytes back")
                };
                if done.result != Ok(data.len() as u32) {
                    return Err(failed("a write", done.result.err().unwrap_or(Errno::IO)));
                }
                drop(data);
                self.logs[index].writes_in_flight -= 1;
                self.rounds.written(round, &self.logs, &mut self.io, |round| token(Kind::Flush, round, 0));
            }
            _ => {
                done.result.map_err(|e| failed("a flush", e))?;
                self.rounds.flushed(round);
            }
        }
        Ok(())
    }

    fn accepted(&mut self, done: Done) {
        if let Payload::Accepted { conn, .. } = done.payload {
            let at = conn.0 as usize;
            if self.conns.len() <= at {
                self.conns.resize_with(at + 1, || None);
            }
            let (stream, replies) = (Stream::default(), Vec::new());
            let epoch = self.next_epoch;
            self.next_epoch = epoch.wrapping_add(1);
            self.conns[at] = Some(Conn { id: conn, epoch, stream, replies, sending: false, receiving: true });
            self.io.push(Op::Recv { conn }, token(Kind::Recv, 0, at));
        }
        if !done.more {
            self.io.push(Op::Accept { listener: self.listener }, token(Kind::Accept, 0, 0));
        }
    }

    fn received(&mut self, id: ConnId, done: Done) {
        let Some(conn) = &mut self.conns[id.0 as usize] else {
            return;
        };
        match (done.result, done.payload) {
            (_, Payload::Received(piece)) => {
                conn.stream.push(piece);
                conn.receiving = done.more;
                self.consume(id);
            }
            (Err(Errno::NOBUFS), _) => {
                conn.receiving = false;
                self.conns.iter_mut().flatten().for_each(|conn| conn.stream.unpin(true));
            }
            _ => return self.close(id),
        }
        if let Some(conn) = &mut self.conns[id.0 as usize]
            && !conn.receiving
        {
            conn.receiving = true;
            self.io.push(Op::Recv { conn: id }, token(Kind::Recv, 0, id.0 as usize));
        }
    }

    /// Checks and appends the requests that are whole.
    fn consume(&mut self, id: ConnId) {
        let Some(conn) = &mut self.conns[id.0 as usize] else {
            return;
        };
        let files = self.logs.len();
        let log = &mut self.logs[id.0 as usize % files];
        while let Some(header) = conn.stream.whole() {
            let pool = self.io.pool();
            let len = header.payload_bytes as usize;
            let blocks = log.blocks_needed(HEADER_BYTES + len);
            if blocks > 0 && pool.available() < blocks {
                self.stalled.push(id);
                return;
            }
            conn.stream.consume(HEADER_BYTES);
            if conn.stream.slices(len).fold(0, crc32c::crc32c_append) != header.crc {
                return self.close(id);
            }
            log.append(&header.bytes(), pool);
            conn.stream.slices(len).for_each(|slice| log.append(slice, pool));
            conn.stream.consume(len);
            log.owed.push(Owed { conn: id, epoch: conn.epoch, seq: header.seq });
            self.requests_total += 1;
        }
        if conn.stream.header().is_some_and(|header| header.payload_bytes > PAYLOAD_BYTES_MAX) {
            return self.close(id);
        }
        conn.stream.unpin(false);
    }

    fn reply(&mut self, owed: Owed) {
        let Some(conn) = &mut self.conns[owed.conn.0 as usize] else {
            return;
        };
        if conn.epoch == owed.epoch {
            if conn.replies.is_empty() {
                self.dirty.push(owed.conn);
            }
            conn.replies.extend_from_slice(&owed.seq.to_le_bytes());
            conn.replies.resize(conn.replies.len() + REPLY_BYTES - 8, 0);
        }
    }

    fn send(&mut self, id: ConnId) {
        let Some(conn) = &mut self.conns[id.0 as usize] else {
            return;
        };
        if !conn.sending && !conn.replies.is_empty() {
            conn.sending = true;
            let mut chain = SendChain::default();
            chain.push(SendPart::Bytes(std::mem::take(&mut conn.replies)));
            self.io.push(Op::Send { conn: id, chain }, token(Kind::Send, 0, id.0 as usize));
        }
    }

    fn sent(&mut self, id: ConnId, done: Done) {
        let Some(conn) = &mut self.conns[id.0 as usize] else {
            return;
        };
        let Payload::Sent(mut chain) = done.payload else { unreachable!("a send hands its chain back") };
        conn.sending = false;
        match done.result {
            Ok(len) => chain.advance(len as usize),
            Err(_) => return self.close(id),
        }
        if chain.is_done() {
            self.send(id);
        } else {
            conn.sending = true;
            self.io.push(Op::Send { conn: id, chain }, token(Kind::Send, 0, id.0 as usize));
        }
    }

    fn close(&mut self, id: ConnId) {
        if let Some(conn) = self.conns[id.0 as usize].take() {
            self.io.push(Op::CloseConn { conn: conn.id }, token(Kind::Close, 0, id.0 as usize));
        }
    }
}

fn zeroed_file(io: &mut Io, path: PathBuf, bytes: u64) -> Result<FileId, Fatal> {
    let done = io.wait(Op::OpenFile { path, mode: OpenMode::Replace });
    let Payload::Opened(file, _) = done.payload else {
        return Err(failed("making a file", done.result.err().unwrap_or(Errno::IO)));
    };
    io.wait(Op::Allocate { file, offset: 0, len: bytes })
        .result
        .map_err(|e| failed("allocating a file", e))?;
    let mut block = io.pool().take().ok_or_else(|| failed("a block", Errno::NOMEM))?;
    block.pad_to(BLOCK_BYTES);
    let zeros = block.slice(0..BLOCK_BYTES);
    for offset in (0..bytes).step_by(BLOCK_BYTES) {
        let done = io.wait(Op::Write { file, offset, data: zeros.clone(), sync: WriteSync::No });
        if done.result != Ok(BLOCK_BYTES as u32) {
            return Err(failed("zeroing a file", done.result.err().unwrap_or(Errno::IO)));
        }
    }
    io.wait(Op::Flush { file }).result.map_err(|e| failed("flushing a file", e))?;
    Ok(file)
}

fn failed(what: &str, errno: Errno) -> Fatal {
    Fatal {
        code: "pipeline",
        summary: format!("the bare pipeline stopped: {what} failed"),
        found: errno.to_string(),
        means: "nothing was measured".into(),
        tries: vec!["fewer --connections, or another --data-dir".into()],
    }
}
