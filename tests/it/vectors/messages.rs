//! The facade: every vector of every API and version that we serve decodes, encodes to the same bytes, and fails when cut.

use corelog::wire::api::{ApiKey, TABLE};
use corelog::wire::frame::RequestHeader;
use corelog::wire::msg::{self, Bytes};

use super::{int, nullable_text, vectors};

/// A request frame without its length prefix: a header with correlation id 7 and no client id, then `body`.
pub fn request_frame(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&api.wire().to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&7i32.to_be_bytes());
    frame.extend_from_slice(&(-1i16).to_be_bytes());
    if api.is_flexible(version) {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame
}

/// A response frame without its length prefix, correlation id 7.
fn response_frame(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = 7i32.to_be_bytes().to_vec();
    if api.response_header_version(version) == 1 {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame
}

#[test]
fn requests_decode_and_encode_to_the_same_bytes() {
    let mut count = 0;
    for row in TABLE {
        for version in row.min..=row.max {
            for vector in vectors(
                "messages::requests_decode_and_encode_to_the_same_bytes",
                &format!("{}Request", row.name),
                version,
            ) {
                let frame = request_frame(row.key, version, &vector.body);
                if vector.over_limit {
                    assert!(msg::recode_request(&frame).is_err(), "{}", vector.name);
                    continue;
                }
                let again = msg::recode_request(&frame).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
                assert_eq!(&again[4..], &frame[..], "{}", vector.name);
                for len in 0..frame.len() {
                    assert!(msg::recode_request(&frame[..len]).is_err(), "{} cut at {len}", vector.name);
                }
                // Kafka ignores what follows a request's body.
                let long = [&frame[..], &[0]].concat();
                assert_eq!(msg::recode_request(&long).as_ref(), Ok(&again), "{} and a byte", vector.name);
                count += 1;
            }
        }
    }
    println!("{count} request vectors");
}

#[test]
fn responses_decode_and_encode_to_the_same_bytes() {
    let mut count = 0;
    for row in TABLE {
        for version in row.min..=row.max {
            for vector in vectors(
                "messages::responses_decode_and_encode_to_the_same_bytes",
                &format!("{}Response", row.name),
                version,
            ) {
                let frame = response_frame(row.key, version, &vector.body);
                let decode =
                    |bytes: &[u8]| msg::recode_response(row.key, version, Bytes::copy_from_slice(bytes));
                let again = decode(&frame).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
                assert_eq!(&again[4..], &frame[..], "{}", vector.name);
                for len in 0..frame.len() {
                    assert!(decode(&frame[..len]).is_err(), "{} cut at {len}", vector.name);
                }
                count += 1;
            }
        }
    }
    println!("{count} response vectors");
}

/// The vectors' headers name API 0 at version 0, which nobody serves: the first four bytes are replaced by an API whose header has
/// the version in question.
#[test]
fn request_headers_are_parsed() {
    for (header_version, api, version) in [(1, ApiKey::Metadata, 1i16), (2, ApiKey::Metadata, 12)] {
        for vector in vectors("messages::request_headers_are_parsed", "RequestHeader", header_version) {
            let mut frame = vector.body;
            frame[..2].copy_from_slice(&api.wire().to_be_bytes());
            frame[2..4].copy_from_slice(&version.to_be_bytes());
            let header = RequestHeader::parse(&frame).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
            assert_eq!(
                i64::from(header.correlation_id),
                int(&vector.json["correlationId"]),
                "{}",
                vector.name
            );
            assert_eq!(header.client_id, nullable_text(&vector.json["clientId"]), "{}", vector.name);
            assert_eq!(header.body_at, frame.len(), "{}", vector.name);
            for len in 0..frame.len() {
                assert!(RequestHeader::parse(&frame[..len]).is_err(), "{} cut at {len}", vector.name);
            }
        }
    }
}
