//! What the tasks of one executor tell their driver: an operation made a step or ended.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use ::glommio::timer::Timer;

use super::files::OpenFile;
use crate::io::linux::message::Message;
use crate::io::linux::{self, table::Owner};
use crate::io::recv::RecvPool;
use crate::io::{ConnId, Errno, FileId, ListenerId, Mono, Payload, Place};

/// Which table of the driver an event concerns.
pub enum What {
    /// None: the operation had no descriptor.
    Once,
    OfFile(FileId),
    Opened(OpenFile, Place),
    FileClosed(FileId),
    Accepted(TcpStream, SocketAddr),
    AcceptEnded(ListenerId),
    /// A piece; the `Recv` goes on.
    Received,
    RecvEnded(ConnId),
    Sent(ConnId),
}

pub struct Event {
    pub owner: Owner,
    pub what: What,
    pub result: Result<u32, Errno>,
    pub payload: Payload,
}

/// What the tasks of one driver share. Nothing of it is borrowed across a wait.
pub struct Kit {
    pub outbox: Outbox,
    pub recv: RefCell<RecvPool>,
    pub message: RefCell<Box<Message>>,
}

/// Events in the order in which they were posted. Bounded by what is in flight: a task posts once for each operation, and an
/// `Accept` or a `Recv` goes back to the ring after a bounded number.
#[derive(Default)]
pub struct Outbox {
    events: RefCell<Vec<Event>>,
    /// The driver's own task, while it sleeps.
    sleeper: Cell<Option<Waker>>,
}

impl Outbox {
    pub fn post(&self, event: Event) {
        self.events.borrow_mut().push(event);
        self.wake();
    }

    /// Ends the sleep of the driver's task. Only inside of the executor's run: outside of it glommio drops what is woken.
    pub fn wake(&self) {
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Moves the events to the empty `out`; the two lists trade their memory.
    pub fn take(&self, out: &mut Vec<Event>) {
        assert!(out.is_empty());
        std::mem::swap(out, &mut *self.events.borrow_mut());
    }

    /// Waits for an event, a call of `wake`, or the time. False if there was nothing to wait for.
    pub async fn wait(&self, until: Option<Mono>) -> bool {
        let left = |time: Mono| Duration::from_nanos(time.0.saturating_sub(linux::now().0));
        let mut timer = until.map(|time| Timer::new(left(time)));
        let mut slept = false;
        poll_fn(|cx| {
            let woken = slept && self.sleeper.take().is_none();
            let due = timer.as_mut().is_some_and(|timer| Pin::new(timer).poll(cx).is_ready());
            if woken || due || !self.events.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.sleeper.set(Some(cx.waker().clone()));
            slept = true;
            Poll::Pending
        })
        .await;
        self.sleeper.set(None);
        slept
    }
}
