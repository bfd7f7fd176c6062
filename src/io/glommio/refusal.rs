//! Why this driver cannot run here, and what would help.

use ::glommio::GlommioError;
use io_uring::IoUring;

use crate::base::error::Fatal;
use crate::io::linux::kernel;
use crate::io::uring::probe;

/// What glommio asks for at least.
const MEMLOCK_MIN: u64 = 512 * 1024;

/// Looks at what glommio needs before it does: its own refusals do not name their causes.
pub fn check() -> Result<(), Fatal> {
    let kernel = kernel::release();
    IoUring::new(2).map_err(|e| probe::blocked(&e, &kernel))?;
    match probe::memlock_bytes() {
        Some(limit) if limit < MEMLOCK_MIN => Err(memlock_low(limit)),
        _ if !std::path::Path::new("/proc/self/fd").is_dir() => Err(Fatal {
            code: "proc-missing",
            summary: "glommio cannot open files without /proc".into(),
            found: "/proc/self/fd is not there".into(),
            means: "each file is opened once by its path and once by its descriptor's name there".into(),
            tries: vec!["mount -t proc proc /proc".into(), "--runtime uring".into()],
        }),
        _ => Ok(()),
    }
}

fn memlock_low(limit: u64) -> Fatal {
    Fatal {
        code: "memlock",
        summary: "glommio refuses to run with so little lockable memory".into(),
        found: format!("RLIMIT_MEMLOCK {} KiB, glommio asks for {} KiB", limit / 1024, MEMLOCK_MIN / 1024),
        means: "it registers memory with the kernel at its start".into(),
        tries: vec![
            "LimitMEMLOCK=infinity in the systemd unit, or --ulimit memlock=-1 for a container".into(),
            "--runtime uring, which runs without".into(),
        ],
    }
}

pub fn explain(error: &GlommioError<()>) -> Fatal {
    Fatal {
        code: "glommio-setup",
        summary: "glommio cannot be set up".into(),
        found: error.to_string(),
        means: "its executor was refused something by the kernel".into(),
        tries: vec![
            "look at the limits of memory, threads and open files: ulimit -a".into(),
            "--runtime uring".into(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_lockable_memory_is_named_with_its_remedy() {
        let fatal = memlock_low(64 * 1024);
        assert_eq!(fatal.code, "memlock");
        assert!(fatal.found.contains("64 KiB") && fatal.tries[0].contains("memlock"));
    }
}
