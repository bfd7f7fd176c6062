//! The network: listeners and connections between a driver and a client outside. Each direction is a pipe with a bounded buffer,
//! a delay, and a fate that the faults decide piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::core::{Core, Event, IoId};
use super::driver::{Closes, Ready};
use crate::base::limits::{RECV_BUF_BYTES, SEND_PARTS_MAX};
use crate::io::{ConnId, Done, Errno, ListenerId, Op, Payload, SendChain, Token};

const CONNREFUSED: Errno = Errno(111);

#[derive(Default)]
pub struct Net {
    listeners: BTreeMap<u32, Listener>,
    pub conns: BTreeMap<u32, Conn>,
    next: u32,
}

struct Listener {
    addr: SocketAddr,
    io: IoId,
    accept: Option<Token>,
    backlog: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

pub enum Packet {
    Bytes(Vec<u8>),
    /// End of stream.
    End,
    Reset,
}

/// One connection, as the network knows it.
pub struct Conn {
    listener: u32,
    peer: SocketAddr,
    /// The driver that accepted it, until it closes it.
    io: Option<IoId>,
    recv: Option<Token>,
    send: Option<Sending>,
    /// A `Send` was pushed and its `Done` not returned.
    send_unreturned: bool,
    pub to_server: Pipe,
    pub to_client: Pipe,
    /// The client closed its end: what still comes is answered with a reset.
    pub client_gone: bool,
    /// Completions of this connection are posted at growing times.
    posted_until: u64,
}

/// A `Send` in flight, and how much of it has left.
struct Sending {
    token: Token,
    chain: SendChain,
    sent: usize,
}

/// One direction.
pub struct Pipe {
    capacity: usize,
    in_transit: usize,
    pub arrived: VecDeque<u8>,
    /// The sender will send no more; its end of stream is on its way or here.
    pub closed: bool,
    pub ended: bool,
    pub reset: bool,
    last_at: u64,
    /// Partitioned: what arrives waits here.
    held: Option<Vec<Packet>>,
}

impl Pipe {
    fn new(capacity: usize) -> Pipe {
        Pipe {
            capacity,
            in_transit: 0,
            arrived: VecDeque::new(),
            closed: false,
            ended: false,
            reset: false,
            last_at: 0,
            held: None,
        }
    }

    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.in_transit + self.arrived.len())
    }
}

impl Conn {
    fn pipe(&mut self, at: Side) -> &mut Pipe {
        match at {
            Side::Server => &mut self.to_server,
            Side::Client => &mut self.to_client,
        }
    }
}

impl Core {
    pub fn listen(&mut self, io: IoId, addr: SocketAddr) -> Result<(ListenerId, SocketAddr), Errno> {
        self.net.next += 1;
        let id = self.net.next;
        let port = if addr.port() == 0 { 20_000 + id as u16 } else { addr.port() };
        let addr = SocketAddr::new(addr.ip(), port);
        if self.net.listeners.values().any(|l| l.addr == addr) {
            return Err(Errno::ADDRINUSE);
        }
        self.net.listeners.insert(id, Listener { addr, io, accept: None, backlog: VecDeque::new() });
        Ok((ListenerId(id), addr))
    }

    /// A client calls. Its first bytes may be sent at once.
    pub fn connect(&mut self, addr: SocketAddr) -> Result<u32, Errno> {
        let fits =
            |l: &Listener| l.addr == addr || (l.addr.ip().is_unspecified() && l.addr.port() == addr.port());
        let found = self.net.listeners.iter().find(|(_, l)| fits(l)).map(|(id, _)| *id);
        let listener = found.ok_or(CONNREFUSED)?;
        self.net.next += 1;
        let id = self.net.next;
        let capacities = [0, 1].map(|_| 1usize << self.rng.between(12, 18));
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, (id >> 8) as u8, id as u8)), 1024);
        let conn = Conn {
            listener,
            peer,
            io: None,
            recv: None,
            send: None,
            send_unreturned: false,
            to_server: Pipe::new(capacities[0]),
            to_client: Pipe::new(capacities[1]),
            client_gone: false,
            posted_until: 0,
        };
        self.net.conns.insert(id, conn);
        let at = self.now + self.net_delay();
        self.schedule(at, Event::Connect { conn: id });
        Ok(id)
    }

    pub fn connect_arrives(&mut self, conn: u32) {
        let Some(listener) = self.net.conns.get(&conn).map(|c| c.listener) else { return };
        match self.net.listeners.get_mut(&listener) {
            Some(found) => {
                found.backlog.push_back(conn);
                self.serve_accept(listener);
            }
            None => self.send_packet(conn, Side::Client, Packet::Reset),
        }
    }

    /// Checks a network operation and queues it. It leaves at the next turn.
    pub fn push_net_op(&mut self, io: IoId, op: Op, token: Token) {
        match &op {
            Op::Accept { listener } => match self.net.listeners.get(&listener.0) {
                Some(l) if l.io == io && l.accept.is_none() => {}
                _ => self.fail(format_args!("Accept on {listener:?}, which is not ours or accepts already")),
            },
            Op::Recv { conn } | Op::CancelRecv { conn } | Op::CloseConn { conn } => {
                self.own_conn(io, *conn);
            }
            Op::Send { conn, .. } => {
                if std::mem::replace(&mut self.own_conn(io, *conn).send_unreturned, true) {
                    self.fail(format_args!("two Sends in flight on {conn:?}"));
                }
            }
            _ => unreachable!("file operations go elsewhere"),
        }
        self.ios.get_mut(&io).expect("alive").queued_net.push((op, token));
    }

    fn own_conn(&mut self, io: IoId, conn: ConnId) -> &mut Conn {
        if self.net.conns.get(&conn.0).is_none_or(|c| c.io != Some(io)) {
            self.fail(format_args!("operation on {conn:?}, which is closed or not ours"));
        }
        self.net.conns.get_mut(&conn.0).expect("checked")
    }

    /// The queued network operations enter the kernel.
    pub fn submit_net(&mut self, io: IoId) {
        let queued = std::mem::take(&mut self.ios.get_mut(&io).expect("alive").queued_net);
        for (op, token) in queued {
            match op {
                Op::Accept { listener } => {
                    self.net.listeners.get_mut(&listener.0).expect("checked").accept = Some(token);
                    self.serve_accept(listener.0);
                }
                Op::Recv { conn } => {
                    if self.own_conn(io, conn).recv.replace(token).is_some() {
                        self.fail(format_args!("two Recvs in flight on {conn:?}"));
                    }
                    self.serve_recv(conn.0);
                }
                Op::CancelRecv { conn } => {
                    if let Some(recv) = self.own_conn(io, conn).recv.take() {
                        self.post_conn(conn.0, recv, Err(Errno::CANCELED), Payload::None);
                    }
                    self.post_conn(conn.0, token, Ok(0), Payload::None);
                }
                Op::Send { conn, chain } => {
                    self.own_conn(io, conn).send = Some(Sending { token, chain, sent: 0 });
                    self.serve_send(conn.0);
                }
                Op::CloseConn { conn } => self.close_conn(conn.0, token),
                _ => unreachable!("file operations go elsewhere"),
            }
        }
    }

    fn close_conn(&mut self, conn: u32, token: Token) {
        let state = self.net.conns.get_mut(&conn).expect("checked at push");
        let (recv, send) = (state.recv.take(), state.send.take());
        let unread = !state.to_server.arrived.is_empty();
        if let Some(recv) = recv {
            self.post_conn(conn, recv, Err(Errno::CANCELED), Payload::None);
        }
        if let Some(sending) = send {
            self.end_send(conn, sending, Errno::CANCELED);
        }
        self.post_conn(conn, token, Ok(0), Payload::None);
        self.net.conns.get_mut(&conn).expect("checked at push").io = None;
        // As TCP does: unread bytes turn the end of stream into a reset.
        self.send_packet(conn, Side::Client, if unread { Packet::Reset } else { Packet::End });
    }

    fn serve_accept(&mut self, listener: u32) {
        let ends = self.faults.accept_end;
        let state = self.net.listeners.get_mut(&listener).expect("caller has it");
        let Some(token) = state.accept else { return };
        let Some(conn) = state.backlog.pop_front() else { return };
        let io = state.io;
        let more = !self.rng.chance(ends);
        if !more {
            self.mark("accept_ended");
            self.net.listeners.get_mut(&listener).expect("caller has it").accept = None;
        }
        if let Some(state) = self.net.conns.get_mut(&conn) {
            state.io = Some(io);
            let payload = Payload::Accepted { conn: ConnId(conn), peer: state.peer };
            let done = Done { token, result: Ok(0), more, payload };
            // Its own lane, so that nothing of the accept overtakes: the last one tells that no more will come.
            let ready = Ready { done, lane: Some(listener), closes: Closes::Nothing };
            self.post(io, ready);
        }
        if more {
            self.serve_accept(listener);
        }
    }

    /// Hands arrived bytes to an armed `Recv`, in pieces.
    fn serve_recv(&mut self, conn: u32) {
        while let Some(state) = self.net.conns.get_mut(&conn)
            && let Some(token) = state.recv
        {
            let (reset, ended, arrived) =
                (state.to_server.reset, state.to_server.ended, state.to_server.arrived.len());
            let (nobufs, split) = (self.faults.recv_nobufs, self.faults.split);
            let (nobufs, split) = (self.rng.chance(nobufs), self.rng.chance(split));
            let ending = match (reset, arrived) {
                (true, _) => Some(Err(Errno::CONNRESET)),
                (false, 0) if ended => Some(Ok(0)),
                (false, 0) => return,
                (false, _) => nobufs.then_some(Err(Errno::NOBUFS)),
            };
            let most = arrived.min(RECV_BUF_BYTES);
            let len =
                if split && most > 0 { self.rng.between(1, most.min(16) as u64) as usize } else { most };
            let state = self.net.conns.get_mut(&conn).expect("just there");
            let io = self.ios.get_mut(&state.io.expect("accepted")).expect("alive");
            let piece = &state.to_server.arrived.make_contiguous()[..len];
            let piece = if ending.is_some() { None } else { io.recv_pool.copy_of(piece) };
            let Some(piece) = piece else {
                state.recv = None;
                self.post_conn(conn, token, ending.unwrap_or(Err(Errno::NOBUFS)), Payload::None);
                return;
            };
            state.to_server.arrived.drain(..len);
            self.post_conn_more(conn, token, Ok(len as u32), Payload::Received(piece), true);
            self.attention = true;
        }
    }

    /// Moves bytes of a `Send` into the network, as many as there is room for. It stays in flight until all it may take has
    /// left, unless it is cut short.
    pub fn serve_send(&mut self, conn: u32) {
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        let Some(mut sending) = state.send.take() else { return };
        if state.to_client.reset {
            return self.end_send(conn, sending, Errno::PIPE);
        }
        let room = state.to_client.room();
        let total: usize = sending.chain.slices(SEND_PARTS_MAX).map(<[u8]>::len).sum();
        let mut most = room.min(total - sending.sent);
        let cut = self.faults.send_short;
        let cut = self.rng.chance(cut) && most > 0;
        if cut {
            most = self.rng.between(1, most as u64) as usize;
            self.mark("send_short");
        }
        let bytes: Vec<u8> =
            sending.chain.slices(SEND_PARTS_MAX).flatten().copied().skip(sending.sent).take(most).collect();
        self.transmit(conn, Side::Client, &bytes);
        sending.sent += bytes.len();
        if sending.sent == total || cut {
            self.post_conn(conn, sending.token, Ok(sending.sent as u32), Payload::Sent(sending.chain));
            return;
        }
        self.mark("send_blocked");
        self.net.conns.get_mut(&conn).expect("just there").send = Some(sending);
    }

    /// Ends a `Send` early: with what has left, or with the error if nothing has.
    fn end_send(&mut self, conn: u32, sending: Sending, errno: Errno) {
        let result = if sending.sent > 0 { Ok(sending.sent as u32) } else { Err(errno) };
        self.post_conn(conn, sending.token, result, Payload::Sent(sending.chain));
    }

    pub fn send_returned(&mut self, conn: u32) {
        if let Some(state) = self.net.conns.get_mut(&conn) {
            state.send_unreturned = false;
        }
    }

    fn post_conn(&mut self, conn: u32, token: Token, result: Result<u32, Errno>, payload: Payload) {
        self.post_conn_more(conn, token, result, payload, false);
    }

    fn post_conn_more(
        &mut self,
        conn: u32,
        token: Token,
        result: Result<u32, Errno>,
        payload: Payload,
        more: bool,
    ) {
        let delay = self.rng.below(5_000);
        let state = self.net.conns.get_mut(&conn).expect("caller has it");
        state.posted_until = (self.now + delay).max(state.posted_until + 1);
        let (at, io) = (state.posted_until, state.io.expect("accepted"));
        let closes =
            if matches!(payload, Payload::Sent(_)) { Closes::Send { conn } } else { Closes::Nothing };
        self.note("conn", token.0, result.map_or_else(|e| 1 << 32 | e.0 as u64, u64::from));
        let ready = Box::new(Ready { done: Done { token, result, more, payload }, lane: Some(conn), closes });
        self.schedule(at, Event::Post { io, ready });
    }

    /// Sends bytes in packets of random size.
    pub fn transmit(&mut self, conn: u32, to: Side, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let most = bytes.len() as u64;
            let len = if self.faults.split > 0 && self.rng.below(4) == 0 {
                self.rng.between(1, most)
            } else {
                most
            } as usize;
            self.send_packet(conn, to, Packet::Bytes(bytes[..len].to_vec()));
            bytes = &bytes[len..];
        }
    }

    /// Sends one packet: it arrives after those before it, unless the connection breaks.
    pub fn send_packet(&mut self, conn: u32, to: Side, packet: Packet) {
        let mut delay = self.net_delay();
        let (hold, reset) = (self.faults.hold, self.faults.reset);
        if self.rng.chance(hold) {
            delay = self.rng.between(*self.faults.hold_ns.start(), *self.faults.hold_ns.end());
            self.mark("net_held_up");
        }
        let breaks = matches!(packet, Packet::Bytes(_)) && self.rng.chance(reset);
        let now = self.now;
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        let pipe = state.pipe(to);
        pipe.closed |= !matches!(packet, Packet::Bytes(_));
        pipe.last_at = (now + delay).max(pipe.last_at + 1);
        let at = pipe.last_at;
        if let Packet::Bytes(bytes) = &packet {
            pipe.in_transit += bytes.len();
        }
        if breaks {
            self.mark("net_reset");
            for side in [Side::Server, Side::Client] {
                self.schedule(at, Event::Arrive { conn, at: side, packet: Packet::Reset });
            }
            return;
        }
        self.schedule(at, Event::Arrive { conn, at: to, packet });
    }

    pub fn packet_arrives(&mut self, conn: u32, at: Side, packet: Packet) {
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        let unwanted = at == Side::Client && state.client_gone && matches!(packet, Packet::Bytes(_));
        let orphan =
            at == Side::Server && state.io.is_none() && !self.net.listeners.contains_key(&state.listener);
        let pipe = state.pipe(at);
        if let Some(held) = &mut pipe.held {
            held.push(packet);
            return;
        }
        match packet {
            Packet::Bytes(bytes) => {
                pipe.in_transit -= bytes.len();
                if !pipe.reset {
                    pipe.arrived.extend(bytes);
                }
            }
            Packet::End => pipe.ended = true,
            Packet::Reset => {
                // What the reader has not taken yet is gone as well.
                state.to_server.arrived.clear();
                state.to_server.reset = true;
                state.to_client.reset |= at == Side::Client;
                state.to_client.closed = true;
                if at == Side::Client {
                    state.to_client.arrived.clear();
                } else {
                    self.break_send(conn);
                }
            }
        }
        match at {
            Side::Client if unwanted => self.send_packet(conn, Side::Server, Packet::Reset),
            Side::Server if orphan => self.send_packet(conn, Side::Client, Packet::Reset),
            Side::Server => self.serve_recv(conn),
            Side::Client => {
                self.attention = true;
                self.serve_recv(conn);
                self.serve_send(conn);
            }
        }
    }

    /// The peer is gone: a `Send` that waits for room ends.
    fn break_send(&mut self, conn: u32) {
        let state = self.net.conns.get_mut(&conn).expect("caller has it");
        state.to_client.reset = true;
        self.serve_send(conn);
    }

    /// Starts or ends a one-way partition of one connection.
    pub fn partition(&mut self, conn: u32, at: Side, on: bool) {
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        let pipe = state.pipe(at);
        if on {
            pipe.held.get_or_insert_default();
            self.mark("net_partition");
        } else if pipe.held.is_some() {
            let now = self.now;
            self.schedule(now, Event::Release { conn, at });
        }
    }

    pub fn release(&mut self, conn: u32, at: Side) {
        let held = self.net.conns.get_mut(&conn).and_then(|state| state.pipe(at).held.take());
        held.into_iter().flatten().for_each(|packet| self.packet_arrives(conn, at, packet));
    }

    /// A driver ends in good order: its listeners close, its connections are shut down.
    pub fn close_net(&mut self, io: IoId) {
        self.end_conns(io, || Packet::End);
    }

    /// A driver dies: its peers see resets.
    pub fn reset_net(&mut self, io: IoId) {
        self.end_conns(io, || Packet::Reset);
    }

    fn end_conns(&mut self, io: IoId, packet: fn() -> Packet) {
        let waiting: Vec<u32> =
            self.net.listeners.values().filter(|l| l.io == io).flat_map(|l| l.backlog.clone()).collect();
        self.net.listeners.retain(|_, l| l.io != io);
        let conns = self.net.conns.iter_mut().filter(|(id, c)| c.io == Some(io) || waiting.contains(id));
        let ended: Vec<u32> = conns
            .map(|(id, conn)| {
                (conn.io, conn.recv, conn.send) = (None, None, None);
                *id
            })
            .collect();
        ended.into_iter().for_each(|conn| self.send_packet(conn, Side::Client, packet()));
    }

    fn net_delay(&mut self) -> u64 {
        let us = self.rng.between(*self.faults.net_us.start(), *self.faults.net_us.end());
        us * 1000 + self.rng.below(1000)
    }
}
