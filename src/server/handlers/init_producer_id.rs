//! InitProducerId (key 22), versions 0-5: a producer id that was never given before, with epoch 0, for idempotent producers.
//!
//! Answers when the block that the id belongs to is durable. A request without a transactional id always gets a new id, whatever id
//! it brings along, as in Kafka. An id without an epoch, or the reverse, is INVALID_REQUEST.
//!
//! Differs from Apache Kafka: there are no transactions yet. A transactional id is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which
//! Java and librdkafka both report at once as final; a retriable number would let them wait for their whole timeout, others
//! are retried for ever by librdkafka.

use super::{Handled, Metadata, Request, error_code, frame};
use crate::base::error::Refused;
use crate::base::ids::ProducerId;
use crate::controller::image::Image;
use crate::wire::error::WireError;
use crate::wire::msg::{self, InitProducerIdRequest, InitProducerIdResponse};

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let Some(controller) = &mut meta.controller else { return Ok(Handled::Forward) };
    let (header, body) = msg::decode_request::<InitProducerIdRequest>(request.frame)?;
    let mut response = InitProducerIdResponse::default();
    let after = match check(&body, &meta.image) {
        Ok(()) => {
            let parked = controller.next_producer_id();
            response.producer_id = parked.reply.0;
            response.producer_epoch = 0;
            parked.after
        }
        Err(error) => {
            response.error_code = error_code(Some(error));
            response.producer_id = ProducerId::NONE.0;
            response.producer_epoch = -1;
            0
        }
    };
    let bytes = frame::<InitProducerIdRequest>(header.correlation_id, header.version, &response);
    Ok(meta.reply_after(request.ticket, after, bytes))
}

fn check(body: &InitProducerIdRequest, image: &Image) -> Result<(), Refused> {
    if (body.producer_id == -1) != (body.producer_epoch == -1) {
        return Err(Refused::InvalidRequest);
    }
    let Some(id) = &body.transactional_id else { return Ok(()) };
    if id.is_empty() {
        return Err(Refused::InvalidRequest);
    }
    let most = image.config.get("transaction.max.timeout.ms").and_then(|(value, _)| value.parse().ok());
    if body.transaction_timeout_ms <= 0 || body.transaction_timeout_ms > most.unwrap_or(i32::MAX) {
        return Err(Refused::InvalidTransactionTimeout);
    }
    Err(Refused::TransactionalIdAuthorizationFailed)
}
