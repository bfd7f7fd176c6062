//! Cold. Batches that are stored otherwise than they were sent: in the codec of the topic, or with the largest timestamp that their
//! records have. A batch of the topic's own codec never comes here.

use std::borrow::Cow;

use crate::base::error::Refused;
use crate::base::limits::RECOMPRESSED_BYTES_MAX;
use crate::wire::batch::accept::{Accept, Accepted, Change, Refusal};
use crate::wire::batch::build::{BatchBuilder, NewRecord};
use crate::wire::batch::records::{self, Records};
use crate::wire::batch::{Batch, set_max_timestamp};
use crate::wire::codec::{self, Codec, Compression};

/// Attribute bits that Kafka knows; it drops the others whenever it writes the attributes anew.
const KNOWN_ATTRIBUTES: i16 = 0x7f;

/// The batch to store in place of the accepted one; none where that is stored as it came. A recompressed batch is held against
/// `max.message.bytes` and `segment.bytes` again, as in Kafka. One that decompresses to more than `RECOMPRESSED_BYTES_MAX` is too large; Kafka takes it.
pub fn rewrite(accepted: &Accepted<'_>, limits: &Accept) -> Result<Option<Vec<u8>>, Refusal> {
    match accepted.change {
        None => Ok(None),
        Some(Change::MaxTimestamp(max_ms)) => Ok(Some(with_max_timestamp(&accepted.batch, max_ms))),
        Some(Change::Recompressed(compression)) => {
            let stored = recompressed(&accepted.batch, compression)?;
            limits.check_size(stored.len())?;
            limits.check_segment(stored.len())?;
            Ok(Some(stored))
        }
    }
}

fn with_max_timestamp(batch: &Batch<'_>, max_ms: i64) -> Vec<u8> {
    let mut stored = batch.bytes().to_vec();
    let attributes = batch.attributes() & KNOWN_ATTRIBUTES;
    stored[super::AT_ATTRIBUTES..super::AT_LAST_OFFSET_DELTA].copy_from_slice(&attributes.to_be_bytes());
    set_max_timestamp(&mut stored, max_ms);
    stored
}

/// The same records, encoded anew: base timestamp that of the first, largest timestamp that of the records.
fn recompressed(batch: &Batch<'_>, compression: Compression) -> Result<Vec<u8>, Refusal> {
    let undecodable = |error| Refusal::validated(error, "Failed to decompress record stream");
    let scratch = payload(batch)?;
    let mut builder = BatchBuilder::new(compression.codec).level(compression.level);
    builder = builder.producer(batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
    if batch.is_transactional() {
        builder = builder.transactional();
    }
    let mut headers = Vec::new();
    for record in Records::new(&scratch, batch.count()) {
        let record = record.map_err(undecodable)?;
        headers.clear();
        headers.extend(record.headers.clone());
        builder.push(&NewRecord {
            timestamp: records::timestamp(batch, &record),
            key: record.key,
            value: record.value,
            headers: &headers,
        });
    }
    drop(scratch);
    let mut stored = Vec::new();
    builder.finish(&mut stored).map_err(|_| {
        Refusal::validated(Refused::UnknownServerError, "Failed to compress the records anew")
    })?;
    Ok(stored)
}

/// The records' bytes, decompressed. They were walked before, so what fails here is their size.
fn payload<'a>(batch: &Batch<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
    let packed = batch.payload();
    let codec = batch.codec().unwrap_or(Codec::None);
    let mut plain = Vec::new();
    let decompressed = match codec {
        Codec::None if packed.len() <= RECOMPRESSED_BYTES_MAX => return Ok(Cow::Borrowed(packed)),
        Codec::None => Err(Refused::MessageTooLarge),
        _ => {
            let budget = codec::budget(packed.len()).min(RECOMPRESSED_BYTES_MAX);
            codec::decompress(codec, packed, &mut plain, budget)
        }
    };
    decompressed.map_err(|_| {
        let why =
            "The record batch is larger, decompressed, than what is compressed anew for compression.type";
        Refusal::new(Refused::MessageTooLarge, why)
    })?;
    Ok(Cow::Owned(plain))
}
