//! The one facade over the generated messages (crate `kafka-wire`): no other module names that crate. Cold requests and
//! responses of the broker, and everything that our own client says.
//!
//! Messages are `#[non_exhaustive]`: start from `Default::default()` and assign fields. Their strings and bytes are slices of the
//! frame they were decoded from: copy out what outlives the request, or one name pins the frame. `StrBytes` derefs to `str` but
//! re-validates UTF-8 each time: convert once.

use kafka_wire::{KafkaRequest, RequestResponsePair};
use kafka_wire_core::{
    ApiVersion, BytesMut, DecodeError, DecodeLimits, Decoder, Encoder, KafkaDecode, KafkaEncode,
};

use crate::base::ids;
use crate::base::limits::{COLD_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use crate::wire::api::ApiKey;
use crate::wire::error::{WireError, codes};
use crate::wire::frame::{self, RequestHeader};
use crate::wire::primitive::{Reader, put_no_tags, put_string};

pub use bytes::Bytes;
pub use kafka_wire_core::{StrBytes, Uuid};

macro_rules! calls {
    ($($api:ident: $request:ident, $response:ident, $request_mod:ident, $response_mod:ident;)*) => {
        $(
            pub use kafka_wire::{$request, $response, $request_mod, $response_mod};

            impl Call for $request {
                const API: ApiKey = ApiKey::$api;
            }

            const _: () = assert!(<$request as KafkaRequest>::API_KEY.value() == ApiKey::$api.wire());
        )*

        /// Decodes a request frame of any API and encodes it again, with its length prefix: for tests and fuzzing, which must reach
        /// every message.
        pub fn recode_request(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
            let mut out = Vec::new();
            match RequestHeader::parse(bytes)?.api {
                $(ApiKey::$api => {
                    let (header, request) = decode_request::<$request>(bytes)?;
                    let (correlation_id, version) = (header.correlation_id, header.version);
                    encode_request(&mut out, correlation_id, header.client_id, version, &request)?;
                })*
                ApiKey::Shards => return Err(no_message(ApiKey::Shards)),
            }
            Ok(out)
        }

        /// Decodes a response frame of any API and encodes it again, with its length prefix: for tests and fuzzing.
        pub fn recode_response(api: ApiKey, version: i16, bytes: Bytes) -> Result<Vec<u8>, WireError> {
            let correlation_id = response_correlation_id(&bytes)?;
            let mut out = Vec::new();
            match api {
                $(ApiKey::$api => {
                    let response = decode_response::<$request>(bytes, version)?;
                    encode_response::<$request>(&mut out, correlation_id, version, &response)?;
                })*
                ApiKey::Shards => return Err(no_message(ApiKey::Shards)),
            }
            Ok(out)
        }
    };
}

/// An API of our own is none of Kafka's messages.
fn no_message(api: ApiKey) -> WireError {
    WireError::Decode(format!("{} is no message of Kafka's", api.name()))
}

/// A request type that we serve and send; its `Response` is the answer's type.
pub trait Call: RequestResponsePair {
    /// The row of the table that this type belongs to.
    const API: ApiKey;
}

calls! {
    Produce: ProduceRequest, ProduceResponse, produce_request, produce_response;
    Fetch: FetchRequest, FetchResponse, fetch_request, fetch_response;
    ListOffsets: ListOffsetsRequest, ListOffsetsResponse, list_offsets_request, list_offsets_response;
    Metadata: MetadataRequest, MetadataResponse, metadata_request, metadata_response;
    FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_request, find_coordinator_response;
    ApiVersions: ApiVersionsRequest, ApiVersionsResponse, api_versions_request, api_versions_response;
    CreateTopics: CreateTopicsRequest, CreateTopicsResponse, create_topics_request, create_topics_response;
    DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_request, delete_topics_response;
    DeleteRecords: DeleteRecordsRequest, DeleteRecordsResponse, delete_records_request, delete_records_response;
    InitProducerId: InitProducerIdRequest, InitProducerIdResponse, init_producer_id_request, init_producer_id_response;
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, offset_for_leader_epoch_request, offset_for_leader_epoch_response;
    DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse, describe_configs_request, describe_configs_response;
    CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_request, create_partitions_response;
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, incremental_alter_configs_request, incremental_alter_configs_response;
    DescribeCluster: DescribeClusterRequest, DescribeClusterResponse, describe_cluster_request, describe_cluster_response;
}

/// Decodes a request frame: header, then a body of type `R`. The version was checked against our table by the header parser.
/// Copies the body once: cold frames are small, and the receive buffer goes back at once. Bytes behind the body are ignored, as in
/// Kafka.
pub fn decode_request<R: Call>(bytes: &[u8]) -> Result<(RequestHeader<'_>, R), WireError> {
    let header = RequestHeader::parse(bytes)?;
    if header.api != R::API {
        return Err(WireError::UnknownApi { key: header.api.wire(), version: header.version });
    }
    let body = Bytes::copy_from_slice(&bytes[header.body_at..]);
    let mut decoder = Decoder::new(body, limits(COLD_FRAME_BYTES_MAX))?;
    let request = R::decode(&mut decoder, ApiVersion::new(header.version))?;
    Ok((header, request))
}

/// Appends a whole response frame to `out`; on an error `out` is as before. An error is a bug of ours: a field that is set and
/// that this version cannot carry.
pub fn encode_response<R: Call>(
    out: &mut Vec<u8>,
    correlation_id: i32,
    version: i16,
    response: &R::Response,
) -> Result<(), WireError> {
    R::API.check(version, correlation_id)?;
    let body = encode_body(response, version)?;
    let start = frame::begin_response(out, R::API, version, correlation_id);
    out.extend_from_slice(&body);
    frame::end_response(out, start, 0);
    Ok(())
}

/// Appends a whole request frame to `out`, for a client; on an error `out` is as before.
pub fn encode_request<R: Call>(
    out: &mut Vec<u8>,
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    request: &R,
) -> Result<(), WireError> {
    R::API.check(version, correlation_id)?;
    let body = encode_body(request, version)?;
    let start = out.len();
    out.extend_from_slice(&[0; frame::LENGTH_BYTES]);
    out.extend_from_slice(&R::API.wire().to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation_id.to_be_bytes());
    put_string(out, false, client_id);
    put_no_tags(out, R::API.is_flexible(version));
    out.extend_from_slice(&body);
    frame::end_response(out, start, 0);
    Ok(())
}

/// Appends a whole request frame of an API of our own, which has no body.
pub fn write_own_request(out: &mut Vec<u8>, api: ApiKey, correlation_id: i32, client_id: Option<&str>) {
    let start = out.len();
    out.extend_from_slice(&[0; frame::LENGTH_BYTES]);
    out.extend_from_slice(&api.wire().to_be_bytes());
    out.extend_from_slice(&0i16.to_be_bytes());
    out.extend_from_slice(&correlation_id.to_be_bytes());
    put_string(out, false, client_id);
    frame::end_response(out, start, 0);
}

/// The correlation id of a response frame: tells a client which request is answered, before it decodes.
pub fn response_correlation_id(bytes: &[u8]) -> Result<i32, WireError> {
    Reader::at(bytes, 0).i32()
}

/// Decodes a response frame (from the correlation id on) to a request of `version`. An ApiVersions answer with error 35 is read
/// as version 0, which is what a broker sends that does not know the version asked for (KIP-511).
pub fn decode_response<R: Call>(bytes: Bytes, version: i16) -> Result<R::Response, WireError> {
    let mut reader = Reader::at(&bytes, 0);
    let correlation_id = reader.i32()?;
    R::API.check(version, correlation_id)?;
    reader.skip_tags(R::API.response_header_version(version) >= 1)?;
    let body_at = reader.position();
    let refused = R::API == ApiKey::ApiVersions && reader.i16() == Ok(codes::UNSUPPORTED_VERSION);
    let mut decoder = Decoder::new(bytes.slice(body_at..), limits(FRAME_BYTES_MAX))?;
    let response = R::Response::decode(&mut decoder, ApiVersion::new(if refused { 0 } else { version }))?;
    decoder.finish()?;
    Ok(response)
}

fn encode_body<M: KafkaEncode>(message: &M, version: i16) -> Result<BytesMut, WireError> {
    let mut body = BytesMut::new();
    let mut encoder = Encoder::new(&mut body);
    message.encode(&mut encoder, ApiVersion::new(version)).map_err(|e| WireError::Encode(e.to_string()))?;
    Ok(body)
}

/// Budgets of one message. Arrays are bounded each by itself, not in sum: a 2-byte topic of Metadata becomes a struct of 72
/// bytes (36 times, measured), so that the frame cap is what bounds memory.
fn limits(frame_bytes_max: usize) -> DecodeLimits {
    let mut limits = DecodeLimits::default();
    limits.max_frame_bytes = frame_bytes_max;
    limits.max_bytes_bytes = frame_bytes_max;
    limits.max_string_bytes = i16::MAX as usize;
    limits.max_array_elements = 65_536;
    limits.max_tagged_fields = 16;
    limits.max_tag_bytes = 4_096;
    limits.max_total_tag_bytes = 8_192;
    limits
}

impl From<DecodeError> for WireError {
    fn from(error: DecodeError) -> WireError {
        WireError::Decode(error.to_string())
    }
}

impl From<Uuid> for ids::Uuid {
    fn from(uuid: Uuid) -> ids::Uuid {
        ids::Uuid(uuid.to_bytes())
    }
}

impl From<ids::Uuid> for Uuid {
    fn from(uuid: ids::Uuid) -> Uuid {
        Uuid::from_bytes(uuid.0)
    }
}
