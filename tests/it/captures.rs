//! What a running Apache Kafka answered, recorded by the interop scripts into `tests/captures`: every exchange decodes.

use corelog::wire::api::ApiKey;
use corelog::wire::fuzz;
use corelog::wire::msg::{self, Bytes};
use serde_json::Value;

use crate::vectors::hex;

/// A frame without its length prefix, whether or not it was recorded with one.
fn frame(recorded: &Value) -> Option<Vec<u8>> {
    let bytes = hex(recorded.as_str()?);
    let prefix = bytes.first_chunk::<4>().map(|len| i32::from_be_bytes(*len));
    let prefixed = prefix == i32::try_from(bytes.len()).ok().map(|len| len - 4);
    Some(if prefixed { bytes[4..].to_vec() } else { bytes })
}

#[test]
fn recorded_exchanges_decode() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let Ok(files) = std::fs::read_dir(&folder) else {
        return println!("skipped: recorded exchanges (no tests/captures)");
    };
    let (mut requests, mut responses) = (0, 0);
    for file in files.map(|file| file.expect("a file").path()) {
        if file.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let list: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("text")).expect("JSON");
        for exchange in list.as_array().expect("a list") {
            let name = format!("{}: {}", file.display(), exchange["name"]);
            let request = frame(&exchange["request_hex"]).expect(&name);
            // Also those that Kafka did not answer: they are hostile on purpose.
            fuzz::requests(&request);
            let Some(response) = frame(&exchange["response_hex"]) else { continue };
            let head = [request[0], request[1], request[2], request[3]];
            let version = i16::from_be_bytes([head[2], head[3]]);
            let Some(api) = ApiKey::from_wire(i16::from_be_bytes([head[0], head[1]])) else { continue };
            if api == ApiKey::ApiVersions && !api.serves(version) {
                // Answered in version 0: the client does not know better.
                msg::recode_response(api, 0, Bytes::from(response)).expect(&name);
                continue;
            }
            if !api.serves(version) {
                continue;
            }
            msg::recode_request(&request).expect(&name);
            let again = msg::recode_response(api, version, Bytes::from(response.clone())).expect(&name);
            // An error 35 of ApiVersions has the body of version 0 whatever was asked.
            if api != ApiKey::ApiVersions {
                assert_eq!(&again[4..], &response[..], "{name}");
            }
            requests += 1;
            responses += 1;
        }
    }
    println!("{requests} requests and {responses} responses decoded");
}
