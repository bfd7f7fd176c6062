use super::rig::{Rig, describe_configs, fetch, fetch_with, produce, produce_with};
use crate::controller::configs::BROKER;
use crate::io::{ConnId, Errno, Op};
use crate::wire::api::ApiKey;
use crate::wire::msg::{self, Bytes, FetchRequest, FetchResponse};

#[test]
fn accepting_pauses_where_it_would_fail_again_at_once() {
    let mut rig = Rig::new(&[]);
    for _ in 0..3 {
        rig.fail_accept(Errno::MFILE);
        assert_eq!(rig.accepting(), None, "not at once");
        assert_eq!(rig.server.next_deadline(), Some(rig.now.plus_ms(100)));
        rig.pass(99);
        rig.turn();
        assert_eq!(rig.accepting(), None);
        rig.pass(1);
        rig.turn();
        assert!(rig.accepting().is_some(), "tried again");
    }
    // What the peer did concerns one connection only.
    rig.fail_accept(Errno::CONNABORTED);
    assert!(rig.accepting().is_some());
    rig.connect();
    assert_eq!(rig.server.connections(), 1);
}

#[test]
fn a_connection_that_waits_is_accepted_anew() {
    let mut rig = Rig::new(&[]);
    let cancels = |op: &Op| matches!(op, Op::CancelAccept { .. });
    assert_eq!(rig.look(false), 0, "nobody waits");
    assert_eq!(rig.look(true), 0, "not again so soon");
    for _ in 0..3 {
        rig.pass(100);
        assert_eq!(rig.look(true), 1);
        assert_eq!(rig.complete(cancels), 1);
        assert!(rig.accepting().is_some());
        rig.connect();
    }
    // What fails before the cancel gets there is no reason to accept at once, and a pause none to look.
    rig.pass(100);
    assert_eq!(rig.look(true), 1);
    rig.fail_accept(Errno::MFILE);
    rig.complete(cancels);
    assert_eq!((rig.accepting(), rig.look(true)), (None, 0));
    rig.pass(99);
    rig.turn();
    assert_eq!((rig.accepting(), rig.look(true)), (None, 0));
    rig.pass(1);
    rig.turn();
    assert_eq!(rig.look(true), 1);
    // A stop ends it, and is not held up.
    rig.server.begin_stop();
    rig.complete(cancels);
    assert_eq!(rig.accepting(), None);
    rig.pass(100);
    assert_eq!(rig.look(true), 0);
}

#[test]
fn an_address_has_as_many_connections_as_it_may() {
    let settings =
        [("max.connections.per.ip", "2"), ("max.connections.per.ip.overrides", "10.0.0.9:1,[::1]:0")];
    let mut rig = Rig::new(&settings);
    let first = rig.connect_from([10, 0, 0, 1]);
    let second = rig.connect_from([10, 0, 0, 1]);
    let third = rig.connect_from([10, 0, 0, 1]);
    assert!(!rig.is_closing(first) && !rig.is_closing(second) && rig.is_closing(third));
    let other = rig.connect_from([10, 0, 0, 9]);
    let another = rig.connect_from([10, 0, 0, 9]);
    assert!(!rig.is_closing(other) && rig.is_closing(another));
    rig.settle();
    // One that was refused gives nothing back, one that was served does.
    let again = rig.connect_from([10, 0, 0, 1]);
    assert!(rig.is_closing(again));
    rig.end_recv(first, Ok(0));
    rig.settle();
    let again = rig.connect_from([10, 0, 0, 1]);
    assert!(!rig.is_closing(again));
}

#[test]
fn the_broker_has_as_many_connections_as_it_may() {
    let mut rig = Rig::new(&[("max.connections", "2")]);
    rig.connect_from([10, 0, 0, 1]);
    rig.connect_from([10, 0, 0, 2]);
    let third = rig.connect_from([10, 0, 0, 3]);
    assert!(rig.is_closing(third));
}

#[test]
fn a_hang_up_behind_requests_that_wait_ends_the_long_poll() {
    for how in [Ok(0), Err(Errno::CONNRESET)] {
        let mut rig = Rig::new(&[]);
        let conn = rig.connect();
        let mut frames = fetch(0, i32::MAX);
        frames.extend(produce(&[0]));
        frames.extend(fetch(1, i32::MAX));
        rig.receive(conn, &frames);
        rig.settle();
        assert!(rig.sent.is_empty() && rig.receiving(conn).is_some(), "the fetch waits, and it listens");
        rig.end_recv(conn, how);
        rig.turn();
        rig.settle();
        assert_eq!(rig.server.connections(), 0, "{how:?}: what the peer sent is done, and it is gone");
        assert!(!rig.sent.is_empty());
    }
}

#[test]
fn what_piles_up_behind_a_long_poll_is_bounded() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    rig.receive(conn, &fetch(0, i32::MAX));
    let mut received = 0;
    while rig.receiving(conn).is_some() && received < 1 << 20 {
        let frame = produce(&[0]);
        rig.receive(conn, &frame);
        rig.settle();
        received += frame.len();
    }
    assert!((64 << 10..128 << 10).contains(&received), "{received} bytes were taken");
    // Once the long poll is over the rest goes on.
    rig.pass(i32::MAX as u64);
    for _ in 0..2000 {
        rig.turn();
        rig.settle();
    }
    assert!(rig.receiving(conn).is_some());
}

#[test]
fn a_connection_that_found_no_buffer_while_it_waited_listens_again() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    let mut frames = fetch(0, i32::MAX);
    frames.extend(produce(&[0]));
    rig.receive(conn, &frames);
    rig.end_recv(conn, Err(Errno::NOBUFS));
    rig.turn();
    assert_eq!(rig.receiving(conn), None);
    rig.pass(1_001);
    rig.turn();
    assert!(rig.receiving(conn).is_some());
}

/// A connection that waits behind its long poll is closed; in the same batch of completions its `Recv` brings more than may wait, and
/// ends. The driver lets go of the connection with that end, and an operation on it would be one on a connection that is not open.
#[test]
fn what_arrives_behind_a_close_asks_for_nothing() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    let mut frames = fetch(0, i32::MAX);
    frames.extend(produce(&[0]));
    rig.receive(conn, &frames);
    rig.server.close_all();
    for _ in 0..3 {
        rig.arrive(conn, &[0; 64 << 10]);
    }
    rig.end_recv(conn, Err(Errno::CANCELED));
    rig.turn();
    assert!(rig.is_closing(conn));
    assert!(!rig.ops.iter().any(|(op, _)| matches!(op, Op::CancelRecv { .. })));
    rig.settle();
    assert_eq!(rig.server.connections(), 0);
}

/// One piece of 64 KiB holds more than a hundred requests with large answers, and whether there is memory for answers was looked at
/// once for all of them.
#[test]
fn requests_of_one_piece_wait_while_the_connection_owes_its_share() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    let frames = describe_configs([(BROKER, "1")]).repeat(128);
    assert!(frames.len() < 64 << 10);
    rig.receive(conn, &frames);
    let sending = |rig: &Rig| -> usize {
        let chains = rig.ops.iter().filter_map(|(op, _)| match op {
            Op::Send { chain, .. } => Some(chain.remaining()),
            _ => None,
        });
        chains.sum()
    };
    // A quarter of the 4 MiB that all may hold, and the answer that went over it.
    let first = sending(&rig);
    assert!((1 << 20..(1 << 20) + (128 << 10)).contains(&first), "{first} bytes are owed");
    rig.settle();
    for _ in 0..128 {
        rig.turn();
        rig.settle();
    }
    let bytes: usize = rig.sent.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > 4 << 20 && sending(&rig) == 0, "{bytes} bytes were sent");
    let mut rest: Vec<u8> = rig.sent.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    let mut answers = 0;
    while !rest.is_empty() {
        let len = u32::from_be_bytes(rest[..4].try_into().expect("a frame")) as usize;
        rest.drain(..4 + len);
        answers += 1;
    }
    assert_eq!(answers, 128);
}

/// A request whose error closes the connection came while an earlier one waited for its write: the earlier one was committed, and its
/// client never heard of it. Kafka answers it before it looks at the next.
#[test]
fn what_is_owed_is_sent_before_an_error_closes_the_connection() {
    let unknown_api = [0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 9, 0xff, 0xff];
    for bad in [produce_with(0, &[99], b""), unknown_api.to_vec()] {
        let mut rig = Rig::new(&[]);
        let conn = rig.connect();
        rig.receive(conn, &produce(&[0]));
        rig.settle();
        rig.sent.clear();
        let mut frames = produce(&[0]);
        frames.extend(&bad);
        frames.extend(produce(&[0]));
        rig.receive(conn, &frames);
        assert!(!rig.is_closing(conn) && rig.sent.is_empty(), "the first waits for its write");
        rig.receive(conn, &produce(&[0]));
        rig.complete(|op| matches!(op, Op::Write { .. }));
        assert!(!rig.is_closing(conn), "its answer is on its way");
        rig.settle();
        assert_eq!(rig.sent.len(), 1, "what came behind is not answered");
        assert_eq!(rig.server.connections(), 0);
    }
}

#[test]
fn an_error_with_nothing_owed_closes_at_once() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    rig.receive(conn, &produce_with(0, &[99], b""));
    assert!(rig.is_closing(conn));
    rig.settle();
    assert_eq!((rig.server.connections(), rig.sent.len()), (0, 0));
}

/// An error behind an answer that its peer does not take: the peer is gone, or it is dropped for its slowness like any other.
#[test]
fn a_connection_that_failed_ends_with_its_peer() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    let mut frames = produce(&[0]);
    frames.extend(produce_with(0, &[99], b""));
    rig.receive(conn, &frames);
    rig.end_recv(conn, Ok(0));
    rig.turn();
    rig.settle();
    assert_eq!((rig.server.connections(), rig.sent.len()), (0, 1));
}

/// Connections that waited for memory kept what they had received in the buffers of the shard, and nobody else could be heard until
/// there was memory.
#[test]
fn a_connection_that_waits_for_memory_keeps_no_receive_buffer() {
    let mut rig = Rig::new(&[]);
    let conns: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    let memory = rig.take_memory();
    for conn in &conns {
        assert!(rig.receive_pooled(*conn, &produce(&[0])), "there is a buffer");
    }
    rig.settle();
    assert_eq!(rig.sent.len(), 0);
    drop(memory);
    rig.turn();
    rig.settle();
    assert_eq!(rig.sent.len(), 4);
}

/// Where receive buffers were away for a while, each turn asked for the next receive, which failed at once: a loop without a sleep.
#[test]
fn a_receive_that_found_no_buffer_is_not_tried_again_at_once() {
    let mut rig = Rig::new(&[]);
    let (quiet, busy) = (rig.connect(), rig.connect());
    for _ in 0..3 {
        rig.end_recv(quiet, Err(Errno::NOBUFS));
        rig.turn();
        assert_eq!(rig.receiving(quiet), None, "not at once");
        assert_eq!(rig.server.next_deadline(), Some(rig.now.plus_ms(1)));
        rig.pass(1);
        rig.turn();
        assert!(rig.receiving(quiet).is_some());
    }
    // What arrived for another one gives its buffer back.
    rig.end_recv(quiet, Err(Errno::NOBUFS));
    rig.receive(busy, &produce(&[0]));
    assert!(rig.receiving(quiet).is_some());
}

/// A connection that waited for memory had sent what there were receive buffers for before it could be told to stop. Sixteen producers
/// with five requests of 900 KB under way each were too many for 64 MiB, and were closed.
#[test]
fn while_memory_is_tight_a_connection_brings_no_more_than_is_asked_for() {
    const VALUE_BYTES: usize = 900_000;
    let mut rig = Rig::new(&[]);
    let conns: Vec<_> = (0..6).map(|_| rig.connect()).collect();
    let frame = produce_with(-1, &[0], &[7; VALUE_BYTES]);
    let most = VALUE_BYTES - 10_000;
    for conn in &conns[..2] {
        rig.receive(*conn, &frame[..most]);
        assert_eq!(rig.receiving_at_most(*conn), None);
    }
    // More than half of the 4 MiB that all may hold.
    rig.receive(conns[2], &frame[..most]);
    rig.settle();
    assert_eq!(rig.receiving_at_most(conns[3]), Some(4096), "an idle one");
    assert_eq!(rig.receiving_at_most(conns[0]), Some((frame.len() - most) as u32), "the rest of its frame");
    // All that they may: the last one is over that before its frame is there, and may go on alone.
    for conn in &conns[3..5] {
        rig.receive(*conn, &frame[..4096]);
        let mut at = 4096;
        while let Some(piece) = rig.receiving_at_most(*conn).filter(|_| at < most) {
            let to = most.min(at + piece as usize);
            rig.receive(*conn, &frame[at..to]);
            at = to;
        }
    }
    rig.receive(conns[5], &frame[..4096]);
    rig.settle();
    assert_eq!(rig.receiving(conns[5]), None, "nobody listens to what cannot be taken up");
    wait(&mut rig, 4);
    assert_eq!(rig.receiving(conns[5]), None);
    for conn in &conns[..5] {
        rig.receive(*conn, &frame[most..]);
        rig.settle();
    }
    assert!(rig.receiving(conns[5]).is_some(), "there is memory");
    // Nobody is slow who was not listened to: the frame began twelve seconds ago.
    wait(&mut rig, 8);
    assert_eq!((rig.server.connections(), rig.sent.len()), (6, 5));
    bring(&mut rig, conns[5], &frame, 4096, frame.len());
    rig.settle();
    assert_eq!(rig.sent.len(), 6);
}

/// Brings a connection's frame up to `to`, in pieces of what it is asked for.
fn bring(rig: &mut Rig, conn: ConnId, frame: &[u8], from: usize, to: usize) {
    let mut at = from;
    while at < to {
        // A `Recv` that memory became tight behind is ended first.
        rig.complete(|op| matches!(op, Op::CancelRecv { .. }));
        let end = to.min(at + rig.receiving_at_most(conn).map_or(64 << 10, |most| most as usize));
        rig.receive(conn, &frame[at..end]);
        at = end;
    }
}

/// Whole seconds pass, each with its sweep.
fn wait(rig: &mut Rig, seconds: u64) {
    for _ in 0..seconds {
        rig.pass(1_000);
        rig.turn();
        rig.settle();
    }
}

/// A piece that arrived while memory was short waited, and its peer was called slow for that time and closed.
#[test]
fn nobody_is_slow_while_what_was_received_is_not_looked_at() {
    const VALUE_BYTES: usize = 900_000;
    let mut rig = Rig::new(&[]);
    let frame = produce_with(-1, &[0], &[7; VALUE_BYTES]);
    let most = frame.len() - 10_000;
    let conns: Vec<_> = (0..5).map(|_| rig.connect()).collect();
    let patient = rig.connect();
    let fill = |rig: &mut Rig| conns.iter().for_each(|conn| bring(rig, *conn, &frame, 0, most));
    let finish = |rig: &mut Rig| {
        conns.iter().for_each(|conn| bring(rig, *conn, &frame, most, frame.len()));
        rig.settle();
    };
    conns[..4].iter().for_each(|conn| bring(&mut rig, *conn, &frame, 0, most));
    rig.settle();
    // It is asked for a piece, which comes when the last of the others has the right to take more than all may hold.
    bring(&mut rig, patient, &frame, 0, 4096);
    assert!(rig.receiving(patient).is_some());
    bring(&mut rig, conns[4], &frame, 0, most);
    rig.receive(patient, &frame[4096..8192]);
    rig.settle();
    assert_eq!(rig.receiving(patient), None, "its piece waits");
    wait(&mut rig, 4);
    finish(&mut rig);
    assert!(rig.receiving(patient).is_some(), "its piece was taken");
    wait(&mut rig, 2);
    fill(&mut rig);
    wait(&mut rig, 1);
    assert!(!rig.is_closing(patient), "it was listened to for three seconds of seven");
    finish(&mut rig);
    bring(&mut rig, patient, &frame, 8192, frame.len());
    rig.settle();
    assert_eq!((rig.server.connections(), rig.sent.len()), (6, 11));
}

/// Who was listened to without a bound while memory was at hand for part of a turn stayed so.
#[test]
fn a_bound_comes_back_though_memory_was_there_for_a_part_of_a_turn() {
    let mut rig = Rig::new(&[]);
    let frame = produce_with(-1, &[0], &[7; 900_000]);
    let most = frame.len() - 10_000;
    let conns: Vec<_> = (0..4).map(|_| rig.connect()).collect();
    conns[..3].iter().for_each(|conn| bring(&mut rig, *conn, &frame, 0, most));
    rig.settle();
    assert!(conns.iter().all(|conn| rig.receiving_at_most(*conn).is_some()), "memory is tight");
    // One frame is whole, two connections are listened to, and one of them brings so much that memory is tight again.
    rig.arrive(conns[0], &frame[most..]);
    for bytes in [&frame[..4096], &frame[4096..most]] {
        rig.take_receives();
        rig.arrive(conns[3], bytes);
    }
    rig.turn();
    rig.settle();
    for conn in &conns {
        assert!(rig.receiving_at_most(*conn).is_some(), "{conn:?} is bounded");
    }
}

/// A connection that is closed for its error, behind an answer that its peer does not take, kept the right to a large frame for itself.
#[test]
fn who_failed_takes_no_right_to_a_large_frame() {
    let mut rig = Rig::sized(&[], 5, 16 << 20);
    let producer = rig.connect();
    for partition in 0..5 {
        rig.receive(producer, &produce_with(-1, &[partition], &[7; 900_000]));
        rig.settle();
    }
    let failed = rig.connect();
    rig.receive(failed, &produce(&[0]));
    while rig.complete(|op| !matches!(op, Op::Send { .. })) > 0 {}
    // A frame larger than any of its API may be, which is seen behind its length.
    rig.receive(failed, &(1_i32 << 20).to_be_bytes());
    rig.receive(failed, &ApiKey::Shards.wire().to_be_bytes());
    for of in 0..5 {
        let peer = rig.connect();
        rig.receive(peer, &fetch_with(of..of + 1, 0, 0, (1, 1 << 20)));
    }
    rig.complete(|op| matches!(op, Op::CancelRecv { .. }));
    rig.receive(failed, b"more");
    let frame = produce_with(-1, &[0], &[7; 900_000]);
    rig.receive(producer, &frame[..4096]);
    assert_eq!(
        rig.receiving_at_most(producer),
        Some(64 << 10),
        "memory is short, and one large frame goes on"
    );
    bring(&mut rig, producer, &frame, 4096, frame.len());
}

/// Behind the parts that one system call takes, records were copied: megabytes of each answer to a consumer of many partitions.
#[test]
fn records_of_any_number_of_partitions_leave_uncopied() {
    let partitions = 80;
    let mut rig = Rig::sized(&[], partitions, 128 << 20);
    let conn = rig.connect();
    for partition in 0..partitions {
        rig.receive(conn, &produce_with(-1, &[partition], &[7; 5_000]));
    }
    rig.settle();
    rig.sent.clear();
    rig.receive(conn, &fetch_with(0..partitions, 0, 0, (1, 1 << 20)));
    rig.settle();
    let bytes: usize = rig.sent.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > 80 * 5_000, "{bytes} bytes");
    assert!(rig.server.fetched.sent > 80 * 5_000);
    assert_eq!(rig.server.fetched.copied, 0);
}

/// Peers that did not take what they were sent kept the blocks that it lay in, all that the shard had.
#[test]
fn answers_not_taken_keep_a_quarter_of_the_blocks_and_then_copies_and_then_nothing() {
    const VALUE_BYTES: u64 = 900_000;
    let mut rig = Rig::sized(&[], 7, 16 << 20);
    let producer = rig.connect();
    for partition in 0..7 {
        rig.receive(producer, &produce_with(-1, &[partition], &[7; VALUE_BYTES as usize]));
        rig.settle();
    }
    let peers: Vec<_> = (0..7).map(|_| rig.connect()).collect();
    let ask = |rig: &mut Rig, of: i32| {
        let before = rig.server.fetched;
        rig.receive(peers[of as usize], &fetch_with(of..of + 1, 0, 0, (1, 1 << 20)));
        let after = rig.server.fetched;
        (after.sent - before.sent, after.copied - before.copied)
    };
    // 16 of the 64 blocks, four for each.
    for of in 0..4 {
        let (sent, copied) = ask(&mut rig, of);
        assert!(sent > VALUE_BYTES && copied == 0, "{copied} of {sent} bytes were copied for peer {of}");
    }
    let (sent, copied) = ask(&mut rig, 4);
    assert!(sent > VALUE_BYTES && copied == sent, "{copied} of {sent} bytes were copied");
    // That was the last of the 4 MiB that all may hold.
    assert_eq!(ask(&mut rig, 5), (0, 0));
    rig.sent.clear();
    rig.settle();
    let answer = |rig: &Rig, of: usize| -> FetchResponse {
        let (_, frame) = rig.sent.iter().rfind(|(conn, _)| *conn == peers[of]).expect("it was answered");
        msg::decode_response::<FetchRequest>(Bytes::from(frame[4..].to_vec()), 12).expect("decodes")
    };
    let put_off = answer(&rig, 5);
    assert!(put_off.throttle_time_ms > 0, "it is asked to wait");
    let partition = &put_off.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 1));
    assert!(partition.records.as_ref().is_none_or(|records| records.is_empty()));
    // The others have taken theirs, and its time is not up.
    assert_eq!(ask(&mut rig, 5), (0, 0));
    rig.settle();
    assert_eq!(rig.sent.iter().filter(|(conn, _)| *conn == peers[5]).count(), 1);
    rig.pass(99);
    rig.turn();
    assert_eq!(rig.server.next_deadline(), Some(rig.now.plus_ms(1)));
    rig.pass(1);
    let before = rig.server.fetched;
    rig.turn();
    let (sent, copied) = (rig.server.fetched.sent - before.sent, rig.server.fetched.copied - before.copied);
    assert!(sent > VALUE_BYTES && copied == 0, "{copied} of {sent} bytes were copied");
    rig.settle();
    assert_eq!(answer(&rig, 5).throttle_time_ms, 0);
    let lent: Vec<_> = [0, 4, 5].map(|of| answer(&rig, of).responses[0].partitions[0].records.clone()).into();
    assert!(lent.iter().all(|records| *records == lent[0]), "a copy is what it is a copy of");
}

/// Who asks for at least more than an answer may have waited out its whole time with each answer: Kafka takes the lesser of both.
#[test]
fn a_fetch_waits_for_no_more_than_its_answer_may_have() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    rig.receive(conn, &produce(&[0]));
    rig.settle();
    rig.sent.clear();
    rig.receive(conn, &fetch_with(0..1, 0, 60_000, (i32::MAX, 50)));
    rig.settle();
    assert_eq!(rig.sent.len(), 1);
}
