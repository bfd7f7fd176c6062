//! The table ApiKey -> what we serve. ApiVersions is answered from it, the header parser and the splitter take versions and frame
//! caps from it, and the facade checks it before each decode: an API without a row does not exist.
//!
//! Rows of our own stand apart: their keys are far above any of Kafka's, ApiVersions never tells of them, and only our tools ask. Their
//! bodies are not Kafka's messages; each handler says what they are.

use crate::base::limits::{COLD_FRAME_BYTES_MAX, FRAME_BYTES_MAX};
use crate::wire::error::{WireError, codes};
use crate::wire::frame;
use crate::wire::primitive::{put_length, put_no_tags, put_string, put_varint};

/// Who parses an API's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By hand, in place: `frame`, `produce`, `fetch`.
    Hot,
    /// By the generated messages behind `msg`.
    Cold,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    pub key: ApiKey,
    /// Kafka's name, for metrics, logs and the command line.
    pub name: &'static str,
    /// Lowest version in our ApiVersions answer.
    pub advertised_min: i16,
    /// Lowest version that is accepted. Differs from the advertised one for Produce alone.
    pub min: i16,
    /// Highest version advertised and accepted.
    pub max: i16,
    /// From this version on: request header 2, response header 1 (ApiVersions: 0), compact lengths, tagged fields.
    pub first_flexible: i16,
    pub path: Path,
    /// Largest frame, without its length prefix.
    pub frame_bytes_max: usize,
}

macro_rules! apis {
    (
        kafka { $($name:ident = $key:literal: $advertised:literal, $min:literal ..= $max:literal, flex $flex:literal, $path:ident, $cap:expr;)* }
        own { $($own:ident = $own_key:literal: $own_cap:expr;)* }
    ) => {
        /// The API keys that we serve, and no others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
            $($own = $own_key,)*
        }

        /// All rows of Kafka's, ascending by key. Ranges: those of Apache Kafka 4.1.
        pub const TABLE: &[Api] = &[
            $(Api {
                key: ApiKey::$name,
                name: stringify!($name),
                advertised_min: $advertised,
                min: $min,
                max: $max,
                first_flexible: $flex,
                path: Path::$path,
                frame_bytes_max: $cap,
            },)*
        ];

        impl ApiKey {
            /// The key as it stands on the wire, if we serve it.
            pub const fn from_wire(key: i16) -> Option<ApiKey> {
                match key {
                    $($key => Some(ApiKey::$name),)*
                    $($own_key => Some(ApiKey::$own),)*
                    _ => None,
                }
            }

            /// This key's row.
            pub const fn row(self) -> &'static Api {
                match self {
                    $(ApiKey::$name => {
                        const ROW: &Api = &Api {
                            key: ApiKey::$name,
                            name: stringify!($name),
                            advertised_min: $advertised,
                            min: $min,
                            max: $max,
                            first_flexible: $flex,
                            path: Path::$path,
                            frame_bytes_max: $cap,
                        };
                        ROW
                    })*
                    $(ApiKey::$own => {
                        const ROW: &Api = &Api {
                            key: ApiKey::$own,
                            name: stringify!($own),
                            advertised_min: 0,
                            min: 0,
                            max: 0,
                            first_flexible: 1,
                            path: Path::Cold,
                            frame_bytes_max: $own_cap,
                        };
                        ROW
                    })*
                }
            }
        }
    };
}

apis! {
    kafka {
        Produce = 0: 0, 3..=13, flex 9, Hot, FRAME_BYTES_MAX;
        Fetch = 1: 4, 4..=18, flex 12, Hot, COLD_FRAME_BYTES_MAX;
        ListOffsets = 2: 1, 1..=10, flex 6, Cold, COLD_FRAME_BYTES_MAX;
        Metadata = 3: 0, 0..=13, flex 9, Cold, COLD_FRAME_BYTES_MAX;
        FindCoordinator = 10: 0, 0..=6, flex 3, Cold, COLD_FRAME_BYTES_MAX;
        ApiVersions = 18: 0, 0..=4, flex 3, Cold, COLD_FRAME_BYTES_MAX;
        CreateTopics = 19: 2, 2..=7, flex 5, Cold, COLD_FRAME_BYTES_MAX;
        DeleteTopics = 20: 1, 1..=6, flex 4, Cold, COLD_FRAME_BYTES_MAX;
        DeleteRecords = 21: 0, 0..=2, flex 2, Cold, COLD_FRAME_BYTES_MAX;
        InitProducerId = 22: 0, 0..=5, flex 2, Cold, COLD_FRAME_BYTES_MAX;
        OffsetForLeaderEpoch = 23: 2, 2..=4, flex 4, Cold, COLD_FRAME_BYTES_MAX;
        DescribeConfigs = 32: 1, 1..=4, flex 4, Cold, COLD_FRAME_BYTES_MAX;
        CreatePartitions = 37: 0, 0..=3, flex 2, Cold, COLD_FRAME_BYTES_MAX;
        IncrementalAlterConfigs = 44: 0, 0..=1, flex 1, Cold, COLD_FRAME_BYTES_MAX;
        DescribeCluster = 60: 0, 0..=2, flex 0, Cold, COLD_FRAME_BYTES_MAX;
    }
    own {
        Shards = 17228: OWN_FRAME_BYTES_MAX;
    }
}

/// Largest frame of an API of our own: a header, and no body.
const OWN_FRAME_BYTES_MAX: usize = 1024;

impl ApiKey {
    /// The key as it goes on the wire.
    pub const fn wire(self) -> i16 {
        self as i16
    }

    /// Kafka's name of the API.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether requests of this version are parsed.
    pub const fn serves(self, version: i16) -> bool {
        let row = self.row();
        version >= row.min && version <= row.max
    }

    /// Whether this version uses compact lengths, tagged fields and request header 2.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.row().first_flexible
    }

    /// Version of the request header: 1, or 2 where the version is flexible.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header: 0, or 1 where the version is flexible; always 0 for ApiVersions.
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            ApiKey::ApiVersions => 0,
            _ if self.is_flexible(version) => 1,
            _ => 0,
        }
    }

    /// Refuses a version that we do not parse.
    pub fn check(self, version: i16, correlation_id: i32) -> Result<(), WireError> {
        if self.serves(version) {
            Ok(())
        } else {
            Err(WireError::UnsupportedVersion { api: self, version, correlation_id })
        }
    }
}

/// Largest frame of an API key as it stands on the wire; an unknown key gets the cold cap, to be refused once its header is whole.
pub const fn frame_bytes_max(key: i16) -> usize {
    match ApiKey::from_wire(key) {
        Some(api) => api.row().frame_bytes_max,
        None => COLD_FRAME_BYTES_MAX,
    }
}

/// A feature in the ApiVersions answer (KIP-584): a name and an inclusive range of levels. For a finalized feature both ends
/// are usually the level in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
}

/// The features of an ApiVersions answer from version 3 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features<'a> {
    pub supported: &'a [Feature],
    pub finalized: &'a [Feature],
    /// Grows with each change of the finalized features; -1 = unknown, and then clients ignore them.
    pub finalized_epoch: i64,
}

impl Features<'_> {
    /// No features at all.
    pub const NONE: Features<'static> = Features { supported: &[], finalized: &[], finalized_epoch: -1 };
}

/// Appends a whole ApiVersions response frame: length, response header 0, body of `version` (0-4). With an error (42 for a bad
/// software name) the list and the features are empty, as in Kafka.
///
/// Supported features whose minimum is 0 are left out below version 4: older clients fail on them (KAFKA-17011).
pub fn write_versions_response(
    out: &mut Vec<u8>,
    correlation_id: i32,
    version: i16,
    error_code: i16,
    throttle_time_ms: i32,
    features: &Features<'_>,
) {
    let flexible = ApiKey::ApiVersions.is_flexible(version);
    let start = frame::begin_response(out, ApiKey::ApiVersions, version, correlation_id);
    out.extend_from_slice(&error_code.to_be_bytes());
    let (rows, features) = match error_code {
        codes::NONE => (TABLE, features),
        _ => (&[][..], &Features::NONE),
    };
    put_length(out, flexible, rows.len());
    for row in rows {
        put_range(out, row, flexible);
    }
    if version >= 1 {
        out.extend_from_slice(&throttle_time_ms.to_be_bytes());
    }
    if flexible {
        put_features(out, version, features);
    }
    frame::end_response(out, start, 0);
}

/// Appends the answer to an ApiVersions request of a version that we do not know: body of version 0, error 35, and the range of
/// ApiVersions itself, from which the client picks a version that works (KIP-511). Apache Kafka lists only that one too.
pub fn write_versions_unsupported(out: &mut Vec<u8>, correlation_id: i32) {
    let start = frame::begin_response(out, ApiKey::ApiVersions, 0, correlation_id);
    out.extend_from_slice(&codes::UNSUPPORTED_VERSION.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    put_range(out, ApiKey::ApiVersions.row(), false);
    frame::end_response(out, start, 0);
}

/// The rule of KIP-511 for client software name and version in ApiVersions 3+: `[a-zA-Z0-9]([a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
/// Anything else is answered 42 INVALID_REQUEST.
pub fn is_software_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && bytes.iter().all(inner)
        }
        _ => false,
    }
}

fn put_range(out: &mut Vec<u8>, row: &Api, flexible: bool) {
    out.extend_from_slice(&row.key.wire().to_be_bytes());
    out.extend_from_slice(&row.advertised_min.to_be_bytes());
    out.extend_from_slice(&row.max.to_be_bytes());
    put_no_tags(out, flexible);
}

/// The tagged fields behind the body: 0 supported, 1 epoch, 2 finalized. A field at its default is left out, as Kafka does.
fn put_features(out: &mut Vec<u8>, version: i16, features: &Features<'_>) {
    let visible = |f: &&Feature| version >= 4 || f.min > 0;
    let supported: Vec<Feature> = features.supported.iter().filter(visible).copied().collect();
    let count = usize::from(!supported.is_empty())
        + usize::from(features.finalized_epoch != -1)
        + usize::from(!features.finalized.is_empty());
    put_varint(out, count as u32);
    if !supported.is_empty() {
        put_feature_tag(out, 0, &supported, |f| [f.min, f.max]);
    }
    if features.finalized_epoch != -1 {
        out.extend_from_slice(&[1, 8]);
        out.extend_from_slice(&features.finalized_epoch.to_be_bytes());
    }
    if !features.finalized.is_empty() {
        // The schema of a finalized feature has its maximum first.
        put_feature_tag(out, 2, features.finalized, |f| [f.max, f.min]);
    }
}

fn put_feature_tag(out: &mut Vec<u8>, tag: u32, list: &[Feature], levels: fn(&Feature) -> [i16; 2]) {
    let mut body = Vec::new();
    put_length(&mut body, true, list.len());
    for feature in list {
        put_string(&mut body, true, Some(feature.name));
        for level in levels(feature) {
            body.extend_from_slice(&level.to_be_bytes());
        }
        body.push(0);
    }
    put_varint(out, tag);
    put_varint(out, body.len() as u32);
    out.extend_from_slice(&body);
}

const _: () = {
    let mut i = 1;
    while i < TABLE.len() {
        assert!((TABLE[i - 1].key as i16) < TABLE[i].key as i16, "rows ascend by key");
        i += 1;
    }
};
