//! A client's end of a connection, outside of every broker. Nothing here blocks: the test asks again after the next turn.

use super::core::Core;
use super::net::{Packet, Side};
use super::world::World;

/// A connection held by the test. Dropping it closes it.
pub struct SimConn {
    world: World,
    conn: u32,
}

/// What a client finds when it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRead {
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The broker closed in good order.
    End,
    /// The connection broke: whether the last requests were carried out is unknown.
    Reset,
}

impl SimConn {
    pub(super) fn new(world: World, conn: u32) -> SimConn {
        SimConn { world, conn }
    }

    /// Sends as many bytes as the socket takes and returns how many: none when its buffer is full, or the connection is gone.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut core = self.world.core();
        let Some(state) = core.net.conns.get(&self.conn) else { return 0 };
        if state.to_server.closed || state.to_server.reset {
            return 0;
        }
        let len = state.to_server.room().min(bytes.len());
        core.transmit(self.conn, Side::Server, &bytes[..len]);
        len
    }

    /// Takes at most `max` bytes of what has arrived. Not calling this is how a client does not read.
    pub fn recv(&self, max: usize) -> ClientRead {
        let mut core = self.world.core();
        let Some(state) = core.net.conns.get_mut(&self.conn) else { return ClientRead::End };
        let pipe = &mut state.to_client;
        if pipe.arrived.is_empty() {
            return match (pipe.reset, pipe.ended) {
                (true, _) => ClientRead::Reset,
                (false, true) => ClientRead::End,
                (false, false) => ClientRead::Nothing,
            };
        }
        let len = pipe.arrived.len().min(max);
        let bytes = pipe.arrived.drain(..len).collect();
        core.serve_send(self.conn);
        ClientRead::Bytes(bytes)
    }

    /// Sends the end of the stream. What the broker still sends can be read.
    pub fn finish(&self) {
        self.world.core().finish(self.conn);
    }

    /// Breaks the connection.
    pub fn reset(&self) {
        self.world.core().send_packet(self.conn, Side::Server, Packet::Reset);
    }
}

impl Drop for SimConn {
    fn drop(&mut self) {
        if let Some(mut core) = self.world.try_core() {
            core.leave(self.conn);
        }
    }
}

impl Core {
    fn finish(&mut self, conn: u32) {
        if self.net.conns.get(&conn).is_some_and(|c| !c.to_server.closed) {
            self.send_packet(conn, Side::Server, Packet::End);
        }
    }

    /// The client closes its end. As TCP does: unread bytes turn the end of stream into a reset.
    fn leave(&mut self, conn: u32) {
        let Some(state) = self.net.conns.get_mut(&conn) else { return };
        state.client_gone = true;
        if state.to_client.arrived.is_empty() {
            self.finish(conn);
        } else {
            self.send_packet(conn, Side::Server, Packet::Reset);
        }
    }
}
