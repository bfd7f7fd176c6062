//! The network: listeners and connections between a driver and a client outside. Each direction is a pipe with a bounded buffer,
//! a delay, and a fate that the faults decide piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::accept::{ListenSocket, Listener};
use super::core::{Core, Event, IoId, ProcessId};
use super::driver::{Closes, Ready};
use super::sharing::{Detached, SharedSocket};
use crate::base::limits::{RECV_BUF_BYTES, SEND_PARTS_MAX};
use crate::io::share::SocketOf;
use crate::io::{ConnId, Done, Errno, ListenMode, ListenerId, Op, Payload, SendChain, Socket, Token};

const CONNREFUSED: Errno = Errno(111);

#[derive(Default)]
pub struct Net {
    pub listeners: BTreeMap<u32, Listener>,
    pub sockets: BTreeMap<u32, ListenSocket>,
    /// Connections on their way between two drivers.
    detached: BTreeMap<u32, Detach>,
    pub conns: BTreeMap<u32, Conn>,
    next: u32,
}

struct Detach {
    process: ProcessId,
    dropped: Arc<AtomicBool>,
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

/// A `Recv` in flight, and the most bytes of the one piece that it takes, if it takes one.
#[derive(Clone, Copy)]
struct Receiving {
    token: Token,
    once: Option<u32>,
}

/// One connection, as the network knows it.
pub struct Conn {
    /// The listening socket that it came through.
    socket: u32,
    pub peer: SocketAddr,
    /// The driver that accepted it, until it closes it.
    pub io: Option<IoId>,
    recv: Option<Receiving>,
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

/// A `Send` that waits for room.
struct Sending {
    token: Token,
    chain: SendChain,
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
    pub fn listen(
        &mut self,
        io: IoId,
        addr: SocketAddr,
        mode: ListenMode,
    ) -> Result<(ListenerId, SocketAddr), Errno> {
        self.close_dropped();
        self.net.next += 1;
        let id = self.net.next;
        let port = if addr.port() == 0 { 20_000 + id as u16 } else { addr.port() };
        let addr = SocketAddr::new(addr.ip(), port);
        let together = |s: &ListenSocket| s.mode != ListenMode::Exclusive && mode == ListenMode::ReusePort;
        if self.net.sockets.values().any(|s| s.addr == addr && !together(s)) {
            return Err(Errno::ADDRINUSE);
        }
        let (process, backlog) = (self.ios[&io].process, VecDeque::new());
        self.net.sockets.insert(id, ListenSocket { addr, mode, process, backlog, held: Arc::new(()) });
        Ok((self.add_listener(io, id), addr))
    }

    pub fn share_listener(&self, io: IoId, listener: ListenerId) -> SharedSocket {
        let found = self.own_listener(io, listener);
        SharedSocket { socket: found.socket, _held: self.net.sockets[&found.socket].held.clone() }
    }

    pub fn add_listener(&mut self, io: IoId, socket: u32) -> ListenerId {
        if self.net.sockets.get(&socket).is_none_or(|s| s.process != self.ios[&io].process) {
            self.fail("a listener is added that is not this process's");
        }
        self.net.next += 1;
        let id = self.net.next;
        self.net.listeners.insert(id, Listener { socket, io, accept: None, told: false });
        ListenerId(id)
    }

    /// A client calls. Its first bytes may be sent at once. With several sockets at the address, chance decides.
    pub fn connect(&mut self, addr: SocketAddr) -> Result<u32, Errno> {
        self.close_dropped();
        let fits = |s: &ListenSocket| {
            s.addr == addr || (s.addr.ip().is_unspecified() && s.addr.port() == addr.port())
        };
        let found: Vec<u32> = self.net.sockets.iter().filter(|(_, s)| fits(s)).map(|(id, _)| *id).collect();
        let socket = match found[..] {
            [] => return Err(CONNREFUSED),
            [one] => one,
            _ => found[self.rng.below(found.len() as u64) as usize],
        };
        self.net.next += 1;
        let id = self.net.next;
        let capacities = [0, 1].map(|_| 1usize << self.rng.between(12, 18));
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, (id >> 8) as u8, id as u8)), 1024);
        let conn = Conn {
            socket,
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
        let Some(socket) = self.net.conns.get(&conn).map(|c| c.socket) else { return };
        match self.net.sockets.get_mut(&socket) {
            Some(found) => {
                found.backlog.push_back(conn);
                self.tell_of_connection(socket);
            }
            None => self.send_packet(conn, Side::Client, Packet::Reset),
        }
    }

    /// Checks a network operation and queues it. It leaves at the next turn.
    pub fn push_net_op(&mut self, io: IoId, op: Op, token: Token) {
        match &op {
            Op::Accept { listener } => {
                if self.own_listener(io, *listener).accept.is_some() {
                    self.fail(format_args!("two Accepts in flight on {listener:?}"));
                }
            }
            Op::CancelAccept { listener } => drop(self.own_listener(io, *listener)),
            Op::Recv { conn }
            | Op::RecvOnce { conn, .. }
            | Op::CancelRecv { conn }
            | Op::CloseConn { conn } => {
                self.own_conn(io, *conn);
            }
            Op::DetachConn { conn } => {
                let of_conn = |op: &Op| matches!(op, Op::Recv { conn: c } | Op::RecvOnce { conn: c, .. } | Op::Send { conn: c, .. } | Op::CloseConn { conn: c } if c == conn);
                let queued = self.ios[&io].queued_net.iter().any(|(op, _)| of_conn(op));
                let state = self.own_conn(io, *conn);
                if queued || state.recv.is_some() || state.send_unreturned {
                    self.fail(format_args!("{conn:?} is detached with operations in flight"));
                }
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
                    self.accept_waiting(listener.0);
                }
                Op::CancelAccept { listener } => self.cancel_accept(io, listener.0, token),
                Op::Recv { conn } => self.begin_recv(io, conn, Receiving { token, once: None }),
                Op::RecvOnce { conn, bytes_max } => {
                    self.begin_recv(io, conn, Receiving { token, once: Some(bytes_max) });
                }
                Op::CancelRecv { conn } => {
                    if let Some(recv) = self.own_conn(io, conn).recv.take() {
                        self.post_conn(conn.0, recv.token, Err(Errno::CANCELED), Payload::None);
                    }
                    self.post_conn(conn.0, token, Ok(0), Payload::None);
                }
                Op::Send { conn, chain } => {
                    self.own_conn(io, conn).send = Some(Sending { token, chain });
                    self.serve_send(conn.0);
                }
                Op::CloseConn { conn } => self.close_conn(conn.0, token),
                Op::DetachConn { conn } => self.detach(io, conn.0, token),
                _ => unreachable!("file operations go elsewhere"),
            }
        }
    }

    fn close_conn(&mut self, conn: u32, token: Token) {
        let state = self.net.conns.get_mut(&conn).expect("checked at push");
        let (recv, send) = (state.recv.take(), state.send.take());
        if let Some(recv) = recv {
            self.post_conn(conn, recv.token, Err(Errno::CANCELED), Payload::None);
        }
        if let Some(sending) = send {
            self.end_send(conn, sending, Errno::CANCELED);
        }
        self.post_conn(conn, token, Ok(0), Payload::None);
        self.hang_up(conn);
    }

    /// Nobody has the connection any more. As TCP does: unread bytes turn the end of stream into a reset.
    fn hang_up(&mut self, conn: u32) {
        let state = self.net.conns.get_mut(&conn).expect("caller has it");
        state.io = None;
        let unread = !state.to_server.arrived.is_empty();
        self.send_packet(conn, Side::Client, if unread { Packet::Reset } else { Packet::End });
    }

    /// Takes a connection from its driver. What arrives meanwhile waits in it.
    fn detach(&mut self, io: IoId, conn: u32, token: Token) {
        let dropped = Arc::new(AtomicBool::new(false));
        let socket = Socket(SocketOf::Sim(Detached { conn, dropped: dropped.clone() }));
        self.post_conn(conn, token, Ok(0), Payload::Detached(socket));
        self.net.conns.get_mut(&conn).expect("checked at push").io = None;
        self.net.detached.insert(conn, Detach { process: self.ios[&io].process, dropped });
        self.mark("conn_detached");
    }

    pub fn adopt(&mut self, io: IoId, conn: u32) -> ConnId {
        let ours = self.net.detached.remove(&conn).is_some_and(|d| d.process == self.ios[&io].process);
        if !ours {
            self.fail(format_args!(
                "connection {conn} is adopted, which no driver of this process has detached"
            ));
        }
        self.net.conns.get_mut(&conn).expect("connections are kept").io = Some(io);
        self.note("adopt", u64::from(io.0), u64::from(conn));
        ConnId(conn)
    }

    /// Closes what nobody holds any more: detached connections that were dropped, listening sockets without a listener.
    pub fn close_dropped(&mut self) {
        let dropped = |d: &Detach| d.dropped.load(Ordering::Relaxed);
        let conns: Vec<u32> =
            self.net.detached.iter().filter(|(_, d)| dropped(d)).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.net.detached.remove(&conn);
            self.hang_up(conn);
        }
        let listeners = &self.net.listeners;
        let unused = |id: u32, s: &ListenSocket| {
            Arc::strong_count(&s.held) == 1 && listeners.values().all(|l| l.socket != id)
        };
        let sockets: Vec<u32> =
            self.net.sockets.iter().filter(|(id, s)| unused(**id, s)).map(|(id, _)| *id).collect();
        sockets.into_iter().for_each(|socket| self.close_socket(socket, || Packet::End));
    }

    fn close_socket(&mut self, socket: u32, packet: fn() -> Packet) {
        let backlog = self.net.sockets.remove(&socket).map(|s| s.backlog).unwrap_or_default();
        backlog.into_iter().for_each(|conn| self.send_packet(conn, Side::Client, packet()));
    }

    /// A process has died with what its drivers shared.
    pub fn reset_shared(&mut self, process: ProcessId) {
        let ours = self.net.sockets.iter().filter(|(_, s)| s.process == process);
        let sockets: Vec<u32> = ours.map(|(id, _)| *id).collect();
        sockets.into_iter().for_each(|socket| self.close_socket(socket, || Packet::Reset));
        let ours = self.net.detached.iter().filter(|(_, d)| d.process == process);
        let conns: Vec<u32> = ours.map(|(id, _)| *id).collect();
        for conn in conns {
            self.net.detached.remove(&conn);
            self.send_packet(conn, Side::Client, Packet::Reset);
        }
    }

    fn begin_recv(&mut self, io: IoId, conn: ConnId, recv: Receiving) {
        if self.own_conn(io, conn).recv.replace(recv).is_some() {
            self.fail(format_args!("two Recvs in flight on {conn:?}"));
        }
        self.serve_recv(conn.0);
    }

    /// Hands arrived bytes to an armed `Recv`, in pieces.
    fn serve_recv(&mut self, conn: u32) {
        while let Some(state) = self.net.conns.get_mut(&conn)
            && let Some(Receiving { token, once }) = state.recv
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
            let most =
                arrived.min(once.map_or(RECV_BUF_BYTES, |most| (most.max(1) as usize).min(RECV_BUF_BYTES)));
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
            if once.is_some() {
                state.recv = None;
                self.mark("received_once");
            }
            self.post_conn_more(conn, token, Ok(len as u32), Payload::Received(piece), once.is_none());
            self.attention = true;
        }
    }

    /// Moves bytes of a `Send` into the network, as many as there is room for, which ends it. It stays in flight while there is none.
    pub fn serve_send(&mut self, conn: u32) {
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        let Some(sending) = state.send.take() else { return };
        if state.to_client.reset {
            return self.end_send(conn, sending, Errno::PIPE);
        }
        let room = state.to_client.room();
        let total: usize = sending.chain.slices(SEND_PARTS_MAX).map(<[u8]>::len).sum();
        let mut most = room.min(total);
        let cut = self.faults.send_short;
        let cut = self.rng.chance(cut) && most > 0;
        if most == 0 && total > 0 {
            self.mark("send_blocked");
            self.net.conns.get_mut(&conn).expect("just there").send = Some(sending);
            return;
        }
        if cut {
            most = self.rng.between(1, most as u64) as usize;
            self.mark("send_short");
        }
        let bytes: Vec<u8> = sending.chain.slices(SEND_PARTS_MAX).flatten().copied().take(most).collect();
        self.transmit(conn, Side::Client, &bytes);
        self.post_conn(conn, sending.token, Ok(most as u32), Payload::Sent(sending.chain));
    }

    /// Ends a `Send` of which nothing has left.
    fn end_send(&mut self, conn: u32, sending: Sending, errno: Errno) {
        self.post_conn(conn, sending.token, Err(errno), Payload::Sent(sending.chain));
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
        let orphan = at == Side::Server
            && state.io.is_none()
            && !self.net.sockets.contains_key(&state.socket)
            && !self.net.detached.contains_key(&conn);
        let pipe = state.pipe(at);
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

    /// A driver ends in good order: its listeners close, its connections are shut down.
    pub fn close_net(&mut self, io: IoId) {
        self.end_conns(io, || Packet::End);
    }

    /// A driver dies: its peers see resets.
    pub fn reset_net(&mut self, io: IoId) {
        self.end_conns(io, || Packet::Reset);
    }

    fn end_conns(&mut self, io: IoId, packet: fn() -> Packet) {
        self.net.listeners.retain(|_, l| l.io != io);
        self.close_dropped();
        let conns = self.net.conns.iter_mut().filter(|(_, c)| c.io == Some(io));
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
