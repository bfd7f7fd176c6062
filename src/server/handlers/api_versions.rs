//! ApiVersions (key 18), versions 0-4: what we speak, derived from the table in `wire/api.rs`.
//!
//! An unknown version is answered in the bytes of version 0 with UNSUPPORTED_VERSION and the range that would do, so that a newer
//! client can step down. Version 3 and above must name the client's software well, else INVALID_REQUEST.

use super::{Handled, Request};
use crate::base::error::Refused;
use crate::base::metrics::Stamps;
use crate::server::connection::Slot;
use crate::server::pending::Encoded;
use crate::wire::api::{self, ApiKey, Feature, Features};
use crate::wire::error::{WireError, code};
use crate::wire::msg::{self, ApiVersionsRequest};

/// `metadata.version` of Kafka 4.1 as a feature level: what tools show as the product's version.
const METADATA_VERSION: i16 = 27;
const METADATA_VERSION_MIN: i16 = 7;

const FEATURES: Features<'static> = Features {
    supported: &[Feature { name: "metadata.version", min: METADATA_VERSION_MIN, max: METADATA_VERSION }],
    finalized: &[Feature { name: "metadata.version", min: METADATA_VERSION, max: METADATA_VERSION }],
    finalized_epoch: 0,
};

pub fn handle(request: &mut Request<'_, '_>) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<ApiVersionsRequest>(request.frame)?;
    let named = header.version < 3
        || (api::is_software_name(&body.client_software_name)
            && api::is_software_name(&body.client_software_version));
    let error = if named { 0 } else { code(Refused::InvalidRequest) };
    let mut out = Vec::with_capacity(256);
    api::write_versions_response(&mut out, header.correlation_id, header.version, error, 0, &FEATURES);
    Ok(Handled::Encoded(Encoded::bytes(out)))
}

/// The answer to a header that asks for a version that we do not know; only ApiVersions itself has one.
pub fn unsupported(error: &WireError, stamps: Stamps) -> Option<Slot> {
    match error {
        WireError::UnsupportedVersion { api: ApiKey::ApiVersions, correlation_id, .. } => {
            let mut out = Vec::with_capacity(32);
            api::write_versions_unsupported(&mut out, *correlation_id);
            Some(Slot::bytes(out, stamps))
        }
        _ => None,
    }
}
