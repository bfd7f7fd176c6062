//! Requests about topics and configurations.

use super::rig::{NAME, Rig, describe_configs, metadata};
use crate::controller::configs::{BROKER, TOPIC};
use crate::server::handlers::describe_configs::ANSWER_BYTES_MAX;
use crate::wire::msg::{self, Bytes, DescribeConfigsRequest, DescribeConfigsResponse};

/// Each unknown name was once a request of its own to the controller: a request for thousands took the square of their number, and
/// made as many partitions as its client liked.
#[test]
fn what_one_request_creates_by_asking_is_bounded_like_any_request() {
    let mut rig = Rig::new(&[("num.partitions", "5000")]);
    let conn = rig.connect();
    rig.receive(conn, &metadata(["a", "b", NAME, "c", "b"]));
    assert_eq!(rig.topics(), 1, "15,000 partitions are too many for one request");
    rig.receive(conn, &metadata(["a", "a", "/", NAME, "b"]));
    assert_eq!(rig.topics(), 3);
    rig.settle();
    assert_eq!(rig.sent.len(), 2, "both were answered");
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    let names: Vec<String> = (0..10_001).map(|i| format!("t{i}")).collect();
    rig.receive(conn, &metadata(names.iter().map(String::as_str)));
    assert_eq!(rig.topics(), 1);
    rig.receive(conn, &metadata(names.iter().skip(1).map(String::as_str)));
    assert_eq!(rig.topics(), 10_001);
}

fn described(rig: &Rig) -> DescribeConfigsResponse {
    let (_, answer) = rig.sent.last().expect("it was answered");
    msg::decode_response::<DescribeConfigsRequest>(Bytes::from(answer[4..].to_vec()), 4).expect("decodes")
}

/// Kafka answers a resource as often as it is named.
#[test]
fn a_resource_that_is_named_again_is_described_again() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    rig.receive(conn, &describe_configs([(TOPIC, NAME), (BROKER, "1"), (TOPIC, "none"), (TOPIC, NAME)]));
    rig.settle();
    let results = described(&rig).results;
    let shown: Vec<_> = results
        .iter()
        .map(|r| (r.resource_type, &*r.resource_name, r.error_code, !r.configs.is_empty()))
        .collect();
    let topic = (TOPIC, NAME, 0, true);
    assert_eq!(shown, [topic, (BROKER, "1", 0, true), (TOPIC, "none", 3, false), topic]);
}

/// Eight bytes of a request that name the broker have a hundred thousand for an answer: named sixty thousand times in one frame it was
/// answered with gigabytes.
#[test]
fn what_one_answer_describes_is_bounded() {
    let mut rig = Rig::new(&[]);
    let conn = rig.connect();
    rig.receive(conn, &describe_configs(std::iter::repeat_n((BROKER, "1"), 1200)));
    rig.settle();
    let results = described(&rig).results;
    assert_eq!(results.len(), 1200);
    let refused = results.iter().filter(|result| result.error_code == 42).count();
    assert!((1..1200).contains(&refused), "{refused} are refused");
    let (_, answer) = rig.sent.last().expect("it was answered");
    assert!(answer.len() < ANSWER_BYTES_MAX);
}
