//! Record-precise search by time within one batch (ListOffsets). Decompresses where it must: cold.

use crate::base::error::Refused;
use crate::wire::batch::{Batch, records};

/// The first record at or behind offset `from` whose timestamp is at least `at_least_ms`: its offset and timestamp. Walks the records
/// and does not trust the header's maximum, which a producer may have got wrong; whether to look at all is the caller's choice.
/// Errors: CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION_TYPE or INVALID_RECORD for a batch that cannot be walked.
pub fn find_timestamp(batch: &Batch<'_>, at_least_ms: i64, from: i64) -> Result<Option<(i64, i64)>, Refused> {
    if batch.is_log_append_time() && batch.max_timestamp() < at_least_ms {
        return Ok(None);
    }
    for record in records::open(batch, &mut Vec::new())? {
        let record = record?;
        let (offset, timestamp) = (records::offset(batch, &record), records::timestamp(batch, &record));
        if timestamp >= at_least_ms && offset >= from {
            return Ok(Some((offset, timestamp)));
        }
    }
    Ok(None)
}

/// The first record that has the batch's largest timestamp: its offset and timestamp; `None` for an empty batch. Errors as
/// `find_timestamp`.
pub fn find_max_timestamp(batch: &Batch<'_>) -> Result<Option<(i64, i64)>, Refused> {
    let mut best: Option<(i64, i64)> = None;
    for record in records::open(batch, &mut Vec::new())? {
        let record = record?;
        let timestamp = records::timestamp(batch, &record);
        if best.is_none_or(|(_, largest)| timestamp > largest) {
            best = Some((records::offset(batch, &record), timestamp));
        }
    }
    Ok(best)
}
