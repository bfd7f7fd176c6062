//! One request whose partitions live on several shards, or on one other: what each owner answered, until all have.
//!
//! Each owner's share is a leg. The outcomes of a leg go to the places that its partitions had in the request, so that the merged
//! answer looks as if one shard had given it.

use super::message::{
    DeleteRecordsOutcome, EpochEndOutcome, FetchOutcome, OffsetOutcome, ProduceOutcome, Reply, ReplyBody,
    Ticket,
};
use crate::base::error::Refused;
use crate::base::ids::{LeaderEpoch, ShardId};
use crate::base::metrics::Stamps;
use crate::io::Mono;

/// The share of one owner.
pub struct Leg {
    pub owner: ShardId,
    /// Places of its partitions in the request; empty if it has all of them.
    pub places: Vec<u32>,
    pub done: bool,
}

/// Answers so far, by place.
pub enum Answers {
    /// One owner has everything: its answer is the answer.
    Whole,
    Produce(Vec<Option<ProduceOutcome>>),
    Fetch(Vec<Option<FetchOutcome>>, FetchLimits),
    ListOffsets(Vec<Option<OffsetOutcome>>),
    EpochEnds(Vec<Option<EpochEndOutcome>>),
    DeleteRecords(Vec<Option<DeleteRecordsOutcome>>),
}

/// Most record bytes of a fetch: in all, and of the partition at each place.
pub struct FetchLimits {
    pub max_bytes: i32,
    pub part_max: Vec<i32>,
}

/// What to answer if an owner does not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Produce,
    Fetch,
    ListOffsets,
    EpochEnds,
    DeleteRecords,
    Control,
}

pub struct Gather {
    pub ticket: Ticket,
    pub kind: Kind,
    /// Partitions asked for.
    pub parts: usize,
    pub legs: Vec<Leg>,
    pub answers: Answers,
    /// Of the owner that answered last.
    pub stamps: Stamps,
    /// When the request is answered without those who have not.
    pub deadline: Mono,
}

/// What a leg's answer leads to.
#[expect(clippy::large_enum_variant, reason = "looked at where it is returned, never kept")]
pub enum Progress {
    /// All have answered.
    Complete(Reply),
    /// A fetch has something to bring: those who still wait for more should answer with what they have.
    Hurry,
    Wait,
}

impl Gather {
    /// Takes the answer of one owner. An answer of another kind than the request is our own bug, and counts as none.
    pub fn take(&mut self, owner: ShardId, body: ReplyBody, stamps: Stamps) -> Progress {
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.owner == owner && !leg.done) else {
            return Progress::Wait;
        };
        leg.done = true;
        self.stamps = stamps;
        let places = std::mem::take(&mut leg.places);
        let mut news = false;
        match (&mut self.answers, body) {
            (Answers::Whole, body) => return Progress::Complete(Reply { ticket: self.ticket, body, stamps }),
            (Answers::Produce(answers), ReplyBody::Produce(outcomes)) => put(answers, &places, outcomes),
            (Answers::Fetch(answers, _), ReplyBody::Fetch(outcomes)) => {
                news = outcomes.iter().any(is_news);
                put(answers, &places, outcomes);
            }
            (Answers::ListOffsets(answers), ReplyBody::ListOffsets(outcomes)) => {
                put(answers, &places, outcomes)
            }
            (Answers::EpochEnds(answers), ReplyBody::EpochEnds(outcomes)) => put(answers, &places, outcomes),
            (Answers::DeleteRecords(answers), ReplyBody::DeleteRecords(outcomes)) => {
                put(answers, &places, outcomes)
            }
            _ => debug_assert!(false, "an answer of another kind than its request"),
        }
        match self.legs.iter().all(|leg| leg.done) {
            true => Progress::Complete(self.finish()),
            false if news => Progress::Hurry,
            false => Progress::Wait,
        }
    }

    /// The answer with what there is; who has not answered timed out.
    pub fn finish(&mut self) -> Reply {
        let answers = std::mem::replace(&mut self.answers, Answers::Whole);
        let late = Refused::RequestTimedOut;
        let body = match answers {
            Answers::Whole => self.nothing(late),
            Answers::Produce(answers) => {
                let answers = filled(answers, || ProduceOutcome::refused(late, None));
                ReplyBody::Produce(answers.into_iter().collect())
            }
            Answers::Fetch(answers, limits) => {
                // Clients look for the partition elsewhere and come back; a time-out would be a fatal surprise to some.
                let mut answers = filled(answers, || FetchOutcome::refused(Refused::NotLeaderOrFollower));
                trim(&mut answers, &limits);
                ReplyBody::Fetch(answers.into_iter().collect())
            }
            Answers::ListOffsets(answers) => {
                ReplyBody::ListOffsets(filled(answers, || OffsetOutcome::refused(late)))
            }
            Answers::EpochEnds(answers) => ReplyBody::EpochEnds(filled(answers, || epoch_refused(late))),
            Answers::DeleteRecords(answers) => {
                ReplyBody::DeleteRecords(filled(answers, || delete_refused(late)))
            }
        };
        Reply { ticket: self.ticket, body, stamps: self.stamps }
    }

    /// The answer of an only owner who gave none.
    fn nothing(&self, late: Refused) -> ReplyBody {
        let parts = self.parts;
        match self.kind {
            Kind::Produce => {
                ReplyBody::Produce((0..parts).map(|_| ProduceOutcome::refused(late, None)).collect())
            }
            Kind::Fetch => {
                let refused = |_| FetchOutcome::refused(Refused::NotLeaderOrFollower);
                ReplyBody::Fetch((0..parts).map(refused).collect())
            }
            Kind::ListOffsets => ReplyBody::ListOffsets(vec![OffsetOutcome::refused(late); parts]),
            Kind::EpochEnds => ReplyBody::EpochEnds(vec![epoch_refused(late); parts]),
            Kind::DeleteRecords => ReplyBody::DeleteRecords(vec![delete_refused(late); parts]),
            Kind::Control => ReplyBody::Frame(None),
        }
    }
}

fn is_news(outcome: &FetchOutcome) -> bool {
    outcome.error.is_some() || outcome.diverging.is_some() || outcome.records.bytes > 0
}

fn put<T>(answers: &mut [Option<T>], places: &[u32], outcomes: impl IntoIterator<Item = T>) {
    for (place, outcome) in places.iter().zip(outcomes) {
        answers[*place as usize] = Some(outcome);
    }
}

fn filled<T>(answers: Vec<Option<T>>, mut none: impl FnMut() -> T) -> Vec<T> {
    answers.into_iter().map(|answer| answer.unwrap_or_else(&mut none)).collect()
}

/// Each owner brings at least one batch over any limit and knows nothing of the others: what is over the limit of the whole answer or
/// of its partition stays out, but for the first records. The client asks for them next.
fn trim(answers: &mut [FetchOutcome], limits: &FetchLimits) {
    let most = limits.max_bytes.max(0) as usize;
    let mut bytes = 0;
    for (answer, part_max) in answers.iter_mut().zip(&limits.part_max) {
        let more = answer.records.bytes;
        if bytes > 0 && (bytes + more > most || more > (*part_max).max(0) as usize) {
            answer.records = Default::default();
        } else {
            bytes += more;
        }
    }
}

fn epoch_refused(error: Refused) -> EpochEndOutcome {
    EpochEndOutcome { error: Some(error), epoch: LeaderEpoch::NONE, end: -1 }
}

fn delete_refused(error: Refused) -> DeleteRecordsOutcome {
    DeleteRecordsOutcome { error: Some(error), low_watermark: -1 }
}
