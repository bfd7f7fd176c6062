//! FindCoordinator (key 10), versions 0-6.
//!
//! Differs from Apache Kafka: there are no coordinators yet, so every key is answered COORDINATOR_NOT_AVAILABLE, which
//! clients retry until their own timeout.

use super::{Handled, Request, respond};
use crate::base::error::Refused;
use crate::wire::error::{WireError, code};
use crate::wire::msg::{self, FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response};

/// First version with many keys in one request.
const BATCHED_FROM: i16 = 4;

pub fn handle(request: &mut Request<'_, '_>) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<FindCoordinatorRequest>(request.frame)?;
    let error = code(Refused::CoordinatorNotAvailable);
    let mut response = FindCoordinatorResponse::default();
    if header.version >= BATCHED_FROM {
        for key in &body.coordinator_keys {
            let mut answer = find_coordinator_response::Coordinator::default();
            answer.key = key.clone();
            answer.node_id = -1;
            answer.port = -1;
            answer.error_code = error;
            response.coordinators.push(answer);
        }
    } else {
        response.error_code = error;
        response.error_message =
            (1..3).contains(&header.version).then(|| "The coordinator is not available.".into());
        response.node_id = -1;
        response.port = -1;
    }
    Ok(Handled::Encoded(respond::<FindCoordinatorRequest>(header.correlation_id, header.version, &response)))
}
