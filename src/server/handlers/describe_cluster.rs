//! DescribeCluster (key 60), versions 0-2: the brokers, the controller (this broker, or its first shard where clients see shards) and the cluster's id.
//!
//! Asked for controllers (endpoint type 2) on a broker's listener: MISMATCHED_ENDPOINT_TYPE, for any other type
//! UNSUPPORTED_ENDPOINT_TYPE, as in Kafka. There are no fenced brokers.

use super::metadata::CLUSTER_OPERATIONS;
use super::{Handled, Metadata, Request, respond};
use crate::base::error::Refused;
use crate::wire::error::{WireError, code};
use crate::wire::msg::{
    self, DescribeClusterRequest, DescribeClusterResponse, StrBytes, describe_cluster_response,
};

const OF_BROKERS: i8 = 1;
const OF_CONTROLLERS: i8 = 2;

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<DescribeClusterRequest>(request.frame)?;
    let mut response = DescribeClusterResponse::default();
    if body.endpoint_type == OF_BROKERS {
        describe(&mut response, meta);
        if body.include_cluster_authorized_operations {
            response.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
    } else {
        let (error, message) = match body.endpoint_type {
            OF_CONTROLLERS => (
                Refused::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                    .to_string(),
            ),
            other => (Refused::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")),
        };
        response.error_code = code(error);
        response.error_message = Some(message.into());
        response.controller_id = -1;
    }
    Ok(Handled::Encoded(respond::<DescribeClusterRequest>(header.correlation_id, header.version, &response)))
}

fn describe(response: &mut DescribeClusterResponse, meta: &Metadata) {
    response.cluster_id = meta.image.cluster_id.as_str().into();
    response.controller_id = meta.image.controller().0;
    for broker in &meta.image.brokers {
        let mut answer = describe_cluster_response::DescribeClusterBroker::default();
        answer.broker_id = broker.id.0;
        answer.host = broker.host.as_str().into();
        answer.port = i32::from(broker.port);
        answer.rack = broker.rack.as_deref().map(StrBytes::from);
        response.brokers.push(answer);
    }
}
