//! The epoll instance.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::bell::Bell;
use crate::base::limits::COMPLETIONS_PER_TURN_MAX;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Bell,
    Conn(u32),
    Listener(u32),
}

impl Source {
    fn data(self) -> u64 {
        match self {
            Source::Bell => 0,
            Source::Conn(index) => 1 << 32 | u64::from(index),
            Source::Listener(index) => 2 << 32 | u64::from(index),
        }
    }

    fn of(data: u64) -> Source {
        match data >> 32 {
            1 => Source::Conn(data as u32),
            2 => Source::Listener(data as u32),
            _ => Source::Bell,
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
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// An instance that `bell` wakes.
    pub fn new(bell: &Bell) -> io::Result<Poller> {
        // SAFETY: takes integers only.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call gave this descriptor to us alone.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let none = libc::epoll_event { events: 0, u64: 0 };
        let poller = Poller { epoll, events: vec![none; COMPLETIONS_PER_TURN_MAX] };
        // Edge-triggered: each write is an event, and the counter need not be read back to zero.
        poller.add(bell.descriptor(), libc::EPOLLIN, Source::Bell)?;
        Ok(poller)
    }

    /// Events of both directions of a connection, until it is closed. What is ready already is an event, too.
    pub fn add_conn(&self, socket: RawFd, index: u32) -> io::Result<()> {
        self.add(socket, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP, Source::Conn(index))
    }

    /// Events of a listener that other threads may wait for as well: a connection wakes one of them.
    pub fn add_listener(&self, socket: RawFd, index: u32) -> io::Result<()> {
        self.add(socket, libc::EPOLLIN | libc::EPOLLEXCLUSIVE, Source::Listener(index))
    }

    /// Ends the events of a descriptor that stays open.
    pub fn remove(&self, fd: RawFd) {
        // SAFETY: the call takes no memory.
        let rc =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
        debug_assert_eq!(rc, 0, "{}", io::Error::last_os_error());
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
