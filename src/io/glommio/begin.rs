//! Operations in: from an [`Op`] to a task.

use std::rc::Rc;

use ::glommio::io::PollableFd;

use super::files::{self, OpenFile};
use super::net::{self, Stop};
use super::outbox::{Event, What};
use super::{Glommio, Task};
use crate::base::limits::ALIGN;
use crate::io::linux::fault::Fault;
use crate::io::linux::files::{assert_aligned, file_of};
use crate::io::linux::reading::Reading;
use crate::io::linux::table::Owner;
use crate::io::{ConnId, Errno, FileId, ListenerId, Op, Payload, SendChain};

impl Glommio {
    pub(super) fn begin(&mut self, op: Op, owner: Owner) {
        assert_aligned(&op);
        match self.faults.next(&op) {
            Some(Fault::Fails(errno)) => self.refuse(op, owner, errno),
            Some(Fault::Short) => self.begin_short(op, owner),
            None => self.begin_whole(op, owner),
        }
    }

    fn begin_whole(&mut self, op: Op, owner: Owner) {
        match op {
            Op::Accept { listener } => self.begin_accept(listener, owner),
            Op::CancelAccept { listener } => {
                self.begin_cancel(self.listeners.get(listener.0).accept.clone(), owner);
            }
            Op::Recv { conn } => self.begin_recv(conn, None, owner),
            Op::RecvOnce { conn, bytes_max } => self.begin_recv(conn, Some(bytes_max), owner),
            Op::CancelRecv { conn } => self.begin_cancel(self.conns.get(conn.0).recv.clone(), owner),
            Op::Send { conn, chain } => self.begin_send(conn, chain, owner),
            Op::CloseConn { conn } => self.begin_close_conn(conn, owner),
            Op::DetachConn { conn } => self.detach(conn, owner),
            Op::CloseFile { file } => self.begin_close_file(file, owner),
            Op::OpenFile { path, mode } => {
                let kit = self.kit.clone();
                self.start(async move {
                    let (what, result) = match files::open(path, mode).await {
                        Ok((file, place)) => (What::Opened(file, place), Ok(0)),
                        Err(errno) => (What::Once, Err(errno)),
                    };
                    kit.outbox.post(Event { owner, what, result, payload: Payload::None });
                });
            }
            op => match file_of(&op) {
                Some(file) => self.begin_on_file(file, op, false, owner),
                None => {
                    let kit = self.kit.clone();
                    self.start(async move {
                        let result = files::call(op).await.map(|()| 0);
                        kit.outbox.post(Event { owner, what: What::Once, result, payload: Payload::None });
                    });
                }
            },
        }
    }

    fn start(&mut self, task: impl Future<Output = ()> + 'static) {
        self.in_flight += 1;
        self.starting.push(Box::pin(task));
    }

    fn begin_on_file(&mut self, id: FileId, op: Op, short: bool, owner: Owner) {
        let state = self.files.get_mut(id.0);
        assert!(state.closing.is_none(), "operation on a file that is being closed");
        state.in_flight += 1;
        let (file, kit) = (state.file.clone(), self.kit.clone());
        self.start(async move {
            let (result, payload) = on_file(&file, op, short).await;
            // The last user hands the file over to whoever closes it.
            drop(file);
            kit.outbox.post(Event { owner, what: What::OfFile(id), result, payload });
        });
    }

    fn begin_close_file(&mut self, file: FileId, owner: Owner) {
        let state = self.files.get_mut(file.0);
        assert!(state.closing.is_none(), "a file is closed once");
        state.closing = Some(owner);
        self.close_if_idle(file);
    }

    /// Closes a file that was asked to close once nothing of it is in flight.
    pub(super) fn close_if_idle(&mut self, id: FileId) {
        let state = self.files.get(id.0);
        let Some(owner) = state.closing.filter(|_| state.in_flight == 0) else {
            return;
        };
        let file = Rc::into_inner(self.files.take(id.0).file).expect("a file that nobody uses");
        let kit = self.kit.clone();
        self.start(async move {
            file.close().await;
            kit.outbox.post(Event {
                owner,
                what: What::FileClosed(id),
                result: Ok(0),
                payload: Payload::None,
            });
        });
    }

    fn begin_accept(&mut self, listener: ListenerId, owner: Owner) {
        let state = self.listeners.get_mut(listener.0);
        assert!(state.accept.is_none(), "one Accept per listener");
        let stop = Rc::new(Stop::default());
        state.accept = Some(stop.clone());
        let (socket, kit) = (state.socket.clone(), self.kit.clone());
        self.start(net::accept(listener, socket, stop, kit, owner));
    }

    /// Without `once`, the most bytes of a single piece, it goes on.
    fn begin_recv(&mut self, conn: ConnId, once: Option<u32>, owner: Owner) {
        let state = self.conns.get_mut(conn.0);
        assert!(state.recv.is_none() && state.closing.is_none(), "one Recv per open connection");
        let stop = Rc::new(Stop::default());
        state.recv = Some(stop.clone());
        let (socket, kit) = (state.socket.clone(), self.kit.clone());
        self.start(net::receive(conn, socket, once, stop, kit, owner));
    }

    fn begin_cancel(&mut self, stop: Option<Rc<Stop>>, owner: Owner) {
        self.starting.extend(stop.map(ask));
        self.finish(owner, Ok(0), false, Payload::None);
    }

    fn begin_send(&mut self, conn: ConnId, chain: SendChain, owner: Owner) {
        let state = self.conns.get_mut(conn.0);
        assert!(!state.sending && state.closing.is_none(), "one Send per open connection");
        state.sending = true;
        let (socket, kit) = (state.socket.clone(), self.kit.clone());
        self.start(net::send(conn, socket, chain, kit, owner));
    }

    fn begin_close_conn(&mut self, conn: ConnId, owner: Owner) {
        let state = self.conns.get_mut(conn.0);
        assert!(state.closing.is_none(), "a connection is closed once");
        state.closing = Some(owner);
        state.shut();
        if let Some(stop) = state.recv.clone() {
            self.starting.push(ask(stop));
        }
        self.close_if_quiet(conn);
    }

    /// Closes a connection that was shut down, once nothing of it is in flight.
    pub(super) fn close_if_quiet(&mut self, conn: ConnId) {
        let state = self.conns.get(conn.0);
        let Some(owner) = state.closing.filter(|_| state.is_quiet()) else {
            return;
        };
        drop(self.conns.take(conn.0));
        self.conns.release(conn.0);
        self.finish(owner, Ok(0), false, Payload::None);
    }

    /// Starts to listen to the driver's bell.
    pub(super) fn begin_hearing(&mut self) {
        let (bell, stop, kit) = (self.bell.clone(), self.hearing.clone(), self.kit.clone());
        self.start(async move {
            if let Ok(bell) = PollableFd::new(bell) {
                while stop.or_readable(&bell).await.is_ok() {
                    bell.get_ref().hear();
                    kit.outbox.wake();
                }
            }
            let (owner, what) = (Owner::Waiter, What::Once);
            kit.outbox.post(Event { owner, what, result: Ok(0), payload: Payload::None });
        });
    }

    /// Calls off whatever can be, and closes all files as their last operations end.
    pub(super) fn stop_all(&mut self) {
        self.starting.push(ask(self.hearing.clone()));
        let accepts = self.listeners.iter_mut().filter_map(|listener| listener.accept.clone());
        self.starting.extend(accepts.map(ask));
        for conn in self.conns.iter_mut() {
            conn.shut();
            self.starting.extend(conn.recv.clone().map(ask));
        }
        for file in self.files.open_ids().map(FileId).collect::<Vec<_>>() {
            if self.files.get(file.0).closing.is_none() {
                self.begin_close_file(file, Owner::Waiter);
            }
        }
    }

    /// An injected failure: nothing is carried out, and buffers go back.
    fn refuse(&mut self, op: Op, owner: Owner, errno: Errno) {
        self.finish(owner, Err(errno), false, payload_of(op));
    }

    /// An injected short write: the first half of its pages is carried out. A read does so at first, and goes on.
    fn begin_short(&mut self, op: Op, owner: Owner) {
        match file_of(&op) {
            Some(file) => self.begin_on_file(file, op, true, owner),
            None => self.begin_whole(op, owner),
        }
    }
}

fn payload_of(op: Op) -> Payload {
    match op {
        Op::Write { data, .. } => Payload::Written(data),
        Op::Read { into, .. } => Payload::Read(into),
        _ => Payload::None,
    }
}

fn ask(stop: Rc<Stop>) -> Task {
    Box::pin(async move { stop.ask() })
}

async fn on_file(file: &OpenFile, op: Op, short: bool) -> (Result<u32, Errno>, Payload) {
    let plain = match op {
        Op::Write { offset, data, sync, .. } => {
            let len = if short { data.len() / 2 / ALIGN * ALIGN } else { data.len() };
            return (file.write(offset, &data[..len], sync).await, Payload::Written(data));
        }
        Op::Read { file: id, offset, into, at, len } => {
            let mut reading = Reading::new(id, offset, into, at, len);
            if short {
                reading.shorten();
            }
            let result = file.read(&mut reading).await;
            return (result.map(|()| reading.read), Payload::Read(reading.into));
        }
        Op::Flush { .. } => file.flush().await,
        Op::Allocate { offset, len, .. } => file.allocate(offset, len).await,
        Op::Truncate { len, .. } => file.truncate(len).await,
        op => unreachable!("{op:?} is no operation on an open file"),
    };
    (plain.map(|()| 0), Payload::None)
}
