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
        Some(limit) if limit < MEMLOCK_MIN => {
            let found = format!("glommio asks for {} KiB", MEMLOCK_MIN / 1024);
            Err(memlock_low(limit, &found, "it registers memory with the kernel at its start"))
        }
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

fn memlock_low(limit: u64, found: &str, means: &str) -> Fatal {
    let mut tries = probe::memlock_remedies();
    tries.push(probe::WITHOUT.into());
    Fatal {
        code: "memlock",
        summary: "glommio cannot run with so little lockable memory".into(),
        found: format!("RLIMIT_MEMLOCK {} KiB, {found}", limit / 1024),
        means: means.into(),
        tries,
    }
}

pub fn explain(error: &GlommioError<()>) -> Fatal {
    explain_with(error, probe::memlock_bytes())
}

/// `memlock` is RLIMIT_MEMLOCK.
fn explain_with(error: &GlommioError<()>, memlock: Option<u64>) -> Fatal {
    if let (Some(libc::ENOMEM), Some(limit)) = (error.raw_os_error(), memlock) {
        let means =
            "three rings and a buffer of each shard count towards it, and this user's other processes";
        return memlock_low(limit, &error.to_string(), means);
    }
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

    // The rings of the shards before it had taken what the limit allows: the message named every limit but that.
    #[test]
    fn too_little_lockable_memory_is_named_with_its_remedy() {
        let check = |errno, memlock, code| {
            let error = GlommioError::from(std::io::Error::from_raw_os_error(errno));
            let fatal = explain_with(&error, memlock);
            assert_eq!(fatal.code, code);
            fatal
        };
        let fatal = check(libc::ENOMEM, Some(64 * 1024), "memlock");
        assert!(fatal.found.contains("64 KiB") && fatal.tries[0].contains("memlock"), "{fatal}");
        check(libc::ENOMEM, None, "glommio-setup");
        check(libc::EMFILE, Some(64 * 1024), "glommio-setup");
    }
}
