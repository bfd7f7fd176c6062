use super::divide::{divide, only_owner};
use super::gather::{Gather, Leg, Progress};
use super::lanes::{Lanes, Planted, links};
use super::letter::{Letter, Parcel};
use super::mesh::Router;
use super::message::{
    Fetch, FetchOutcome, FetchPart, ListOffsets, ListOffsetsPart, Message, OffsetOutcome, Produce,
    ProduceOutcome, ProducePart, Reply, ReplyBody, Ticket,
};
use crate::base::error::Refused;
use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, ShardId, Uuid};
use crate::base::metrics::Stamps;
use crate::base::offset::Offset;
use crate::io::sim::{Faults, World};
use crate::io::{Io, Mono};
use crate::log::store::Records;

const ME: ShardId = ShardId(0);
const OTHER: ShardId = ShardId(1);

fn key(partition: i32) -> PartitionKey {
    PartitionKey { topic: Uuid::ZERO, partition: PartitionIndex(partition) }
}

/// Partition 0 lives on shard 0, 1 on shard 1, and so on.
fn owner_of(shards: i32) -> impl Fn(PartitionKey) -> ShardId {
    move |key| ShardId((key.partition.0 % shards) as u16)
}

fn ticket(conn: u32, sequence: u64) -> Ticket {
    Ticket { shard: ME, conn, generation: 1, sequence }
}

fn fetch(ticket: Ticket, partitions: &[i32], min_bytes: i32, max_bytes: i32) -> Message<'static> {
    let part = |partition: &i32| FetchPart {
        key: key(*partition),
        from: Offset(i64::from(*partition)),
        bytes_max: max_bytes,
        current_epoch: LeaderEpoch::NONE,
        last_fetched_epoch: LeaderEpoch::NONE,
    };
    let parts = partitions.iter().map(part).collect();
    let (max_wait_ms, read_committed, at_once) = (500, false, false);
    Message::Fetch(Fetch { ticket, max_wait_ms, min_bytes, max_bytes, read_committed, at_once, parts })
}

fn produce(ticket: Ticket, partitions: &[i32]) -> Message<'static> {
    let part = |partition: &i32| ProducePart { key: key(*partition), records: &b"records"[..] };
    let parts = partitions.iter().map(part).collect();
    Message::Produce(Produce { ticket, version: 9, acks: -1, timeout_ms: 1_000, parts })
}

fn questions(ticket: Ticket, partitions: &[i32]) -> Message<'static> {
    let part = |partition: &i32| ListOffsetsPart {
        key: key(*partition),
        current_epoch: LeaderEpoch::NONE,
        timestamp: -1,
    };
    Message::ListOffsets(ListOffsets {
        ticket,
        read_committed: false,
        parts: partitions.iter().map(part).collect(),
    })
}

fn at(offset: i64) -> OffsetOutcome {
    OffsetOutcome { offset, ..OffsetOutcome::NONE }
}

fn offsets(answer: ReplyBody) -> Vec<i64> {
    let ReplyBody::ListOffsets(outcomes) = answer else { panic!("another answer") };
    outcomes.iter().map(|outcome| outcome.offset).collect()
}

fn records(bytes: usize) -> FetchOutcome {
    let records = Records { bytes, ..Records::default() };
    FetchOutcome { error: None, records, ..FetchOutcome::refused(Refused::OffsetOutOfRange) }
}

fn fetched(answer: ReplyBody) -> Vec<(Option<Refused>, usize)> {
    let ReplyBody::Fetch(outcomes) = answer else { panic!("another answer") };
    outcomes.iter().map(|outcome| (outcome.error, outcome.records.bytes)).collect()
}

#[test]
fn a_request_is_cut_by_owner_and_keeps_its_places() {
    let divided = divide(produce(ticket(1, 0), &[5, 0, 3, 2, 1]), &owner_of(3)).expect("has answers");
    assert_eq!(divided.parts, 5);
    let shares: Vec<_> = divided.shares.iter().map(|share| (share.owner.0, share.places.clone())).collect();
    assert_eq!(shares, [(0, vec![1, 2]), (1, vec![4]), (2, vec![0, 3])]);
    let named = |message: &Message<'_>| match message {
        Message::Produce(produce) => produce.parts.iter().map(|part| part.key.partition.0).collect(),
        _ => vec![],
    };
    let named: Vec<_> = divided.shares.iter().map(|share| named(&share.message)).collect();
    assert_eq!(named, [vec![0, 3], vec![1], vec![5, 2]]);
}

#[test]
fn an_only_owner_is_found() {
    let of = |partitions: &[i32]| only_owner(&produce(ticket(1, 0), partitions), ME, &owner_of(3));
    assert_eq!((of(&[4, 1, 7]), of(&[4, 2]), of(&[])), (Some(OTHER), None, Some(ME)));
}

#[test]
fn bytes_of_a_fetch_are_shared_out() {
    let limits = |min, max| {
        let divided =
            divide(fetch(ticket(1, 0), &[0, 1, 2, 3], min, max), &owner_of(3)).expect("has answers");
        let limits = divided.shares.iter().map(|share| match &share.message {
            Message::Fetch(fetch) => (fetch.min_bytes, fetch.max_bytes),
            _ => (-1, -1),
        });
        limits.collect::<Vec<_>>()
    };
    assert_eq!(limits(10, 100), [(4, 33); 3], "one of them has its share if all together have enough");
    assert_eq!(limits(0, 2), [(0, 1); 3], "nobody is asked for nothing");
    assert_eq!(limits(-1, -1), [(0, 1); 3]);
    assert_eq!(limits(i32::MAX, i32::MAX), [(715_827_883, 715_827_882); 3]);
}

/// A request of shards 0 and 1, and 2 where there are more partitions.
fn gather(message: Message<'static>) -> Gather {
    let divided = divide(message, &owner_of(3)).expect("has answers");
    let leg = |share: super::divide::Share<'_>| Leg { owner: share.owner, places: share.places, done: false };
    Gather {
        ticket: divided.ticket,
        kind: divided.kind,
        parts: divided.parts,
        legs: divided.shares.into_iter().map(leg).collect(),
        answers: divided.answers,
        stamps: Stamps::default(),
        deadline: Mono(0),
    }
}

fn take(gather: &mut Gather, owner: u16, body: ReplyBody) -> Progress {
    gather.take(ShardId(owner), body, Stamps::default())
}

#[test]
fn answers_go_to_their_places_in_any_order() {
    let mut gather = gather(questions(ticket(1, 0), &[1, 0, 4, 2]));
    let body = |outcomes: &[i64]| ReplyBody::ListOffsets(outcomes.iter().map(|o| at(*o)).collect());
    assert!(matches!(take(&mut gather, 2, body(&[20])), Progress::Wait));
    assert!(matches!(take(&mut gather, 1, body(&[10, 40])), Progress::Wait));
    assert!(matches!(take(&mut gather, 1, body(&[7, 7])), Progress::Wait), "it has answered");
    let Progress::Complete(reply) = take(&mut gather, 0, body(&[5])) else { panic!("all have answered") };
    assert_eq!((reply.ticket, offsets(reply.body)), (ticket(1, 0), vec![10, 5, 40, 20]));
}

#[test]
fn owners_that_are_late_are_answered_for() {
    let mut late = gather(fetch(ticket(1, 0), &[2, 1, 0], 1, 100));
    let news = take(&mut late, 1, ReplyBody::Fetch([records(10)].into_iter().collect()));
    assert!(matches!(news, Progress::Hurry), "who has news hurries the others");
    let nobody = (Some(Refused::NotLeaderOrFollower), 0);
    assert_eq!(fetched(late.finish().body), [nobody, (None, 10), nobody]);

    let mut late = gather(produce(ticket(1, 0), &[1, 0]));
    let answer = ProduceOutcome {
        error: None,
        base_offset: 7,
        ..ProduceOutcome::refused(Refused::UnknownServerError, None)
    };
    assert!(matches!(take(&mut late, 0, ReplyBody::Produce([answer].into_iter().collect())), Progress::Wait));
    let ReplyBody::Produce(outcomes) = late.finish().body else { panic!("another answer") };
    let found: Vec<_> = outcomes.iter().map(|outcome| (outcome.error, outcome.base_offset)).collect();
    assert_eq!(found, [(Some(Refused::RequestTimedOut), -1), (None, 7)]);
}

#[test]
fn an_answer_without_news_hurries_nobody() {
    let mut waiting = gather(fetch(ticket(1, 0), &[1, 0], 1, 100));
    let nothing = ReplyBody::Fetch([records(0)].into_iter().collect());
    assert!(matches!(take(&mut waiting, 1, nothing), Progress::Wait));
}

#[test]
fn what_is_over_the_limit_of_the_whole_answer_is_trimmed() {
    let trimmed = |limit: i32, bytes: [usize; 3]| {
        let mut gather = gather(fetch(ticket(1, 0), &[0, 1, 2], 1, limit));
        let mut taken = bytes.into_iter().enumerate().map(|(owner, bytes)| {
            take(&mut gather, owner as u16, ReplyBody::Fetch([records(bytes)].into_iter().collect()))
        });
        let Some(Progress::Complete(reply)) = taken.nth(2) else { panic!("all have answered") };
        fetched(reply.body).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>()
    };
    assert_eq!(trimmed(100, [40, 40, 20]), [40, 40, 20]);
    assert_eq!(trimmed(99, [40, 40, 20]), [40, 40, 0]);
    assert_eq!(trimmed(10, [40, 40, 20]), [40, 0, 0], "the first records come whatever the limit");
    assert_eq!(trimmed(50, [0, 40, 20]), [0, 40, 0]);
    assert_eq!(trimmed(50, [40, 40, 10]), [40, 0, 10], "what fits behind is kept");
}

/// Two shards, of which the second answers when the test says so.
struct Pair {
    ios: Vec<Io>,
    me: Router,
    other: Router,
}

const START: Mono = Mono(1_000_000_000);

impl Pair {
    fn new(lanes: Lanes) -> Pair {
        let world = World::new(1, Faults::none());
        let process = world.start_process();
        let ios: Vec<Io> = (0..2).map(|_| Io::Sim(Box::new(world.io(process, 1 << 20)))).collect();
        let mut links = links(&ios.iter().map(Io::waker).collect::<Vec<_>>(), lanes).into_iter();
        let mut router = |id| Router::new(id, links.next().expect("one for each"));
        let (me, other) = (router(ME), router(OTHER));
        Pair { ios, me, other }
    }

    fn route(&mut self, message: Message<'static>) -> bool {
        self.me.route(message, owner_of(2), START).is_none()
    }

    /// What has arrived at the other shard.
    fn arrived(&mut self) -> Vec<Letter> {
        self.me.ring(&mut self.ios[0]);
        self.other.receive();
        self.other.take_arrived().into_iter().map(|(_, letter)| letter).collect()
    }

    fn asked(&mut self) -> Vec<Ticket> {
        let ask = |letter| match letter {
            Letter::Ask(parcel) => Some(parcel.ticket()),
            _ => None,
        };
        self.arrived().into_iter().filter_map(ask).collect()
    }

    /// The other shard answers; what a connection here may have now.
    fn answer(&mut self, ticket: Ticket, body: ReplyBody) -> Vec<Reply> {
        let reply = Reply { ticket, body, stamps: Stamps::default() };
        assert!(self.other.settle(reply).is_none(), "not a request of its own");
        self.answers()
    }

    fn answers(&mut self) -> Vec<Reply> {
        self.other.ring(&mut self.ios[1]);
        self.me.receive();
        let mut answers = Vec::new();
        for (from, letter) in self.me.take_arrived() {
            match letter {
                Letter::Reply(reply) => answers.extend(self.me.answered(from, *reply)),
                Letter::News(reply) => answers.extend(self.me.news(from, *reply)),
                Letter::Waits => self.me.credit(from),
                _ => panic!("only replies are on their way"),
            }
        }
        answers
    }
}

fn lanes(credits: usize) -> Lanes {
    Lanes { credits, bytes_max: usize::MAX, planted: None }
}

fn known(offset: i64) -> ReplyBody {
    ReplyBody::ListOffsets(vec![at(offset)])
}

#[test]
fn without_a_credit_a_request_waits_and_its_connection_with_it() {
    let mut pair = Pair::new(lanes(1));
    for conn in [7, 8] {
        assert!(pair.route(questions(ticket(conn, 0), &[1])), "it crosses");
    }
    assert_eq!((pair.me.holds_back(7), pair.me.holds_back(8)), (false, true));
    assert_eq!(pair.asked(), [ticket(7, 0)]);
    let answers = pair.answer(ticket(7, 0), known(3));
    assert_eq!(answers.into_iter().map(|reply| offsets(reply.body)).collect::<Vec<_>>(), [[3]]);
    assert!(!pair.me.holds_back(8));
    assert_eq!(pair.asked(), [ticket(8, 0)]);
    let hops = pair.me.hops();
    assert_eq!((hops.sent_total, hops.held_back_total, pair.me.in_flight()), (2, 1, 1));
}

fn stored() -> ReplyBody {
    ReplyBody::Produce([ProduceOutcome::refused(Refused::UnknownServerError, None)].into_iter().collect())
}

// Record bytes on their way to a slow owner were in nobody's budget: 256 requests of 1 MiB for each pair of shards.
#[test]
fn records_wait_while_too_many_bytes_of_others_are_on_their_way() {
    let mut pair = Pair::new(Lanes { bytes_max: 20, ..lanes(9) });
    for conn in 1..=4 {
        assert!(pair.route(produce(ticket(conn, 0), &[1])), "7 bytes each");
    }
    let held_back = |pair: &Pair| [1, 2, 3, 4, 5].map(|conn| pair.me.holds_back(conn));
    assert_eq!(held_back(&pair), [false, false, true, true, false]);
    pair.route(questions(ticket(5, 0), &[1]));
    assert_eq!(pair.asked(), [ticket(1, 0), ticket(2, 0), ticket(5, 0)], "what brings no records goes past");
    assert_eq!(pair.answer(ticket(2, 0), stored()).len(), 1);
    assert_eq!((pair.asked(), held_back(&pair)), (vec![ticket(3, 0)], [false, false, false, true, false]));
    assert_eq!(pair.answer(ticket(5, 0), known(0)).len(), 1);
    assert_eq!(pair.asked(), [], "an answer without records gives no bytes back");
}

#[test]
fn a_request_larger_than_the_bytes_of_a_lane_passes_alone_and_is_not_overtaken() {
    let mut pair = Pair::new(Lanes { bytes_max: 10, ..lanes(9) });
    pair.route(produce(ticket(1, 0), &[1]));
    pair.route(produce(ticket(2, 0), &[1, 3, 5]));
    pair.route(produce(ticket(3, 0), &[1]));
    assert_eq!(pair.asked(), [ticket(1, 0)]);
    pair.me.forget(1, 1);
    assert!(pair.answer(ticket(1, 0), stored()).is_empty(), "nobody wants it, and its bytes come back");
    assert_eq!(pair.asked(), [ticket(2, 0)]);
    assert_eq!(pair.me.expire(START.plus_ms(100_000)).len(), 2);
    assert!(!pair.me.holds_back(3), "what waited is withdrawn");
    assert!(pair.answer(ticket(2, 0), stored()).is_empty());
    pair.route(produce(ticket(4, 0), &[1]));
    assert_eq!(pair.asked(), [ticket(4, 0)]);
}

// A request without records waited for a credit behind records that wait for bytes.
#[test]
fn a_returned_credit_goes_to_who_can_use_it() {
    let mut pair = Pair::new(Lanes { bytes_max: 7, ..lanes(2) });
    pair.route(produce(ticket(1, 0), &[1]));
    pair.route(questions(ticket(2, 0), &[1]));
    pair.route(produce(ticket(3, 0), &[1]));
    pair.route(questions(ticket(4, 0), &[1]));
    assert_eq!(pair.asked(), [ticket(1, 0), ticket(2, 0)]);
    pair.answer(ticket(2, 0), known(0));
    assert_eq!(pair.asked(), [ticket(4, 0)], "the records of 3 wait for those of 1");
    pair.answer(ticket(1, 0), stored());
    assert_eq!(pair.asked(), [ticket(3, 0)]);
}

#[test]
fn a_connection_that_goes_takes_what_waits_with_it() {
    let mut pair = Pair::new(lanes(1));
    for conn in [7, 8, 9] {
        pair.route(questions(ticket(conn, 0), &[1]));
    }
    pair.me.forget(8, 1);
    assert!(!pair.me.holds_back(8));
    assert_eq!(pair.asked(), [ticket(7, 0)]);
    assert_eq!(pair.answer(ticket(7, 0), known(0)).len(), 1);
    assert_eq!(pair.asked(), [ticket(9, 0)], "nobody asks for a connection that is gone");
}

#[test]
fn a_connection_that_goes_gets_no_answer_and_costs_no_credit() {
    let mut pair = Pair::new(lanes(1));
    pair.route(questions(ticket(7, 0), &[1]));
    assert_eq!(pair.asked(), [ticket(7, 0)]);
    pair.me.forget(7, 1);
    assert!(pair.answer(ticket(7, 0), known(0)).is_empty());
    pair.route(questions(ticket(7, 1), &[1]));
    assert_eq!(pair.asked(), [ticket(7, 1)], "the credit came back");
}

#[test]
fn a_reply_after_its_time_only_returns_the_credit() {
    let mut pair = Pair::new(lanes(1));
    pair.route(questions(ticket(7, 0), &[1]));
    assert_eq!(pair.asked(), [ticket(7, 0)]);
    let late = pair.me.expire(START.plus_ms(100_000));
    assert_eq!(late.len(), 1);
    assert_eq!((pair.me.hops().late_total, pair.me.in_flight()), (1, 0));
    assert!(pair.answer(ticket(7, 0), known(0)).is_empty(), "it was answered before");
    pair.route(questions(ticket(7, 1), &[1]));
    assert_eq!(pair.asked(), [ticket(7, 1)]);
}

/// Its connection was told that it is over: it is not carried out later, and the connection goes on.
#[test]
fn a_request_whose_time_is_over_before_it_was_sent_is_never_sent() {
    let mut pair = Pair::new(lanes(1));
    pair.route(questions(ticket(7, 0), &[1]));
    pair.route(produce(ticket(8, 0), &[1]));
    assert!(pair.me.holds_back(8));
    assert_eq!(pair.me.expire(START.plus_ms(100_000)).len(), 2);
    assert!(!pair.me.holds_back(8), "the connection may go on");
    assert_eq!(pair.asked(), [ticket(7, 0)]);
    assert!(pair.answer(ticket(7, 0), known(0)).is_empty());
    assert_eq!(pair.asked(), []);
}

#[test]
fn news_of_one_owner_hurry_the_other() {
    let mut pair = Pair::new(lanes(4));
    let own = pair.me.route(fetch(ticket(7, 0), &[0, 1], 1, 100), owner_of(2), START);
    let Some(Message::Fetch(own)) = own else { panic!("a share of its own") };
    assert_eq!(own.parts.len(), 1);
    let body = ReplyBody::Fetch([records(10)].into_iter().collect());
    let reply = Reply { ticket: ticket(7, 0), body, stamps: Stamps::default() };
    assert!(pair.me.settle(reply).is_none(), "the other owner has not answered");
    let letters = pair.arrived();
    assert!(matches!(&letters[..], [Letter::Ask(_), Letter::Hurry(origin)] if origin.conn == 7));
    let answers = pair.answer(ticket(7, 0), ReplyBody::Fetch([records(0)].into_iter().collect()));
    let answers: Vec<_> = answers.into_iter().map(|reply| fetched(reply.body)).collect();
    assert_eq!(answers, [[(None, 10), (None, 0)]]);
}

#[test]
fn a_request_that_still_waits_is_hurried_where_it_is() {
    let mut pair = Pair::new(lanes(1));
    pair.route(questions(ticket(6, 0), &[1]));
    pair.route(fetch(ticket(7, 0), &[1], 1, 100));
    pair.me.hurry(7, 1);
    assert_eq!(pair.asked(), [ticket(6, 0)], "and nothing overtakes it");
    pair.answer(ticket(6, 0), known(0));
    let letters = pair.arrived();
    let [Letter::Ask(parcel)] = &letters[..] else { panic!("one request") };
    assert!(matches!(&**parcel, Parcel::Fetch(fetch) if fetch.at_once));
}

// With as many idle consumers as credits nothing else crossed until one of their polls ended.
#[test]
fn polls_that_wait_keep_no_credit() {
    let mut pair = Pair::new(lanes(1));
    let news = || ReplyBody::Fetch([records(10)].into_iter().collect());
    for conn in 0..100 {
        pair.route(fetch(ticket(conn, 0), &[1], 1, 100));
        assert_eq!(pair.asked(), [ticket(conn, 0)]);
        pair.other.wait_for_news(ticket(conn, 0));
        assert!(pair.answers().is_empty(), "the poll waits");
        assert!(!pair.me.holds_back(conn));
    }
    assert_eq!(pair.me.in_flight(), 100);
    pair.route(questions(ticket(100, 0), &[1]));
    assert_eq!(pair.asked(), [ticket(100, 0)]);
    // All at once: more news than the lane has room for, and the answer that has a place of its own.
    for conn in 0..100 {
        let reply = Reply { ticket: ticket(conn, 0), body: news(), stamps: Stamps::default() };
        assert!(pair.other.settle(reply).is_none());
    }
    let mut answered = pair.answer(ticket(100, 0), known(3));
    assert_eq!(answered[0].ticket, ticket(100, 0));
    assert!(answered.len() < 100 && pair.other.waits_for_room());
    while pair.other.waits_for_room() {
        answered.extend(pair.answers());
    }
    assert_eq!((answered.len(), pair.me.in_flight()), (101, 0));
    pair.route(questions(ticket(7, 1), &[1]));
    pair.route(questions(ticket(8, 1), &[1]));
    assert_eq!(
        (pair.asked(), pair.me.holds_back(8)),
        (vec![ticket(7, 1)], true),
        "there is still one credit"
    );
}

#[test]
fn few_polls_that_wait_cost_no_letter_more() {
    let mut pair = Pair::new(lanes(8));
    for conn in 0..3 {
        pair.route(fetch(ticket(conn, 0), &[1], 1, 100));
        pair.other.wait_for_news(ticket(conn, 0));
    }
    pair.me.receive();
    assert!(matches!(pair.me.take_arrived()[..], [(OTHER, Letter::Waits)]), "two of eight keep theirs");
    pair.asked();
    let news = || ReplyBody::Fetch([records(10)].into_iter().collect());
    for conn in 0..3 {
        let reply = Reply { ticket: ticket(conn, 0), body: news(), stamps: Stamps::default() };
        assert!(pair.other.settle(reply).is_none());
    }
    pair.other.ring(&mut pair.ios[1]);
    pair.me.receive();
    let arrived = pair.me.take_arrived();
    let kinds = arrived.iter().map(|(_, letter)| matches!(letter, Letter::News(_)));
    assert_eq!(kinds.collect::<Vec<_>>(), [false, false, true]);
}

// An answer to a poll that nobody wants any more gave its credit back a second time.
#[test]
fn news_for_a_connection_that_is_gone_go_to_nobody() {
    let mut pair = Pair::new(lanes(1));
    pair.route(fetch(ticket(7, 0), &[1], 1, 100));
    assert_eq!(pair.asked(), [ticket(7, 0)]);
    pair.other.wait_for_news(ticket(7, 0));
    pair.me.forget(7, 1);
    assert!(matches!(pair.arrived()[..], [Letter::Hurry(_)]));
    assert!(pair.answer(ticket(7, 0), ReplyBody::Fetch([records(0)].into_iter().collect())).is_empty());
    pair.route(questions(ticket(7, 1), &[1]));
    pair.route(questions(ticket(8, 1), &[1]));
    assert_eq!((pair.asked(), pair.me.holds_back(8)), (vec![ticket(7, 1)], true));
}

// Connections that moved and hurries left only while fewer than 16 letters lay in the lane.
#[test]
fn extras_leave_beside_a_lane_full_of_requests() {
    let mut pair = Pair::new(lanes(64));
    for conn in 0..64 {
        pair.route(fetch(ticket(conn, 0), &[1], 1, 100));
    }
    (0..64).for_each(|conn| pair.me.hurry(conn, 1));
    let hurries = |letters: Vec<Letter>| letters.iter().filter(|l| matches!(l, Letter::Hurry(_))).count();
    assert_eq!((hurries(pair.arrived()), pair.me.waits_for_room()), (64, false));
}

#[test]
fn large_frames_for_the_controller_count_as_records_do() {
    let mut pair = Pair::new(Lanes { bytes_max: 100_000, ..lanes(9) });
    for conn in 0..4 {
        pair.me.send_control(OTHER, ticket(conn, 0), &vec![0; 60_000], START);
    }
    pair.me.send_control(OTHER, ticket(4, 0), &[0; 100], START);
    let held_back = [0, 1, 2, 3, 4].map(|conn| pair.me.holds_back(conn));
    assert_eq!(held_back, [false, true, true, true, false]);
    assert_eq!(pair.answer(ticket(0, 0), ReplyBody::Frame(None)).len(), 1);
    assert!(!pair.me.holds_back(1) && pair.me.holds_back(2));
}

/// Both directions full of requests: the replies to all of them still fit.
#[test]
fn replies_have_room_in_full_lanes() {
    let mut pair = Pair::new(lanes(2));
    for conn in 0..9 {
        pair.route(questions(ticket(conn, 0), &[1]));
        let theirs = Ticket { shard: OTHER, ..ticket(conn, 0) };
        assert!(pair.other.route(questions(theirs, &[0]), owner_of(2), START).is_none());
        pair.me.hurry(conn, 1);
    }
    for _ in 0..20 {
        pair.me.ring(&mut pair.ios[0]);
        pair.other.ring(&mut pair.ios[1]);
        pair.me.receive();
        pair.other.receive();
        let (mine, theirs) = (pair.me.take_arrived(), pair.other.take_arrived());
        for (router, arrived) in [(&mut pair.me, mine), (&mut pair.other, theirs)] {
            for (from, letter) in arrived {
                match letter {
                    Letter::Ask(parcel) => {
                        let reply =
                            Reply { ticket: parcel.ticket(), body: known(1), stamps: Stamps::default() };
                        assert!(router.settle(reply).is_none());
                    }
                    Letter::Reply(reply) => assert!(router.answered(from, *reply).is_some()),
                    _ => {}
                }
            }
        }
    }
    assert_eq!((pair.me.in_flight(), pair.other.in_flight()), (0, 0));
}

#[test]
#[should_panic(expected = "a lane has room")]
fn without_room_for_replies_the_lane_overflows() {
    let mut pair = Pair::new(Lanes { planted: Some(Planted::NoRoomForReplies), ..lanes(1) });
    pair.route(questions(ticket(7, 0), &[1]));
    let theirs = Ticket { shard: OTHER, ..ticket(7, 0) };
    assert!(pair.other.route(questions(theirs, &[0]), owner_of(2), START).is_none());
    assert_eq!(pair.asked(), [ticket(7, 0)]);
    pair.answer(ticket(7, 0), known(0));
}
