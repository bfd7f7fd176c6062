//! DeleteRecords (key 21), versions 0-2: moves the log start; -1 means the high watermark.
//!
//! Answers when the new log start is on disk. Beyond the high watermark: OFFSET_OUT_OF_RANGE. On a topic whose `cleanup.policy` has no
//! `delete`: POLICY_VIOLATION.

use std::collections::BTreeSet;

use super::{Handled, Metadata, Request, error_code, respond};
use crate::base::error::Refused;
use crate::router::message::{DeleteRecords, DeleteRecordsOutcome, DeleteRecordsPart, Message};
use crate::server::pending::{Encoded, Pending};
use crate::wire::error::WireError;
use crate::wire::msg::{self, DeleteRecordsRequest, DeleteRecordsResponse, delete_records_response};

pub struct Waiting {
    version: i16,
    correlation_id: i32,
    request: DeleteRecordsRequest,
    refused: Vec<Option<Refused>>,
}

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<DeleteRecordsRequest>(request.frame)?;
    let (version, correlation_id) = (header.version, header.correlation_id);
    let mut refused = Vec::new();
    let mut parts = Vec::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            match meta.partition(&topic.name, partition.partition_index) {
                Err(error) => refused.push(Some(error)),
                Ok(key) => {
                    refused.push(None);
                    parts.push(DeleteRecordsPart { key, offset: partition.offset });
                }
            }
        }
    }
    let delete = DeleteRecords { ticket: request.ticket, timeout_ms: body.timeout_ms, parts };
    request.ask(&meta.image, Message::DeleteRecords(delete));
    Ok(Handled::Wait(Pending::DeleteRecords(Waiting { version, correlation_id, request: body, refused })))
}

impl Waiting {
    pub fn parts(&self) -> usize {
        self.refused.len()
    }

    pub fn answer(self, outcomes: &[DeleteRecordsOutcome]) -> Encoded {
        let mut outcomes = outcomes.iter();
        let mut refused = self.refused.iter();
        let mut response = DeleteRecordsResponse::default();
        let mut answered = BTreeSet::new();
        for asked in &self.request.topics {
            let mut topic = delete_records_response::DeleteRecordsTopicResult::default();
            topic.name = asked.name.clone();
            for partition in &asked.partitions {
                let none = |error| DeleteRecordsOutcome { error: Some(error), low_watermark: -1 };
                let outcome = match refused.next() {
                    Some(Some(error)) => none(*error),
                    _ => outcomes.next().copied().unwrap_or(none(Refused::UnknownServerError)),
                };
                if !answered.insert((asked.name.to_string(), partition.partition_index)) {
                    continue;
                }
                let mut answer = delete_records_response::DeleteRecordsPartitionResult::default();
                answer.partition_index = partition.partition_index;
                answer.error_code = error_code(outcome.error);
                answer.low_watermark = outcome.low_watermark;
                topic.partitions.push(answer);
            }
            response.topics.push(topic);
        }
        respond::<DeleteRecordsRequest>(self.correlation_id, self.version, &response)
    }
}
