//! Sockets as the ring drives them.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

pub struct Listener {
    pub socket: Arc<TcpListener>,
    /// Name of the `Accept` in flight.
    pub accept: Option<u64>,
}

pub struct Conn {
    pub socket: TcpStream,
    /// Names of the `Recv`, `Send` and `CloseConn` in flight.
    pub recv: Option<u64>,
    pub send: Option<u64>,
    pub closing: Option<u64>,
    is_shut: bool,
}

impl Conn {
    pub fn new(socket: TcpStream) -> Conn {
        Conn { socket, recv: None, send: None, closing: None, is_shut: false }
    }

    /// Ends both directions, which completes what is in flight on the socket.
    pub fn shut(&mut self) {
        // A connection that the peer has reset is shut already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.is_shut = true;
    }

    /// Shut down, with nothing in flight.
    pub fn is_quiet(&self) -> bool {
        self.is_shut && self.recv.is_none() && self.send.is_none()
    }
}
