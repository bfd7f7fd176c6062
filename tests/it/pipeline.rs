//! The bare pipeline, smoke-sized: every mix of files, sizes and depths is answered, and its files are gone afterwards.

use std::path::Path;

use corelog::calibrate::pipeline::{Args, Load, measure};
use corelog::config::runtime::Runtime;
use corelog::io::open::{DriverConfig, open};

use crate::support::{runtime, skip};

#[test]
fn it_answers_every_request() {
    // The load needs a ring, whatever the server runs on.
    if let Err(fatal) = open(Runtime::Uring, DriverConfig { recv_buffers: 8, ..DriverConfig::default() }) {
        return skip("pipeline::it_answers_every_request", &fatal.to_string());
    }
    let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipeline-{}", std::process::id()));
    std::fs::create_dir_all(&data_dir).expect("a directory");
    for (files, conns, payload_bytes, depth) in
        [(1, 16, 1000, 1), (4, 32, 5000, 4), (2, 4, 300_000, 3), (1, 1, 0, 2)]
    {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let args = Args {
            runtime: runtime().expect("one that runs"),
            data_dir: data_dir.clone(),
            listen,
            files,
            bytes_total: 8 << 20,
            cpu: None,
            spin: false,
        };
        let load = Load { conns, payload_bytes, depth, warm_up_ms: 20, measured_ms: 100, cpu: None };
        let measured = measure(&args, &load).expect("it runs");
        assert!(measured.requests > 0 && measured.p50_us > 0.0, "{measured}");
    }
    assert_eq!(std::fs::read_dir(&data_dir).expect("is there").count(), 0);
    std::fs::remove_dir(&data_dir).expect("empty");
}
