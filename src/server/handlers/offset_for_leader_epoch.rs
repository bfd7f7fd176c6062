//! OffsetForLeaderEpoch (key 23), versions 2-4: where the largest epoch that is not above the asked one ends.
//!
//! Clients ask it to find out whether their position still lies on the log that they read before (KIP-320).

use super::{Handled, Metadata, Request, error_code, respond};
use crate::base::error::Refused;
use crate::base::ids::LeaderEpoch;
use crate::router::message::{EpochEndOutcome, EpochEndPart, EpochEnds, Message};
use crate::server::pending::{Encoded, Pending};
use crate::wire::error::WireError;
use crate::wire::msg::{
    self, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, offset_for_leader_epoch_response,
};

pub struct Waiting {
    version: i16,
    correlation_id: i32,
    request: OffsetForLeaderEpochRequest,
    refused: Vec<Option<Refused>>,
}

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<OffsetForLeaderEpochRequest>(request.frame)?;
    let (version, correlation_id) = (header.version, header.correlation_id);
    let mut refused = Vec::new();
    let mut parts = Vec::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            match meta.partition(&topic.topic, partition.partition) {
                Err(error) => refused.push(Some(error)),
                Ok(key) => {
                    refused.push(None);
                    parts.push(EpochEndPart {
                        key,
                        current_epoch: LeaderEpoch(partition.current_leader_epoch),
                        epoch: LeaderEpoch(partition.leader_epoch),
                    });
                }
            }
        }
    }
    request.ask(&meta.image, Message::EpochEnds(EpochEnds { ticket: request.ticket, parts }));
    Ok(Handled::Wait(Pending::EpochEnds(Waiting { version, correlation_id, request: body, refused })))
}

impl Waiting {
    pub fn parts(&self) -> usize {
        self.refused.len()
    }

    pub fn answer(self, outcomes: &[EpochEndOutcome]) -> Encoded {
        let mut outcomes = outcomes.iter();
        let mut refused = self.refused.iter();
        let mut response = OffsetForLeaderEpochResponse::default();
        for asked in &self.request.topics {
            let mut topic = offset_for_leader_epoch_response::OffsetForLeaderTopicResult::default();
            topic.topic = asked.topic.clone();
            for partition in &asked.partitions {
                let none = |error| EpochEndOutcome { error: Some(error), epoch: LeaderEpoch::NONE, end: -1 };
                let outcome = match refused.next() {
                    Some(Some(error)) => none(*error),
                    _ => outcomes.next().copied().unwrap_or(none(Refused::UnknownServerError)),
                };
                let mut answer = offset_for_leader_epoch_response::EpochEndOffset::default();
                answer.partition = partition.partition;
                answer.error_code = error_code(outcome.error);
                answer.leader_epoch = outcome.epoch.0;
                answer.end_offset = outcome.end;
                topic.partitions.push(answer);
            }
            response.topics.push(topic);
        }
        respond::<OffsetForLeaderEpochRequest>(self.correlation_id, self.version, &response)
    }
}
