//! What the conformance suite does not ask for.

use super::*;
use crate::io::linux::skip::skip;
use crate::io::{OpenMode, WriteSync};

/// A small driver, unless glommio cannot run here.
fn made(test: &str, config: DriverConfig) -> Option<Glommio> {
    let config = DriverConfig { pool_bytes: 4 << 20, entries: 16, recv_buffers: 4, ..config };
    let made = Glommio::new(&config);
    made.inspect_err(|fatal| skip(&format!("glommio::tests::{test}"), fatal)).ok()
}

/// Descriptors of this process that name `path`.
fn descriptors_of(path: &Path) -> usize {
    let names = std::fs::read_dir("/proc/self/fd").expect("listed");
    names
        .filter(|name| std::fs::read_link(name.as_ref().expect("a name").path()).is_ok_and(|to| to == path))
        .count()
}

/// Where the calling thread may run: a list as in proc_pid_status(5).
fn cpus_allowed() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("listed");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("a list of CPUs").trim().to_string()
}

#[test]
fn a_driver_bound_to_a_cpu_keeps_its_threads_there() {
    let config = DriverConfig { cpu: Some(0), spin: SPIN_MAX, ..DriverConfig::default() };
    // On a thread of its own: the binding stays.
    let ran = std::thread::spawn(|| {
        let mut io = made("a_driver_bound_to_a_cpu_keeps_its_threads_there", config)?;
        let done = io.wait(Op::RemoveFile { path: "/absent/file".into() });
        let until = io.now().plus_ms(5);
        io.turn(Wait::Until(until), &mut Vec::new());
        assert!(io.now() >= until);
        let bound = io.executor.run(async { ::glommio::executor().spawn_blocking(cpus_allowed).await });
        Some((done.result, cpus_allowed(), bound))
    });
    let ran = ran.join().expect("no panic");
    let zero = || "0".to_string();
    assert!(ran.as_ref().is_none_or(|ran| *ran == (Err(Errno::NOENT), zero(), zero())), "{ran:?}");
}

#[test]
fn a_dropped_driver_leaves_no_file_open() {
    let Some(mut io) = made("a_dropped_driver_leaves_no_file_open", DriverConfig::default()) else { return };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    std::fs::create_dir_all(&dir).expect("a directory for tests");
    let path = dir.join(format!("glommio-{}-dropped", std::process::id()));
    let opened = io.wait(Op::OpenFile { path: path.clone(), mode: OpenMode::Replace });
    let Payload::Opened(file, _) = opened.payload else { panic!("{opened:?}") };
    assert!(io.grow_pool());
    let mut block = io.pool().take().expect("a free block");
    block.append(b"durable");
    let data = block.slice_padded(0);
    io.wait(Op::Write { file, offset: 0, data, sync: WriteSync::Dsync });
    assert_eq!(descriptors_of(&path), 2, "one for durable writes");
    drop(io);
    assert_eq!(descriptors_of(&path), 0);
    std::fs::remove_file(&path).expect("removed");
}
