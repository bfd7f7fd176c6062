//! CreateTopics (key 19), versions 2-7. Checks, numbers and texts are Kafka's: see `controller/topics.rs`.
//!
//! Answers when the topics are durable. -1 for partitions or replication factor asks for the broker's default. From version 5 on the answer
//! lists the new topic's configurations. `timeout_ms` is ignored: there is nothing to wait for but our own disk.
//!
//! Differs from Apache Kafka: answers come in the order of the request.

use super::{Handled, Metadata, Request, error_code, frame};
use crate::config::broker::BrokerConfig;
use crate::config::describe;
use crate::controller::Refusal;
use crate::controller::topics::{Created, NewTopic};
use crate::wire::error::WireError;
use crate::wire::msg::{
    self, CreateTopicsRequest, CreateTopicsResponse, StrBytes, create_topics_request, create_topics_response,
};

/// First version whose answer lists configurations.
const CONFIGS_FROM: i16 = 5;

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let Some(controller) = &mut meta.controller else { return Ok(Handled::Forward) };
    let (header, body) = msg::decode_request::<CreateTopicsRequest>(request.frame)?;
    let topics: Vec<NewTopic> = body.topics.iter().map(new_topic).collect();
    let parked = controller.create_topics(&topics, body.validate_only, || meta.ids.draw());
    let broker = &controller.staged().config;
    let mut response = CreateTopicsResponse::default();
    for (name, result) in parked.reply {
        response.topics.push(answer(&name, result, broker, header.version));
    }
    let bytes = frame::<CreateTopicsRequest>(header.correlation_id, header.version, &response);
    Ok(meta.reply_after(request.ticket, parked.after, bytes))
}

fn new_topic(asked: &create_topics_request::CreatableTopic) -> NewTopic {
    let assigned =
        |of: &create_topics_request::CreatableReplicaAssignment| (of.partition_index, of.broker_ids.clone());
    let config = |of: &create_topics_request::CreatableTopicConfig| {
        (of.name.to_string(), of.value.as_ref().map(|value| value.to_string()))
    };
    NewTopic {
        name: asked.name.to_string(),
        partitions: asked.num_partitions,
        replication_factor: asked.replication_factor,
        assignments: asked.assignments.iter().map(assigned).collect(),
        configs: asked.configs.iter().map(config).collect(),
    }
}

fn answer(
    name: &str,
    result: Result<Created, Refusal>,
    broker: &BrokerConfig,
    version: i16,
) -> create_topics_response::CreatableTopicResult {
    let mut answer = create_topics_response::CreatableTopicResult::default();
    answer.name = name.into();
    // The schema's default is an empty text; Kafka sends null.
    answer.error_message = None;
    answer.configs = Some(Vec::new());
    match result {
        Err(refusal) => {
            answer.error_code = error_code(Some(refusal.error));
            answer.error_message = refusal.message.map(StrBytes::from);
            answer.num_partitions = -1;
            answer.replication_factor = -1;
        }
        Ok(created) => {
            answer.topic_id = created.id.into();
            answer.num_partitions = created.partitions;
            answer.replication_factor = created.replication_factor;
            if version >= CONFIGS_FROM {
                let described = describe::topic(&created.overrides, broker);
                answer.configs = Some(described.iter().map(config).collect());
            }
        }
    }
    answer
}

fn config(described: &describe::Described) -> create_topics_response::CreatableTopicConfigs {
    let mut config = create_topics_response::CreatableTopicConfigs::default();
    config.name = described.name.into();
    config.value = described.value.as_deref().map(StrBytes::from);
    config.read_only = described.read_only;
    config.config_source = described.source;
    config.is_sensitive = described.sensitive;
    config
}
