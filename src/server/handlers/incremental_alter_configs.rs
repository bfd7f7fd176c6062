//! IncrementalAlterConfigs (key 44), versions 0-1: sets, deletes, appends to and subtracts from configurations of topics, and of the broker
//! where they may change while it runs. Each resource stands by itself.
//!
//! Answers when the change is durable; it is in effect from then on. See `controller/configs.rs` for what differs from Apache Kafka.

use super::{Handled, Metadata, Request, error_code, frame};
use crate::controller::configs::{Alter, AlterResource};
use crate::wire::error::WireError;
use crate::wire::msg::{
    self, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, StrBytes,
    incremental_alter_configs_request, incremental_alter_configs_response,
};

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let Some(controller) = &mut meta.controller else { return Ok(Handled::Forward) };
    let (header, body) = msg::decode_request::<IncrementalAlterConfigsRequest>(request.frame)?;
    let resources: Vec<AlterResource> = body.resources.iter().map(resource).collect();
    let parked = controller.alter_configs(&resources, body.validate_only);
    let mut response = IncrementalAlterConfigsResponse::default();
    for (asked, result) in body.resources.iter().zip(parked.reply) {
        let mut answer = incremental_alter_configs_response::AlterConfigsResourceResponse::default();
        answer.resource_type = asked.resource_type;
        answer.resource_name = asked.resource_name.clone();
        // The schema's default is an empty text; Kafka sends null.
        answer.error_message = None;
        if let Err(refusal) = result {
            answer.error_code = error_code(Some(refusal.error));
            answer.error_message = refusal.message.map(StrBytes::from);
        }
        response.responses.push(answer);
    }
    let bytes = frame::<IncrementalAlterConfigsRequest>(header.correlation_id, header.version, &response);
    Ok(meta.reply_after(request.ticket, parked.after, bytes))
}

fn resource(asked: &incremental_alter_configs_request::AlterConfigsResource) -> AlterResource {
    let alter = |of: &incremental_alter_configs_request::AlterableConfig| Alter {
        key: of.name.to_string(),
        op: of.config_operation,
        value: of.value.as_ref().map(|value| value.to_string()),
    };
    AlterResource {
        kind: asked.resource_type,
        name: asked.resource_name.to_string(),
        alters: asked.configs.iter().map(alter).collect(),
    }
}
