//! Metadata (key 3), versions 0-13: brokers, topics and the leaders of their partitions.
//!
//! No topics (version 0: an empty list, later null) means all of them; an empty list from version 1 on means none. Topics are looked up by id as
//! soon as one id is given, and names are ignored then. An unknown name is created where broker and request allow that; the answer
//! is UNKNOWN_TOPIC_OR_PARTITION all the same, and the client asks again. A bad name is INVALID_TOPIC_EXCEPTION, an unknown
//! id UNKNOWN_TOPIC_ID. A topic that is asked for twice is answered once.
//!
//! Differs from Apache Kafka: topics come in the order of the request, all of them by name, partitions by index; Kafka's order is that of a hash
//! map. Internal topics are not created by asking for them.

use std::collections::BTreeSet;

use super::{Handled, Metadata, Request, respond};
use crate::base::error::Refused;
use crate::base::ids::{PartitionIndex, PartitionKey, Uuid};
use crate::controller::image::{Topic, is_internal};
use crate::controller::topics::{PARTITIONS_PER_REQUEST_MAX, check_name};
use crate::wire::error::{WireError, code};
use crate::wire::msg::{
    self, MetadataRequest, MetadataResponse, StrBytes, metadata_request, metadata_response,
};

/// Kafka's operations on a topic, all of them, as bits: read, write, create, delete, alter, describe, describe and alter configs.
const TOPIC_OPERATIONS: i32 = 3576;
/// The same on the cluster: create, alter, describe, cluster action, describe and alter configs, idempotent write.
pub const CLUSTER_OPERATIONS: i32 = 8096;

/// First version whose request says whether topics may be created.
const ALLOW_AUTO_CREATE_FROM: i16 = 4;
/// First version whose response may carry a topic without a name.
const NULL_NAME_FROM: i16 = 12;

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<MetadataRequest>(request.frame)?;
    let version = header.version;
    let may_create = version < ALLOW_AUTO_CREATE_FROM || body.allow_auto_topic_creation;
    let named = body.topics.as_deref().unwrap_or_default();
    if may_create && meta.controller.is_none() && named.iter().any(|topic| is_to_create(meta, topic)) {
        return Ok(Handled::Forward);
    }
    let mut response = MetadataResponse::default();
    for broker in &meta.image.brokers {
        let mut answer = metadata_response::MetadataResponseBroker::default();
        answer.node_id = broker.id.0;
        answer.host = broker.host.as_str().into();
        answer.port = i32::from(broker.port);
        answer.rack = broker.rack.as_deref().map(StrBytes::from);
        response.brokers.push(answer);
    }
    response.cluster_id = Some(meta.image.cluster_id.as_str().into());
    response.controller_id = meta.image.controller().0;
    let all = match &body.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    if all {
        let topics = meta.image.topics().map(|topic| known(meta, topic));
        response.topics = topics.collect();
    } else {
        response.topics = asked(meta, request.header.version, named, may_create);
    }
    if body.include_topic_authorized_operations {
        response.topics.iter_mut().for_each(|topic| topic.topic_authorized_operations = TOPIC_OPERATIONS);
    }
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(Handled::Encoded(respond::<MetadataRequest>(header.correlation_id, version, &response)))
}

fn asked(
    meta: &mut Metadata,
    version: i16,
    topics: &[metadata_request::MetadataRequestTopic],
    may_create: bool,
) -> Vec<metadata_response::MetadataResponseTopic> {
    let mut answers = Vec::new();
    let ids: Vec<Uuid> =
        topics.iter().map(|topic| topic.topic_id.into()).filter(|id: &Uuid| !id.is_zero()).collect();
    if !ids.is_empty() {
        let mut seen = BTreeSet::new();
        for id in ids.into_iter().filter(|id| seen.insert(*id)) {
            answers.push(match meta.image.topic_by_id(id) {
                Some(topic) => known(meta, topic),
                None => {
                    let name = (version < NULL_NAME_FROM).then(StrBytes::default);
                    refused(name, id, Refused::UnknownTopicId)
                }
            });
        }
        return answers;
    }
    let (mut seen, mut to_create) = (BTreeSet::new(), Vec::new());
    for name in topics.iter().filter_map(|topic| topic.name.as_ref()) {
        let text: &str = name;
        if !seen.insert(text) {
            continue;
        }
        answers.push(match meta.image.topic(text) {
            Some(topic) => known(meta, topic),
            None => {
                let error = match check_name(text) {
                    Err(refusal) => refusal.error,
                    Ok(()) => Refused::UnknownTopicOrPartition,
                };
                if error == Refused::UnknownTopicOrPartition && may_create && !is_internal(text) {
                    to_create.push(text);
                }
                refused(Some(name.clone()), Uuid::ZERO, error)
            }
        });
    }
    create(meta, &to_create);
    answers
}

/// A topic that asking for it may create.
fn is_to_create(meta: &Metadata, topic: &metadata_request::MetadataRequestTopic) -> bool {
    let by_name = Uuid::from(topic.topic_id).is_zero();
    let name = topic.name.as_ref().filter(|_| by_name);
    name.is_some_and(|name| {
        meta.image.topic(name).is_none() && check_name(name).is_ok() && !is_internal(name)
    }) && meta.image.config.auto_create_topics
}

/// Creates all of them or, where together they are more than one request may, none, as Kafka does. The answer does not wait for it: the
/// client learns from the next one.
fn create(meta: &mut Metadata, names: &[&str]) {
    let Some(controller) = &mut meta.controller else { return };
    if names.is_empty() || !controller.staged().config.auto_create_topics {
        return;
    }
    if names.len() > PARTITIONS_PER_REQUEST_MAX as usize {
        return tracing::debug!(
            topics = names.len(),
            "too many unknown topics in one request: none is created"
        );
    }
    for (topic, result) in controller.auto_create(names, || meta.ids.draw()).reply {
        if let Err(refusal) = result {
            tracing::debug!(topic, error = ?refusal.error, "topic not created on request");
        }
    }
}

fn known(meta: &Metadata, topic: &Topic) -> metadata_response::MetadataResponseTopic {
    let mut answer = metadata_response::MetadataResponseTopic::default();
    answer.name = Some(topic.name.as_str().into());
    answer.topic_id = topic.id.into();
    answer.is_internal = topic.is_internal();
    for (index, partition) in topic.partitions.iter().enumerate() {
        let index = PartitionIndex(index as i32);
        let key = PartitionKey { topic: topic.id, partition: index };
        let mut of = metadata_response::MetadataResponsePartition::default();
        of.partition_index = index.0;
        of.leader_id = meta.image.leader(partition).0;
        of.leader_epoch = meta.leader_epoch(&key).0.max(0);
        of.replica_nodes = meta.image.replicas(partition).iter().map(|broker| broker.0).collect();
        of.isr_nodes = meta.image.in_sync(partition).iter().map(|broker| broker.0).collect();
        answer.partitions.push(of);
    }
    answer
}

fn refused(name: Option<StrBytes>, id: Uuid, error: Refused) -> metadata_response::MetadataResponseTopic {
    let mut answer = metadata_response::MetadataResponseTopic::default();
    answer.error_code = code(error);
    answer.name = name;
    answer.topic_id = id.into();
    answer
}
