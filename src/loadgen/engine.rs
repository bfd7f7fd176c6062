//! A worker: one thread, one ring, some connections, each with a fixed number of requests in flight.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use hdrhistogram::Histogram;

use super::ledger::histogram;
use super::talk::Talk;
use crate::io::uring::Uring;
use crate::io::{ConnId, Done, Errno, Mono, Op, Payload, SendChain, Token, Wait};

/// What a worker saw in its window.
pub struct Seen {
    /// From handing a request to the kernel to its whole answer, in nanoseconds.
    pub service: Histogram<u64>,
    pub records: u64,
    pub bytes: u64,
    pub errors: u64,
    /// The first error number.
    pub first_error: i16,
}

impl Seen {
    pub fn new() -> Seen {
        Seen { service: histogram(), records: 0, bytes: 0, errors: 0, first_error: 0 }
    }

    pub fn add(&mut self, other: &Seen) {
        self.service.add(&other.service).expect("the same bounds");
        self.records += other.records;
        self.bytes += other.bytes;
        self.errors += other.errors;
        if self.first_error == 0 {
            self.first_error = other.first_error;
        }
    }
}

impl Default for Seen {
    fn default() -> Seen {
        Seen::new()
    }
}

struct Conn {
    id: ConnId,
    talk: Talk,
    /// When each unanswered request was sent, oldest first.
    sent: VecDeque<Mono>,
    /// Requests that may be sent.
    owed: usize,
    sending: bool,
    /// Bytes of an answer that is not whole.
    input: Vec<u8>,
}

pub struct Worker {
    uring: Uring,
    conns: Vec<Conn>,
    seen: Seen,
    done: Vec<Done>,
}

const RECV: u64 = 1 << 32;
const SEND: u64 = 2 << 32;

impl Worker {
    pub fn new(uring: Uring) -> Worker {
        Worker { uring, conns: Vec::new(), seen: Seen::new(), done: Vec::new() }
    }

    /// Connects, and will keep `in_flight` requests of `talk` unanswered.
    pub fn connect(&mut self, to: SocketAddr, talk: Talk, in_flight: usize) -> Result<(), Errno> {
        let id = self.uring.connect(to)?;
        self.uring.push(Op::Recv { conn: id }, Token(RECV | self.conns.len() as u64));
        self.conns.push(Conn {
            id,
            talk,
            sent: VecDeque::new(),
            owed: in_flight,
            sending: false,
            input: Vec::new(),
        });
        Ok(())
    }

    /// Runs until `begin`, forgets what it saw, and runs until `end`.
    pub fn run(mut self, begin: Instant, end: Instant) -> Result<Seen, String> {
        (0..self.conns.len()).for_each(|i| self.send(i));
        self.drive(begin)?;
        self.seen = Seen::new();
        self.drive(end)?;
        Ok(self.seen)
    }

    fn drive(&mut self, until: Instant) -> Result<(), String> {
        let left = until.saturating_duration_since(Instant::now());
        let until = Mono(self.uring.now().0 + left.as_nanos() as u64);
        loop {
            let mut done = std::mem::take(&mut self.done);
            self.uring.turn(Wait::Until(until), &mut done);
            let now = self.uring.now();
            for completion in done.drain(..) {
                let i = (completion.token.0 & 0xffff_ffff) as usize;
                match completion.token.0 - i as u64 {
                    RECV => self.received(i, completion, now)?,
                    _ => self.sent(i, completion)?,
                }
            }
            self.done = done;
            if now >= until {
                return Ok(());
            }
        }
    }

    fn received(&mut self, i: usize, done: Done, now: Mono) -> Result<(), String> {
        let conn = &mut self.conns[i];
        match (done.result, done.payload) {
            (_, Payload::Received(piece)) => {
                if conn.input.is_empty() {
                    let used = take_answers(conn, &piece, now, &mut self.seen)?;
                    conn.input.extend_from_slice(&piece[used..]);
                } else {
                    conn.input.extend_from_slice(&piece);
                    let input = std::mem::take(&mut conn.input);
                    let used = take_answers(conn, &input, now, &mut self.seen)?;
                    conn.input = input;
                    conn.input.drain(..used);
                }
            }
            (Err(Errno::NOBUFS), _) => {}
            (Err(error), _) => return Err(format!("receiving: {error}")),
            (Ok(_), _) => return Err("the server closed a connection".to_string()),
        }
        if !done.more {
            self.uring.push(Op::Recv { conn: conn.id }, Token(RECV | i as u64));
        }
        self.send(i);
        Ok(())
    }

    fn sent(&mut self, i: usize, done: Done) -> Result<(), String> {
        let conn = &mut self.conns[i];
        let Payload::Sent(mut chain) = done.payload else { unreachable!("a send hands its chain back") };
        chain.advance(done.result.map_err(|e| format!("sending: {e}"))? as usize);
        conn.sending = false;
        if !chain.is_done() {
            conn.sending = true;
            self.uring.push(Op::Send { conn: conn.id, chain }, Token(SEND | i as u64));
        }
        self.send(i);
        Ok(())
    }

    /// Sends what the connection may have in flight.
    fn send(&mut self, i: usize) {
        let conn = &mut self.conns[i];
        if conn.sending || conn.owed == 0 {
            return;
        }
        let now = self.uring.now();
        let mut parts = Vec::new();
        for _ in 0..std::mem::take(&mut conn.owed) {
            conn.talk.request(&mut parts);
            conn.sent.push_back(now);
        }
        let mut chain = SendChain::default();
        parts.into_iter().for_each(|part| chain.push(part));
        conn.sending = true;
        self.uring.push(Op::Send { conn: conn.id, chain }, Token(SEND | i as u64));
    }
}

/// Takes the whole answers off the front of `input`; returns the bytes used.
fn take_answers(conn: &mut Conn, input: &[u8], now: Mono, seen: &mut Seen) -> Result<usize, String> {
    let mut used = 0;
    while let Some(len) = conn.talk.answer_len(&input[used..])?
        && input.len() - used >= len
    {
        let sent = conn.sent.pop_front().ok_or("an answer that nobody waits for")?;
        let answer = conn.talk.answer(&input[used..used + len])?;
        used += len;
        conn.owed += 1;
        seen.service.saturating_record(now.0 - sent.0);
        seen.records += answer.records;
        seen.bytes += answer.bytes;
        if answer.error != 0 {
            seen.errors += 1;
            seen.first_error = if seen.first_error == 0 { answer.error } else { seen.first_error };
        }
    }
    Ok(used)
}
