//! DeleteTopics (key 20), versions 1-6: by name, from version 6 on also by id.
//!
//! Answers when the deletion is durable; the records go behind that. Where `delete.topic.enable` is false: TOPIC_DELETION_DISABLED, and
//! INVALID_REQUEST below version 3, which does not know that number.
//!
//! Differs from Apache Kafka: answers come in the order of the request.

use super::{Handled, Metadata, Request, error_code, frame};
use crate::base::error::Refused;
use crate::base::ids::Uuid;
use crate::controller::topics::TopicRef;
use crate::wire::error::WireError;
use crate::wire::msg::{self, DeleteTopicsRequest, DeleteTopicsResponse, StrBytes, delete_topics_response};

/// First version that names topics in structures, with ids.
const IDS_FROM: i16 = 6;
/// First version that knows TOPIC_DELETION_DISABLED.
const DISABLED_FROM: i16 = 3;

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let Some(controller) = &mut meta.controller else { return Ok(Handled::Forward) };
    let (header, body) = msg::decode_request::<DeleteTopicsRequest>(request.frame)?;
    let refs: Vec<TopicRef> = if header.version >= IDS_FROM {
        let asked = body.topics.iter();
        asked
            .map(|topic| TopicRef {
                name: topic.name.as_ref().map(|name| name.to_string()),
                id: topic.topic_id.into(),
            })
            .collect()
    } else {
        body.topic_names
            .iter()
            .map(|name| TopicRef { name: Some(name.to_string()), id: Uuid::ZERO })
            .collect()
    };
    let parked = controller.delete_topics(&refs);
    let mut response = DeleteTopicsResponse::default();
    for deleted in parked.reply {
        let mut answer = delete_topics_response::DeletableTopicResult::default();
        answer.name = deleted.name.map(StrBytes::from);
        answer.topic_id = deleted.id.into();
        if let Some(refusal) = deleted.refused {
            let unknown_number =
                refusal.error == Refused::TopicDeletionDisabled && header.version < DISABLED_FROM;
            let error = if unknown_number { Refused::InvalidRequest } else { refusal.error };
            answer.error_code = error_code(Some(error));
            answer.error_message = refusal.message.map(StrBytes::from);
        }
        response.responses.push(answer);
    }
    let bytes = frame::<DeleteTopicsRequest>(header.correlation_id, header.version, &response);
    Ok(meta.reply_after(request.ticket, parked.after, bytes))
}
