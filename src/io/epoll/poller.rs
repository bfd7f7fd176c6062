//! The epoll instance, and the eventfd that wakes it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::base::limits::COMPLETIONS_PER_TURN_MAX;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Wake,
    Conn(u32),
    Listener(u32),
}

impl Source {
    fn data(self) -> u64 {
        match self {
            Source::Wake => 0,
            Source::Conn(index) => 1 << 32 | u64::from(index),
            Source::Listener(index) => 2 << 32 | u64::from(index),
        }
    }

    fn of(data: u64) -> Source {
        match data >> 32 {
            1 => Source::Conn(data as u32),
            2 => Source::Listener(data as u32),
            _ => Source::Wake,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub source: Source,
    pub readable: bool,
    pub writable: bool,
    /// The peer has ended its direction, or there is an error to collect: read until the socket says so.
    pub hung_up: bool,
}

pub struct Poller {
    epoll: OwnedFd,
    waker: Waker,
    events: Vec<libc::epoll_event>,
}

/// Ends the sleep of a [`Poller`], from any thread.
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub fn wake(&self) {
        let one = 1_u64;
        // SAFETY: the call reads the 8 bytes of `one`, and the descriptor is open for as long as `self` lives.
        let written = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        // The counter would have to be written 2^64 times to be full.
        debug_assert_eq!(written, 8);
    }
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        // SAFETY: the call takes no memory, and a descriptor that it returns is ours alone.
        let epoll = own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: as above.
        let event = own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let none = libc::epoll_event { events: 0, u64: 0 };
        let waker = Waker(Arc::new(event));
        let poller = Poller { epoll, waker, events: vec![none; COMPLETIONS_PER_TURN_MAX] };
        // Edge-triggered: each write is an event, and the counter need not be read back to zero.
        poller.add(poller.waker.0.as_raw_fd(), libc::EPOLLIN, Source::Wake)?;
        Ok(poller)
    }

    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Events of both directions of a connection, until it is closed. What is ready already is an event, too.
    pub fn add_conn(&self, socket: RawFd, index: u32) -> io::Result<()> {
        self.add(socket, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP, Source::Conn(index))
    }

    pub fn add_listener(&self, socket: RawFd, index: u32) -> io::Result<()> {
        self.add(socket, libc::EPOLLIN, Source::Listener(index))
    }

    fn add(&self, fd: RawFd, events: i32, source: Source) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (events | libc::EPOLLET) as u32, u64: source.data() };
        // SAFETY: `event` is a live structure of the type that the call reads.
        let rc = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for events, at most `timeout_ns` (rounded up to milliseconds), or without end. Returns how many there are; a signal
    /// ends it with none.
    pub fn wait(&mut self, timeout_ns: Option<u64>) -> usize {
        let timeout_ms =
            timeout_ns.map_or(-1, |ns| i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX));
        let (start, room) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: the call fills at most `room` events behind `start`.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), start, room, timeout_ms) };
        if count < 0 {
            let error = io::Error::last_os_error();
            assert!(error.kind() == io::ErrorKind::Interrupted, "epoll_wait: {error}");
        }
        count.max(0) as usize
    }

    /// One of the events of the last `wait`.
    pub fn event(&self, at: usize) -> Event {
        let libc::epoll_event { events, u64: data } = self.events[at];
        let has = |flags: i32| events & flags as u32 != 0;
        let hung_up = has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR);
        Event {
            source: Source::of(data),
            readable: hung_up || has(libc::EPOLLIN),
            writable: hung_up || has(libc::EPOLLOUT),
            hung_up,
        }
    }
}

fn own(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the callers pass a descriptor that was just made for them.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
