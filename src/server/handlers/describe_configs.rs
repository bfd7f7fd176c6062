//! DescribeConfigs (key 32), versions 1-4: every configuration of topics and of this broker, with source, synonyms and documentation.
//!
//! No keys, null or empty, means all of them; keys that do not exist are left out. One unknown resource type refuses the whole request,
//! as in Kafka. Passwords are never shown. See `controller/configs.rs` for what differs from Apache Kafka; the documentation
//! describes this broker.
//!
//! Differs from Apache Kafka: resources that would make the answer larger than [`ANSWER_BYTES_MAX`] are refused with INVALID_REQUEST.

use super::{Handled, Metadata, Request, error_code, respond};
use crate::base::error::Refused;
use crate::config::describe::{Described, Synonym};
use crate::controller::Refusal;
use crate::controller::configs;
use crate::wire::error::WireError;
use crate::wire::msg::{
    self, DescribeConfigsRequest, DescribeConfigsResponse, StrBytes, describe_configs_request,
    describe_configs_response,
};

/// Memory that the configurations of one answer may take. Eight bytes of a request name this broker, as often as one likes, and have a
/// hundred thousand for an answer; all configurations of some 5,000 topics fit.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

const TOO_MUCH: &str = "The request asks for too many configurations at once.";

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<DescribeConfigsRequest>(request.frame)?;
    let well_formed = body.resources.iter().all(|resource| configs::is_resource_type(resource.resource_type));
    let mut response = DescribeConfigsResponse::default();
    let mut bytes = 0;
    for resource in &body.resources {
        let described = match well_formed {
            true if bytes > ANSWER_BYTES_MAX => Err(too_much()),
            true => configs::describe(&meta.image, resource.resource_type, &resource.resource_name),
            false => Err(configs::malformed()),
        };
        let answer = answer(&body, resource, described);
        bytes += answer.configs.iter().map(bytes_held).sum::<usize>();
        response.results.push(answer);
    }
    Ok(Handled::Encoded(respond::<DescribeConfigsRequest>(header.correlation_id, header.version, &response)))
}

fn too_much() -> Refusal {
    Refusal { error: Refused::InvalidRequest, message: Some(TOO_MUCH.into()) }
}

fn bytes_held(config: &describe_configs_response::DescribeConfigsResourceResult) -> usize {
    let text = |text: &Option<StrBytes>| text.as_ref().map_or(0, |text| text.len());
    let synonyms = config.synonyms.iter();
    let synonyms: usize = synonyms.map(|of| size_of_val(of) + of.name.len() + text(&of.value)).sum();
    size_of_val(config) + config.name.len() + text(&config.value) + text(&config.documentation) + synonyms
}

fn answer(
    body: &DescribeConfigsRequest,
    resource: &describe_configs_request::DescribeConfigsResource,
    described: Result<Vec<Described>, Refusal>,
) -> describe_configs_response::DescribeConfigsResult {
    let mut answer = describe_configs_response::DescribeConfigsResult::default();
    answer.resource_type = resource.resource_type;
    answer.resource_name = resource.resource_name.clone();
    // Kafka sends an empty text, not null, where there is nothing to say.
    answer.error_message = Some(StrBytes::default());
    match described {
        Err(refusal) => {
            answer.error_code = error_code(Some(refusal.error));
            answer.error_message = Some(refusal.message.unwrap_or_default().into());
        }
        Ok(described) => {
            let keys = resource.configuration_keys.as_deref().unwrap_or_default();
            let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
            let wanted = described.iter().filter(|entry| keys.is_empty() || keys.contains(&entry.name));
            answer.configs = wanted.map(|entry| config(body, entry)).collect();
        }
    }
    answer
}

fn config(
    body: &DescribeConfigsRequest,
    described: &Described,
) -> describe_configs_response::DescribeConfigsResourceResult {
    let mut config = describe_configs_response::DescribeConfigsResourceResult::default();
    config.name = described.name.into();
    config.value = described.value.as_deref().map(StrBytes::from);
    config.read_only = described.read_only;
    config.config_source = described.source;
    config.is_sensitive = described.sensitive;
    config.config_type = described.kind.id();
    if body.include_synonyms {
        config.synonyms = described.synonyms.iter().map(synonym).collect();
    }
    config.documentation = body.include_documentation.then(|| described.doc().into());
    config
}

fn synonym(of: &Synonym) -> describe_configs_response::DescribeConfigsSynonym {
    let mut synonym = describe_configs_response::DescribeConfigsSynonym::default();
    synonym.name = of.name.into();
    synonym.value = of.value.as_deref().map(StrBytes::from);
    synonym.source = of.source;
    synonym
}
