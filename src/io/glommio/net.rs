//! Sockets: our own, non-blocking, with glommio's ring telling when they are ready.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use ::glommio::io::{PollState, PollableFd};

use super::files::code;
use super::outbox::{Event, Kit, What};
use crate::io::linux::message::SEND_FLAGS;
use crate::io::linux::storage::errno;
use crate::io::linux::{sockets, table::Owner};
use crate::io::recv::RecvBuf;
use crate::io::{ConnId, Errno, ListenerId, Payload, SendChain};

/// Connections taken in a row before the ring is asked again.
const ACCEPTS_MAX: usize = 64;

pub struct Listener {
    pub socket: Arc<TcpListener>,
    /// Ends the `Accept` in flight.
    pub accept: Option<Rc<Stop>>,
}

pub struct Conn {
    pub socket: Rc<TcpStream>,
    /// Ends the `Recv` in flight.
    pub recv: Option<Rc<Stop>>,
    pub sending: bool,
    /// Who waits for the close.
    pub closing: Option<Owner>,
}

impl Conn {
    pub fn new(socket: TcpStream) -> Conn {
        Conn { socket: Rc::new(socket), recv: None, sending: false, closing: None }
    }

    /// Ends both directions, which ends what is in flight on the socket.
    pub fn shut(&self) {
        // A connection that the peer has reset is shut already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Nothing of it is in flight.
    pub fn is_quiet(&self) -> bool {
        self.recv.is_none() && !self.sending
    }
}

/// Calls a task off that waits for a descriptor.
#[derive(Default)]
pub struct Stop {
    asked: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Stop {
    /// Only inside of the executor's run.
    pub fn ask(&self) {
        self.asked.set(true);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Waits until `fd` is readable; CANCELED when called off.
    pub async fn or_readable<T: AsRawFd>(&self, fd: &PollableFd<T>) -> Result<(), Errno> {
        let mut state = PollState::new();
        poll_fn(|cx| {
            if self.asked.get() {
                return Poll::Ready(Err(Errno::CANCELED));
            }
            self.waiting.set(Some(cx.waker().clone()));
            let ready = fd.poll_readable(cx, &mut state);
            ready.map(|result| result.map_err(code))
        })
        .await
    }
}

/// Takes connections until it is called off or accept(2) fails.
pub async fn accept(id: ListenerId, socket: Arc<TcpListener>, stop: Rc<Stop>, kit: Rc<Kit>, owner: Owner) {
    let errno = accept_until(&socket, &stop, &kit, owner).await;
    let what = What::AcceptEnded(id);
    kit.outbox.post(Event { owner, what, result: Err(errno), payload: Payload::None });
}

async fn accept_until(socket: &Arc<TcpListener>, stop: &Stop, kit: &Kit, owner: Owner) -> Errno {
    let Ok(fd) = PollableFd::new(socket.clone()) else { return Errno::IO };
    loop {
        if let Err(errno) = stop.or_readable(&fd).await {
            return errno;
        }
        for _ in 0..ACCEPTS_MAX {
            match accept_one(socket) {
                Ok((stream, peer)) => {
                    let what = What::Accepted(stream, peer);
                    kit.outbox.post(Event { owner, what, result: Ok(0), payload: Payload::None });
                }
                Err(Errno::AGAIN) => break,
                Err(Errno(libc::EINTR | libc::ECONNABORTED | libc::EPROTO)) => {}
                Err(errno) => return errno,
            }
        }
    }
}

fn accept_one(socket: &TcpListener) -> Result<(TcpStream, SocketAddr), Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the socket is open for as long as it is borrowed, and no address is asked for.
    let fd = unsafe { libc::accept4(socket.as_raw_fd(), address, len, flags) };
    if fd < 0 {
        return Err(errno(std::io::Error::last_os_error()));
    }
    // A peer that left before it was accepted: the next one may stay.
    sockets::accepted(fd).map_err(|_| Errno(libc::ECONNABORTED))
}

/// Hands out what arrives until the end of the stream, an error, or the lack of a buffer; or one piece, of at most `once` bytes.
pub async fn receive(
    id: ConnId,
    socket: Rc<TcpStream>,
    once: Option<u32>,
    stop: Rc<Stop>,
    kit: Rc<Kit>,
    owner: Owner,
) {
    let ended = receive_until(&socket, once, &stop, &kit, owner).await;
    let (result, payload) = match ended {
        Ended::Stream => (Ok(0), Payload::None),
        Ended::Piece(piece) => (Ok(piece.len() as u32), Payload::Received(piece)),
        Ended::Failed(errno) => (Err(errno), Payload::None),
    };
    kit.outbox.post(Event { owner, what: What::RecvEnded(id), result, payload });
}

enum Ended {
    Stream,
    Piece(RecvBuf),
    Failed(Errno),
}

async fn receive_until(
    socket: &Rc<TcpStream>,
    once: Option<u32>,
    stop: &Stop,
    kit: &Kit,
    owner: Owner,
) -> Ended {
    let Ok(fd) = PollableFd::new(socket.clone()) else { return Ended::Failed(Errno::IO) };
    loop {
        if let Err(errno) = stop.or_readable(&fd).await {
            return Ended::Failed(errno);
        }
        let buffer = kit.recv.borrow_mut().take();
        let received = match buffer {
            Some(mut buffer) => {
                let most = once.map_or(buffer.len(), |most| (most.max(1) as usize).min(buffer.len()));
                (&**socket).read(&mut buffer[..most]).map(|len| (len, Some(buffer)))
            }
            // Without a buffer only bytes are a reason to give up; an end or an error needs none.
            None => socket.peek(&mut [0]).map(|len| (len, None)),
        };
        match received {
            Ok((0, _)) => return Ended::Stream,
            Ok((_, None)) => return Ended::Failed(Errno::NOBUFS),
            Ok((len, Some(mut piece))) => {
                piece.truncate(len);
                if once.is_some() {
                    return Ended::Piece(piece);
                }
                let payload = Payload::Received(piece);
                kit.outbox.post(Event { owner, what: What::Received, result: Ok(len as u32), payload });
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Ended::Failed(errno(error)),
        }
    }
}

/// Sends the whole chain, waiting for room as often as it must.
pub async fn send(id: ConnId, socket: Rc<TcpStream>, chain: SendChain, kit: Rc<Kit>, owner: Owner) {
    let mut sent = 0;
    let failed = loop {
        match kit.send_from(&socket, &chain, &mut sent) {
            Ok(()) => break None,
            Err(Errno::AGAIN) => {
                if let Err(errno) = writable(&socket).await {
                    break Some(errno);
                }
            }
            Err(errno) => break Some(errno),
        }
    };
    // What left before a failure is told; the next send meets the failure.
    let result = failed.filter(|_| sent == 0).map_or(Ok(sent as u32), Err);
    kit.outbox.post(Event { owner, what: What::Sent(id), result, payload: Payload::Sent(chain) });
}

async fn writable(socket: &Rc<TcpStream>) -> Result<(), Errno> {
    let fd = PollableFd::new(socket.clone()).map_err(code)?;
    fd.writable().await.map_err(code)
}

impl Kit {
    /// Sends what follows the first `sent` bytes of the chain until that is all, or the socket takes no more.
    fn send_from(&self, socket: &TcpStream, chain: &SendChain, sent: &mut usize) -> Result<(), Errno> {
        let mut message = self.message.borrow_mut();
        loop {
            let (header, offered) = message.point_at(chain, *sent);
            if offered == 0 {
                return Ok(());
            }
            // SAFETY: the header points at parts of `message`, and these at parts of the chain; neither changes across the call.
            let moved = unsafe { libc::sendmsg(socket.as_raw_fd(), header, SEND_FLAGS) };
            if moved >= 0 {
                *sent += moved as usize;
                continue;
            }
            match errno(std::io::Error::last_os_error()) {
                Errno::INTR => {}
                failed => return Err(failed),
            }
        }
    }
}
