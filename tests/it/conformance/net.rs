//! Connections.

use super::*;

/// An accepted connection, with its listener still accepting.
pub struct Link {
    pub rig: Rig,
    pub conn: ConnId,
    pub peer: Box<dyn Peer>,
}

pub fn listen(rig: &mut Rig) -> (ListenerId, SocketAddr) {
    let (listener, addr) = rig.io.listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    assert_ne!(addr.port(), 0);
    (listener, addr)
}

fn link(world: &mut dyn World) -> Link {
    let rig = Rig::new(world);
    Link::on(world, rig)
}

pub fn accepted(done: Done) -> ConnId {
    assert!(done.more && done.result == Ok(0), "{done:?}");
    let Payload::Accepted { conn, peer } = done.payload else { panic!("no connection") };
    assert!(peer.ip().is_loopback());
    conn
}

pub fn chain(parts: impl IntoIterator<Item = SendPart>) -> SendChain {
    let mut chain = SendChain::default();
    parts.into_iter().for_each(|part| chain.push(part));
    chain
}

pub fn bytes(bytes: &[u8]) -> SendPart {
    SendPart::Bytes(bytes.to_vec())
}

impl Link {
    pub fn on(world: &mut dyn World, mut rig: Rig) -> Link {
        let (listener, addr) = listen(&mut rig);
        let accept = rig.push(Op::Accept { listener });
        let peer = world.connect(addr);
        let conn = accepted(rig.next(accept));
        Link { rig, conn, peer }
    }

    /// Receives until `len` bytes have come, arming again as the contract asks; the peer meanwhile writes `from`.
    pub fn receive(&mut self, mut recv: Token, from: &[u8], len: usize) -> (Token, Vec<u8>) {
        let (mut written, mut got) = (0, Vec::new());
        let Link { rig, conn, peer } = self;
        rig.until("the bytes arrive", |rig| {
            written += peer.write(&from[written..]);
            while let Some(done) = rig.take(recv) {
                if let Payload::Received(piece) = &done.payload {
                    assert_eq!(done.result, Ok(piece.len() as u32));
                    got.extend_from_slice(piece);
                }
                if !done.more {
                    assert!(matches!(done.result, Ok(_) | Err(Errno::NOBUFS)), "{done:?}");
                    recv = rig.push(Op::Recv { conn: *conn });
                }
            }
            got.len() >= len
        });
        (recv, got)
    }

    /// Sends a chain to its end, going on after short sends, while the peer reads at most now and then.
    pub fn send_all(&mut self, chain: SendChain) -> Vec<u8> {
        let total = chain.remaining();
        let Link { rig, conn, peer } = self;
        let mut send = Some(rig.push(Op::Send { conn: *conn, chain }));
        let (mut turns, mut got) = (0, Vec::new());
        rig.until("the chain is sent", |rig| {
            turns += 1;
            if turns % 3 == 0 {
                peer.read(&mut got);
            }
            if let Some(done) = send.and_then(|token| rig.take(token)) {
                let Payload::Sent(mut chain) = done.payload else { panic!("the chain comes back") };
                let sent = done.result.expect("a healthy connection") as usize;
                let before = chain.remaining();
                assert!(0 < sent && sent <= before && !done.more);
                chain.advance(sent);
                assert_eq!(chain.remaining(), before - sent);
                send = (!chain.is_done()).then(|| rig.push(Op::Send { conn: *conn, chain }));
            }
            send.is_none() && got.len() >= total
        });
        got
    }
}

pub fn one_accept_takes_many_connections(world: &mut dyn World) {
    let mut rig = Rig::new(world);
    let (listener, addr) = listen(&mut rig);
    let accept = rig.push(Op::Accept { listener });
    let peers: Vec<_> = (0..5).map(|_| world.connect(addr)).collect();
    let mut conns: Vec<ConnId> = peers.iter().map(|_| accepted(rig.next(accept))).collect();
    conns.sort_by_key(|c| c.0);
    conns.dedup();
    assert_eq!(conns.len(), 5);
}

pub fn a_taken_port_is_refused(world: &mut dyn World) {
    let mut rig = Rig::new(world);
    let (_, addr) = listen(&mut rig);
    assert_eq!(rig.io.listen(addr).map(|_| ()), Err(Errno::ADDRINUSE));
}

pub fn received_bytes_keep_their_order(world: &mut dyn World) {
    let mut link = link(world);
    let recv = link.rig.push(Op::Recv { conn: link.conn });
    let sent = pattern(1 << 20, 1);
    let (recv, got) = link.receive(recv, &sent, sent.len());
    assert!(got == sent);
    link.peer.finish();
    let end = link.rig.next(recv);
    assert!(end.result == Ok(0) && !end.more && matches!(end.payload, Payload::None), "{end:?}");
    assert_eq!(link.send_all(chain([bytes(b"still open this way")])), b"still open this way");
}

pub fn a_bounded_receive_takes_one_piece(world: &mut dyn World) {
    let Link { mut rig, conn, mut peer } = link(world);
    let sent = pattern(200_000, 3);
    let (mut written, mut got) = (0, Vec::new());
    // The last is longer than a buffer.
    for bytes_max in [1, 10, 4096, 5000, 1 << 20].into_iter().cycle() {
        let recv = rig.push(Op::RecvOnce { conn, bytes_max });
        let mut done = None;
        rig.until("a piece arrives", |rig| {
            written += peer.write(&sent[written..]);
            done = rig.take(recv);
            done.is_some()
        });
        let done = done.expect("it is over");
        assert!(!done.more, "{done:?}");
        let Payload::Received(piece) = &done.payload else {
            // As without a bound.
            assert_eq!(done.result, Err(Errno::NOBUFS));
            continue;
        };
        assert_eq!(done.result, Ok(piece.len() as u32));
        assert!((1..=bytes_max as usize).contains(&piece.len()), "{} of at most {bytes_max}", piece.len());
        got.extend_from_slice(piece);
        if got.len() == sent.len() {
            break;
        }
    }
    assert!(got == sent);
    // Behind it a receive without a bound goes on.
    let mut link = Link { rig, conn, peer };
    let recv = link.rig.push(Op::Recv { conn });
    let (_, got) = link.receive(recv, b"and more", 8);
    assert_eq!(got, b"and more");
}

pub fn a_bounded_receive_ends_like_any(world: &mut dyn World) {
    let mut link = link(world);
    let Link { rig, conn, peer } = &mut link;
    let conn = *conn;
    let recv = rig.push(Op::RecvOnce { conn, bytes_max: 100 });
    let cancel = rig.push(Op::CancelRecv { conn });
    let end = rig.next(recv);
    assert!(end.result == Err(Errno::CANCELED) && !end.more, "{end:?}");
    rig.next(cancel);
    let recv = rig.push(Op::RecvOnce { conn, bytes_max: 100 });
    peer.finish();
    let end = rig.next(recv);
    assert!(end.result == Ok(0) && !end.more && matches!(end.payload, Payload::None), "{end:?}");
    let recv = rig.push(Op::RecvOnce { conn, bytes_max: 100 });
    let close = rig.push(Op::CloseConn { conn });
    assert!(matches!(rig.next(recv).result, Ok(0) | Err(Errno::CANCELED)));
    assert_eq!(rig.next(close).result, Ok(0));
}

pub fn without_buffers_a_receive_ends_and_goes_on_when_armed_again(world: &mut dyn World) {
    let mut link = link(world);
    let sent = pattern(4 << 20, 2);
    let mut written = 0;
    let recv = link.rig.push(Op::Recv { conn: link.conn });
    let mut held = Vec::new();
    let mut ended = None;
    let Link { rig, peer, .. } = &mut link;
    rig.until("buffers run out", |rig| {
        written += peer.write(&sent[written..]);
        while let Some(done) = rig.take(recv) {
            match done.payload {
                Payload::Received(piece) => held.push(piece),
                _ => ended = Some((done.result, done.more)),
            }
        }
        ended.is_some()
    });
    assert_eq!(ended, Some((Err(Errno::NOBUFS), false)));
    assert_eq!(held.len(), usize::from(RECV_BUFFERS));
    let mut got: Vec<u8> = held.iter().flat_map(|piece| piece.to_vec()).collect();
    drop(held);
    let recv = link.rig.push(Op::Recv { conn: link.conn });
    let (_, rest) = link.receive(recv, &sent[written..], sent.len() - got.len());
    got.extend(rest);
    assert!(got == sent);
}

pub fn receive_buffers_are_shared_by_all_connections(world: &mut dyn World) {
    let mut rig = Rig::new(world);
    let (listener, addr) = listen(&mut rig);
    let accept = rig.push(Op::Accept { listener });
    let mut peers: Vec<_> = (0..3 * RECV_BUFFERS).map(|_| world.connect(addr)).collect();
    let conns: Vec<ConnId> = peers.iter().map(|_| accepted(rig.next(accept))).collect();
    let mut recvs: Vec<Token> = conns.iter().map(|conn| rig.push(Op::Recv { conn: *conn })).collect();
    peers.iter_mut().for_each(|peer| assert_eq!(peer.write(b"ping"), 4));
    let mut got = vec![0; conns.len()];
    rig.until("everyone is heard", |rig| {
        for i in 0..recvs.len() {
            while let Some(done) = rig.take(recvs[i]) {
                got[i] += done.result.unwrap_or(0);
                if !done.more {
                    recvs[i] = rig.push(Op::Recv { conn: conns[i] });
                }
            }
        }
        got.iter().all(|len| *len == 4)
    });
}

pub fn a_peer_that_leaves_ends_the_receive(world: &mut dyn World) {
    let Link { mut rig, conn, peer } = link(world);
    let recv = rig.push(Op::Recv { conn });
    drop(peer);
    let end = rig.next(recv);
    assert!(!end.more && matches!(end.result, Ok(0) | Err(Errno::CONNRESET)), "{end:?}");
    let close = rig.push(Op::CloseConn { conn });
    assert_eq!(rig.next(close).result, Ok(0));
}

pub fn a_send_hands_its_chain_back(world: &mut dyn World) {
    let mut link = link(world);
    let before = link.rig.io.pool().available();
    let block = link.rig.pattern(1, 3);
    let parts = [bytes(b"head"), SendPart::Block(block), bytes(b"tail")];
    let done = link.rig.run(Op::Send { conn: link.conn, chain: chain(parts) });
    let Payload::Sent(mut sent) = done.payload else { panic!("the chain comes back") };
    assert_eq!((done.result, sent.remaining()), (Ok(8 + ALIGN as u32), 8 + ALIGN));
    assert_eq!(link.rig.io.pool().available(), before - 1, "the chain pins its block");
    sent.advance(8 + ALIGN);
    assert!(sent.is_done());
    assert_eq!(link.rig.io.pool().available(), before);
    let mut got = Vec::new();
    let Link { rig, peer, .. } = &mut link;
    rig.until("the peer has it", |_| peer.read(&mut got) && got.len() == 8 + ALIGN);
    assert!(got == [&b"head"[..], &pattern(ALIGN, 3), &b"tail"[..]].concat());
    let done = link.rig.run(Op::Send { conn: link.conn, chain: SendChain::default() });
    assert_eq!(done.result, Ok(0), "an empty chain is sent at once");
}

pub fn a_chain_longer_than_one_call_goes_on(world: &mut dyn World) {
    let mut link = link(world);
    let block = link.rig.pattern(64, 4);
    let part = |i: usize| match i % 3 {
        0 => bytes(&pattern(i, i as u8)),
        1 => SendPart::Block(block.sub(i..i + 9000)),
        _ => SendPart::Block(block.clone()),
    };
    let expected: Vec<u8> = (1..200).flat_map(|i| part(i).as_slice().to_vec()).collect();
    let got = link.send_all(chain((1..200).map(part)));
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
}

pub fn both_directions_run_at_once(world: &mut dyn World) {
    let mut link = link(world);
    let recv = link.rig.push(Op::Recv { conn: link.conn });
    let long = pattern(16 << 20, 5);
    let send = link.rig.push(Op::Send { conn: link.conn, chain: chain([bytes(&long)]) });
    let (_, got) = link.receive(recv, b"request", 7);
    assert_eq!(got, b"request");
    let done = link.rig.next(send);
    let Payload::Sent(mut chain) = done.payload else { panic!("the chain comes back") };
    chain.advance(done.result.expect("some has left") as usize);
    assert!(!chain.is_done(), "no socket buffers that much");
    let mut got = link.send_all(chain);
    let Link { rig, peer, .. } = &mut link;
    rig.until("the answer is read", |_| peer.read(&mut got) && got.len() == long.len());
    assert!(got == long);
}

pub fn a_slow_reader_of_a_long_send_shows_progress(world: &mut dyn World) {
    const BYTES: usize = 16 << 20;
    let Link { mut rig, conn, mut peer } = link(world);
    let all = pattern(BYTES, 7);
    let mut send = Some(rig.push(Op::Send { conn, chain: chain([bytes(&all)]) }));
    let (mut got, mut dones, mut read_at_last) = (Vec::new(), 0, 0);
    rig.until("all is sent", |rig| {
        peer.read_some(&mut got, 64 << 10);
        if let Some(done) = send.and_then(|token| rig.take(token)) {
            let Payload::Sent(mut chain) = done.payload else { panic!("the chain comes back") };
            chain.advance(done.result.expect("a healthy connection") as usize);
            // Both sockets' buffers together take less than 12 MiB, whatever they grow to.
            assert!(got.len() - read_at_last < 12 << 20, "no progress is told");
            (dones, read_at_last) = (dones + 1, got.len());
            send = (!chain.is_done()).then(|| rig.push(Op::Send { conn, chain }));
        }
        send.is_none()
    });
    assert!(dones > 2, "{dones}");
    rig.until("all is read", |_| peer.read(&mut got) && got.len() == BYTES);
    assert!(got == all);
}

pub fn a_cancelled_receive_ends_and_another_begins(world: &mut dyn World) {
    let mut link = link(world);
    let recv = link.rig.push(Op::Recv { conn: link.conn });
    link.rig.turn(1);
    let cancel = link.rig.push(Op::CancelRecv { conn: link.conn });
    let end = link.rig.next(recv);
    assert!(!end.more && end.result == Err(Errno::CANCELED), "{end:?}");
    assert_eq!(link.rig.next(cancel).result, Ok(0));
    link.rig.ok(Op::CancelRecv { conn: link.conn });
    let recv = link.rig.push(Op::Recv { conn: link.conn });
    let (_, got) = link.receive(recv, b"after", 5);
    assert_eq!(got, b"after");
}

pub fn a_close_completes_after_what_was_in_flight(world: &mut dyn World) {
    let Link { mut rig, conn, mut peer } = link(world);
    let recv = rig.push(Op::Recv { conn });
    let endless = chain((0..64).map(|i| bytes(&pattern(1 << 20, i))));
    let send = rig.push(Op::Send { conn, chain: endless });
    rig.turn(5);
    let close = rig.push(Op::CloseConn { conn });
    let mut ends = Vec::new();
    rig.until("all three end", |rig| {
        while let Some(done) = rig.take_any() {
            if !done.more {
                ends.push(done);
            }
        }
        ends.iter().any(|d| d.token == close)
    });
    assert_eq!(ends.last().map(|d| (d.token, d.result)), Some((close, Ok(0))));
    let end = |token| ends.iter().find(|d| d.token == token).expect("ended before the close");
    assert!(end(recv).result.is_err());
    let Payload::Sent(chain) = &end(send).payload else { panic!("the chain comes back") };
    assert!(end(send).result.map_or(true, |sent| (sent as usize) < chain.remaining()));
    let mut got = Vec::new();
    rig.until("the peer sees the end", |_| !peer.read(&mut got));
}

pub fn sending_to_a_peer_that_left_fails(world: &mut dyn World) {
    let Link { mut rig, conn, peer } = link(world);
    drop(peer);
    rig.until("a send fails", |rig| {
        let done = rig.run(Op::Send { conn, chain: chain([bytes(b"anyone?")]) });
        assert!(matches!(done.payload, Payload::Sent(_)));
        assert!(matches!(done.result, Ok(_) | Err(Errno::PIPE | Errno::CONNRESET)), "{done:?}");
        done.result.is_err()
    });
    rig.ok(Op::CloseConn { conn });
}

pub fn connections_come_and_go(world: &mut dyn World) {
    let mut rig = Rig::new(world);
    let (listener, addr) = listen(&mut rig);
    let accept = rig.push(Op::Accept { listener });
    for round in 0..40_u8 {
        let mut peer = world.connect(addr);
        let conn = accepted(rig.next(accept));
        let recv = rig.push(Op::Recv { conn });
        assert_eq!(peer.write(&[round; 10]), 10);
        let done = rig.next(recv);
        let Payload::Received(piece) = done.payload else { panic!("{done:?}") };
        assert_eq!(*piece, [round; 10]);
        drop(piece);
        rig.ok(Op::CloseConn { conn });
        assert!(rig.take(recv).is_some_and(|d| !d.more), "the receive ended before the close");
    }
}

/// Cancels an `Accept` and waits for its end; returns how many connections it took on the way.
pub fn cancel_accept(rig: &mut Rig, listener: ListenerId, accept: Token) -> usize {
    let cancel = rig.push(Op::CancelAccept { listener });
    let mut taken = 0;
    let end = loop {
        let done = rig.next(accept);
        if !done.more {
            break done;
        }
        accepted(done);
        taken += 1;
    };
    assert!(end.result == Err(Errno::CANCELED) && matches!(end.payload, Payload::None), "{end:?}");
    let done = rig.next(cancel);
    assert!(done.result == Ok(0) && !done.more, "{done:?}");
    taken
}

pub fn a_cancelled_accept_leaves_who_comes_to_the_next(world: &mut dyn World) {
    let mut rig = Rig::new(world);
    let (listener, addr) = listen(&mut rig);
    rig.ok(Op::CancelAccept { listener });
    for _ in 0..3 {
        let accept = rig.push(Op::Accept { listener });
        let _first = world.connect(addr);
        accepted(rig.next(accept));
        assert!(!rig.io.has_waiting(listener));
        assert_eq!(cancel_accept(&mut rig, listener, accept), 0);
        rig.ok(Op::CancelAccept { listener });
        let _second = world.connect(addr);
        rig.until("it waits", |rig| rig.io.has_waiting(listener));
        (0..3).for_each(|_| rig.turn(2));
        assert!(rig.take_any().is_none(), "nobody accepts");
        let accept = rig.push(Op::Accept { listener });
        accepted(rig.next(accept));
        assert!(!rig.io.has_waiting(listener));
        assert_eq!(cancel_accept(&mut rig, listener, accept), 0);
    }
}

pub fn an_accept_that_is_cancelled_as_it_takes_loses_nobody(world: &mut dyn World) {
    const PEERS: usize = 5;
    let mut rig = Rig::new(world);
    let (listener, addr) = listen(&mut rig);
    for round in 0..20 {
        let mut accept = rig.push(Op::Accept { listener });
        // Both leave together in every fourth round, and else the cancel finds the accept in one of the states that it passes.
        (0..round % 4).for_each(|_| rig.turn(0));
        let _peers: Vec<_> = (0..PEERS).map(|_| world.connect(addr)).collect();
        (0..round % 3).for_each(|_| rig.turn(0));
        let mut taken = cancel_accept(&mut rig, listener, accept);
        accept = rig.push(Op::Accept { listener });
        while taken < PEERS {
            accepted(rig.next(accept));
            taken += 1;
        }
        (0..3).for_each(|_| rig.turn(0));
        assert_eq!(cancel_accept(&mut rig, listener, accept), 0, "one connection is taken twice");
    }
}
