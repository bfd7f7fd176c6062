//! Topics and their settings: the admin requests, each for one topic at a time, with the broker's own words on refusal.

use std::collections::BTreeMap;

use crate::base::ids::{ProducerEpoch, ProducerId};
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::wire::error::codes;
use crate::wire::msg::create_partitions_request::CreatePartitionsTopic;
use crate::wire::msg::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::wire::msg::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use crate::wire::msg::describe_configs_request::DescribeConfigsResource;
use crate::wire::msg::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use crate::wire::msg::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::msg::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    ListOffsetsRequest, StrBytes,
};

/// ListOffsets' names for both ends of a partition.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;

const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;

/// A topic to be created; -1 leaves a count to the broker's defaults.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub replication: i16,
    pub configs: Vec<(String, String)>,
    /// Only say whether it could be created.
    pub validate_only: bool,
}

/// What CreateTopics answered; -1 where the broker did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    pub partitions: i32,
    pub replication: i16,
}

/// One configuration value of a topic or broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    pub value: Option<String>,
    /// Set on the resource itself, not inherited.
    pub own: bool,
    pub source: &'static str,
    pub read_only: bool,
}

/// A change of a configuration: a new value, or back to the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Set { name: String, value: String },
    Delete { name: String },
}

/// An offset that ListOffsets found; -1 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: i64,
    pub timestamp: i64,
}

/// What DescribeCluster says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    pub cluster_id: String,
    pub controller: i32,
    /// (id, host:port)
    pub brokers: Vec<(i32, String)>,
}

impl Cluster {
    pub fn create_topic(&mut self, topic: &NewTopic) -> Result<Created, ClientError> {
        let mut wanted = CreatableTopic::default();
        wanted.name = text(&topic.name);
        wanted.num_partitions = topic.partitions;
        wanted.replication_factor = topic.replication;
        let configs = topic.configs.iter().map(|(name, value)| {
            let mut config = CreatableTopicConfig::default();
            config.name = text(name);
            config.value = Some(text(value));
            config
        });
        wanted.configs = configs.collect();
        let mut request = CreateTopicsRequest::default();
        request.timeout_ms = self.timeout_ms();
        request.validate_only = topic.validate_only;
        request.topics = vec![wanted];
        let what = format!("creating topic {}", topic.name);
        self.retrying(&what, |cluster| {
            let response = cluster.call_controller(&request)?;
            let result = response.topics.first().ok_or_else(|| unanswered(&what))?;
            ClientError::check(result.error_code, what.as_str(), result.error_message.as_deref())?;
            Ok(Created { partitions: result.num_partitions, replication: result.replication_factor })
        })
    }

    pub fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let mut request = DeleteTopicsRequest::default();
        request.topic_names = vec![text(name)];
        request.timeout_ms = self.timeout_ms();
        let what = format!("deleting topic {name}");
        self.retrying(&what, |cluster| {
            let response = cluster.call_controller(&request)?;
            let result = response.responses.first().ok_or_else(|| unanswered(&what))?;
            known(result.error_code, name)?;
            ClientError::check(result.error_code, what.as_str(), result.error_message.as_deref())
        })?;
        self.forget(&ClientError::TopicUnknown { topic: name.to_string() });
        Ok(())
    }

    /// Grows a topic to `count` partitions.
    pub fn create_partitions(&mut self, name: &str, count: i32) -> Result<(), ClientError> {
        let mut wanted = CreatePartitionsTopic::default();
        wanted.name = text(name);
        wanted.count = count;
        wanted.assignments = None;
        let mut request = CreatePartitionsRequest::default();
        request.topics = vec![wanted];
        request.timeout_ms = self.timeout_ms();
        let what = format!("growing topic {name} to {count} partitions");
        self.retrying(&what, |cluster| {
            let response = cluster.call_controller(&request)?;
            let result = response.results.first().ok_or_else(|| unanswered(&what))?;
            known(result.error_code, name)?;
            ClientError::check(result.error_code, what.as_str(), result.error_message.as_deref())
        })?;
        self.forget(&ClientError::TopicUnknown { topic: name.to_string() });
        Ok(())
    }

    /// All configurations of a topic, by name.
    pub fn topic_configs(&mut self, name: &str) -> Result<Vec<Config>, ClientError> {
        self.configs(TOPIC_RESOURCE, name)
    }

    /// All configurations of a broker, by name.
    pub fn broker_configs(&mut self, id: i32) -> Result<Vec<Config>, ClientError> {
        self.configs(BROKER_RESOURCE, &id.to_string())
    }

    fn configs(&mut self, kind: i8, name: &str) -> Result<Vec<Config>, ClientError> {
        let mut resource = DescribeConfigsResource::default();
        resource.resource_type = kind;
        resource.resource_name = text(name);
        resource.configuration_keys = None;
        let mut request = DescribeConfigsRequest::default();
        request.resources = vec![resource];
        let what = format!("describing the configuration of {name}");
        self.retrying(&what, |cluster| {
            let response = cluster.call_any(&request)?;
            let result = response.results.first().ok_or_else(|| unanswered(&what))?;
            known(result.error_code, name)?;
            ClientError::check(result.error_code, what.as_str(), result.error_message.as_deref())?;
            let mut configs: Vec<Config> = result
                .configs
                .iter()
                .map(|c| Config {
                    name: c.name.to_string(),
                    value: c.value.as_ref().map(|v| v.to_string()),
                    own: matches!(c.config_source, 1 | 2),
                    source: source_text(c.config_source),
                    read_only: c.read_only,
                })
                .collect();
            configs.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(configs)
        })
    }

    pub fn alter_topic(&mut self, name: &str, changes: &[Change]) -> Result<(), ClientError> {
        let mut resource = AlterConfigsResource::default();
        resource.resource_type = TOPIC_RESOURCE;
        resource.resource_name = text(name);
        let configs = changes.iter().map(|change| {
            let mut config = AlterableConfig::default();
            match change {
                Change::Set { name, value } => {
                    (config.name, config.value, config.config_operation) =
                        (text(name), Some(text(value)), OPERATION_SET);
                }
                Change::Delete { name } => {
                    (config.name, config.config_operation) = (text(name), OPERATION_DELETE)
                }
            }
            config
        });
        resource.configs = configs.collect();
        let mut request = IncrementalAlterConfigsRequest::default();
        request.resources = vec![resource];
        let what = format!("changing topic {name}");
        self.retrying(&what, |cluster| {
            let response = cluster.call_controller(&request)?;
            let result = response.responses.first().ok_or_else(|| unanswered(&what))?;
            known(result.error_code, name)?;
            ClientError::check(result.error_code, what.as_str(), result.error_message.as_deref())
        })
    }

    /// Deletes records below an offset (-1: all); returns the log start that resulted.
    pub fn delete_records(&mut self, topic: &str, partition: i32, offset: i64) -> Result<i64, ClientError> {
        let mut wanted = DeleteRecordsPartition::default();
        wanted.partition_index = partition;
        wanted.offset = offset;
        let mut of_topic = DeleteRecordsTopic::default();
        of_topic.name = text(topic);
        of_topic.partitions = vec![wanted];
        let mut request = DeleteRecordsRequest::default();
        request.topics = vec![of_topic];
        request.timeout_ms = self.timeout_ms();
        let what = format!("trimming partition {partition} of topic {topic}");
        self.retrying(&what, |cluster| {
            let leader = cluster.leader(topic, partition)?;
            let response = cluster.call(leader, &request)?;
            let result = response
                .topics
                .first()
                .and_then(|t| t.partitions.first())
                .ok_or_else(|| unanswered(&what))?;
            ClientError::check(result.error_code, what.as_str(), None)?;
            Ok(result.low_watermark)
        })
    }

    /// The first offset at or after each timestamp (or [`EARLIEST`], [`LATEST`]), by partition.
    pub fn list_offsets(
        &mut self,
        topic: &str,
        asked: &[(i32, i64)],
    ) -> Result<BTreeMap<i32, Found>, ClientError> {
        let what = format!("looking up offsets of topic {topic}");
        self.retrying(&what, |cluster| {
            let mut by_leader: BTreeMap<i32, Vec<(i32, i64)>> = BTreeMap::new();
            for (partition, timestamp) in asked {
                by_leader
                    .entry(cluster.leader(topic, *partition)?)
                    .or_default()
                    .push((*partition, *timestamp));
            }
            let mut found = BTreeMap::new();
            for (leader, asked) in by_leader {
                let response = cluster.call(leader, &offsets_request(topic, &asked))?;
                for result in response.topics.iter().flat_map(|t| &t.partitions) {
                    ClientError::check(
                        result.error_code,
                        format!("partition {} of topic {topic}", result.partition_index),
                        None,
                    )?;
                    found.insert(
                        result.partition_index,
                        Found { offset: result.offset, timestamp: result.timestamp },
                    );
                }
            }
            if asked.iter().any(|(partition, _)| !found.contains_key(partition)) {
                return Err(unanswered(&what));
            }
            Ok(found)
        })
    }

    /// Start and end offset of every partition of a topic.
    pub fn offset_ranges(&mut self, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, ClientError> {
        let partitions: Vec<i32> = self.topic(topic)?.partitions.iter().map(|p| p.index).collect();
        let at = |timestamp: i64| partitions.iter().map(|p| (*p, timestamp)).collect::<Vec<_>>();
        let starts = self.list_offsets(topic, &at(EARLIEST))?;
        let ends = self.list_offsets(topic, &at(LATEST))?;
        Ok(partitions.iter().map(|p| (*p, (starts[p].offset, ends[p].offset))).collect())
    }

    pub fn describe_cluster(&mut self) -> Result<ClusterInfo, ClientError> {
        self.retrying("describing the cluster", |cluster| {
            let response = cluster.call_any(&DescribeClusterRequest::default())?;
            ClientError::check(
                response.error_code,
                "describing the cluster",
                response.error_message.as_deref(),
            )?;
            let brokers = response.brokers.iter().map(|b| (b.broker_id, format!("{}:{}", &*b.host, b.port)));
            Ok(ClusterInfo {
                cluster_id: response.cluster_id.to_string(),
                controller: response.controller_id,
                brokers: brokers.collect(),
            })
        })
    }

    /// An identity for idempotent producing.
    pub fn init_producer_id(&mut self) -> Result<(ProducerId, ProducerEpoch), ClientError> {
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = None;
        // Unused without a transactional id, but Kafka refuses 0.
        request.transaction_timeout_ms = 60_000;
        self.retrying("asking for a producer id", |cluster| {
            let response = cluster.call_any(&request)?;
            ClientError::check(response.error_code, "asking for a producer id", None)?;
            Ok((ProducerId(response.producer_id), ProducerEpoch(response.producer_epoch)))
        })
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.settings.request_timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from(value)
}

/// A topic that was named by the user and is not there: no retry makes it appear.
fn known(code: i16, topic: &str) -> Result<(), ClientError> {
    if code == codes::UNKNOWN_TOPIC_OR_PARTITION {
        Err(ClientError::TopicUnknown { topic: topic.to_string() })
    } else {
        Ok(())
    }
}

fn unanswered(what: &str) -> ClientError {
    ClientError::refused(
        codes::UNKNOWN_SERVER_ERROR,
        what,
        Some("the answer does not mention what was asked"),
    )
}

fn offsets_request(topic: &str, asked: &[(i32, i64)]) -> ListOffsetsRequest {
    let partitions = asked.iter().map(|(partition, timestamp)| {
        let mut wanted = ListOffsetsPartition::default();
        wanted.partition_index = *partition;
        wanted.current_leader_epoch = -1;
        wanted.timestamp = *timestamp;
        wanted
    });
    let mut of_topic = ListOffsetsTopic::default();
    of_topic.name = text(topic);
    of_topic.partitions = partitions.collect();
    let mut request = ListOffsetsRequest::default();
    request.replica_id = -1;
    request.topics = vec![of_topic];
    request
}

/// Kafka's DescribeConfigsResponse.ConfigSource.
fn source_text(source: i8) -> &'static str {
    match source {
        1 => "topic",
        2 => "broker",
        3 => "cluster",
        4 => "file",
        5 => "default",
        6 => "logger",
        _ => "unknown",
    }
}
