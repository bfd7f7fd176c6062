//! CreatePartitions (key 37), versions 0-3: more partitions for topics, one result each.
//!
//! `count` is the number afterwards; it must grow. Answers when the new partitions are durable. `timeout_ms` is ignored.

use super::{Handled, Metadata, Request, error_code, frame};
use crate::controller::topics::MorePartitions;
use crate::wire::error::WireError;
use crate::wire::msg::{
    self, CreatePartitionsRequest, CreatePartitionsResponse, StrBytes, create_partitions_request,
    create_partitions_response,
};

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let Some(controller) = &mut meta.controller else { return Ok(Handled::Forward) };
    let (header, body) = msg::decode_request::<CreatePartitionsRequest>(request.frame)?;
    let topics: Vec<MorePartitions> = body.topics.iter().map(more).collect();
    let parked = controller.create_partitions(&topics, body.validate_only);
    let mut response = CreatePartitionsResponse::default();
    for (name, result) in parked.reply {
        let mut answer = create_partitions_response::CreatePartitionsTopicResult::default();
        answer.name = name.into();
        if let Err(refusal) = result {
            answer.error_code = error_code(Some(refusal.error));
            answer.error_message = refusal.message.map(StrBytes::from);
        }
        response.results.push(answer);
    }
    let bytes = frame::<CreatePartitionsRequest>(header.correlation_id, header.version, &response);
    Ok(meta.reply_after(request.ticket, parked.after, bytes))
}

fn more(asked: &create_partitions_request::CreatePartitionsTopic) -> MorePartitions {
    let brokers = |of: &create_partitions_request::CreatePartitionsAssignment| of.broker_ids.clone();
    MorePartitions {
        name: asked.name.to_string(),
        count: asked.count,
        assignments: asked.assignments.as_ref().map(|assigned| assigned.iter().map(brokers).collect()),
    }
}
