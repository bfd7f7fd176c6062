//! Requests about topics and configurations.

use super::rig::{NAME, Rig, metadata};

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
