//! Record-precise search by time within one batch (ListOffsets). Decompresses where it must: cold.

use crate::base::error::Refused;
use crate::wire::batch::Batch;
use crate::wire::batch::scan::{Scanned, scan};

/// The first record at or behind offset `from` whose timestamp is at least `at_least_ms`: its offset and timestamp. Walks the records
/// and does not trust the header's maximum, which a producer may have got wrong; whether to look at all is the caller's choice.
/// Errors: CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION_TYPE or INVALID_RECORD for a batch that cannot be walked as far as needed.
pub fn find_timestamp(batch: &Batch<'_>, at_least_ms: i64, from: i64) -> Result<Option<(i64, i64)>, Refused> {
    if batch.is_log_append_time() && batch.max_timestamp() < at_least_ms {
        return Ok(None);
    }
    let mut found = None;
    scan(batch, |record| {
        let (offset, timestamp) = place(batch, &record);
        if timestamp >= at_least_ms && offset >= from {
            found = Some((offset, timestamp));
        }
        found.is_none()
    })?;
    Ok(found)
}

/// The first record that has the batch's largest timestamp: its offset and timestamp; `None` for an empty batch. Errors as
/// `find_timestamp`.
pub fn find_max_timestamp(batch: &Batch<'_>) -> Result<Option<(i64, i64)>, Refused> {
    let mut best: Option<(i64, i64)> = None;
    scan(batch, |record| {
        let (offset, timestamp) = place(batch, &record);
        if best.is_none_or(|(_, largest)| timestamp > largest) {
            best = Some((offset, timestamp));
        }
        true
    })?;
    Ok(best)
}

/// A record's offset and time.
fn place(batch: &Batch<'_>, record: &Scanned) -> (i64, i64) {
    let offset = batch.base_offset().wrapping_add(i64::from(record.offset_delta));
    (offset, record.timestamp(batch))
}
