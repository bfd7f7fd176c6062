//! What this kernel and this process may do with io_uring, and what to say when it is too little.

use std::fmt;
use std::fs;
use std::io;

use io_uring::{IoUring, opcode};

use crate::base::error::Fatal;
use crate::io::linux::kernel;

/// Oldest kernel with DEFER_TASKRUN, multishot receive and provided-buffer rings.
const KERNEL_MIN: kernel::Version = (6, 1);

/// What always works instead.
pub const WITHOUT: &str = "serve --runtime epoll, which does without io_uring";

/// Operations that the driver cannot do without; all of them are in 6.1.
const OPCODES: [(&str, u8); 15] = [
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("FALLOCATE", opcode::Fallocate::CODE),
    ("OPENAT", opcode::OpenAt::CODE),
    ("RENAMEAT", opcode::RenameAt::CODE),
    ("UNLINKAT", opcode::UnlinkAt::CODE),
    ("MKDIRAT", opcode::MkDirAt::CODE),
    ("ACCEPT", opcode::AcceptMulti::CODE),
    ("RECV", opcode::RecvMulti::CODE),
    ("SEND", opcode::Send::CODE),
    ("SENDMSG", opcode::SendMsg::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];

/// Whether blocks are registered with the kernel, which saves it pinning their pages for each operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// No block was mapped yet.
    NotYet,
    Yes,
    /// Refused: plain READ and WRITE are used, and results are to be marked.
    Fallback(String),
}

/// What is in effect in one driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Release of the running kernel, as in `6.18.1`.
    pub kernel: String,
    /// Names of the ring's set-up flags.
    pub flags: &'static [&'static str],
    pub registered: Registered,
    /// FTRUNCATE is an operation of the ring (6.9); a plain call otherwise.
    pub ftruncate: bool,
    /// RLIMIT_MEMLOCK in bytes; none if unlimited.
    pub memlock_bytes: Option<u64>,
    pub entries: u32,
}

impl Probe {
    /// RLIMIT_MEMLOCK as people read it.
    pub fn memlock(&self) -> String {
        self.memlock_bytes.map_or("unlimited".to_string(), |b| format!("{} KiB", b / 1024))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers = match &self.registered {
            Registered::NotYet => "not mapped yet".to_string(),
            Registered::Yes => "registered".to_string(),
            Registered::Fallback(why) => format!("FALLBACK, not registered ({why})"),
        };
        write!(
            f,
            "kernel {} · io_uring({}) · {} entries · buffers {buffers} · memlock {}",
            self.kernel,
            self.flags.join(","),
            self.entries,
            self.memlock()
        )
    }
}

/// Refuses a kernel that is too old to try.
pub fn check_kernel(release: &str) -> Result<(), Fatal> {
    if kernel::version(release) >= KERNEL_MIN {
        return Ok(());
    }
    Err(Fatal {
        code: "kernel-old",
        summary: format!("Linux {release} is older than 6.1"),
        found: format!("kernel {release}"),
        means: "multishot receive and deferred task work of io_uring are missing".into(),
        tries: vec!["upgrade the kernel to 6.1 or later (6.6 or later is best)".into(), WITHOUT.into()],
    })
}

/// Refuses a kernel without an operation that the driver needs; tells whether FTRUNCATE is there.
pub fn check_opcodes(uring: &IoUring, release: &str) -> Result<bool, Fatal> {
    let mut probe = io_uring::Probe::new();
    uring.submitter().register_probe(&mut probe).map_err(|e| blocked(&e, release))?;
    let missing: Vec<&str> =
        OPCODES.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    let params = uring.params();
    if missing.is_empty() && params.is_feature_nodrop() && params.is_feature_ext_arg() {
        return Ok(probe.is_supported(opcode::Ftruncate::CODE));
    }
    Err(Fatal {
        code: "kernel-old",
        summary: "io_uring of this kernel lacks operations".into(),
        found: format!(
            "kernel {release}, missing: {}",
            if missing.is_empty() { "features" } else { "operations" }
        ),
        means: format!("the driver needs {}", missing.join(" ")),
        tries: vec!["upgrade the kernel to 6.1 or later (6.6 or later is best)".into(), WITHOUT.into()],
    })
}

/// Explains why a ring could not be set up.
pub fn blocked(error: &io::Error, release: &str) -> Fatal {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    explain(error, release, disabled.trim(), has_seccomp_filter(&status), memlock_bytes())
}

/// `disabled` is the value of `kernel.io_uring_disabled`, empty where the kernel has no such switch; `memlock` is RLIMIT_MEMLOCK.
fn explain(error: &io::Error, release: &str, disabled: &str, seccomp: bool, memlock: Option<u64>) -> Fatal {
    if let (Some(libc::ENOMEM), Some(limit)) = (error.raw_os_error(), memlock) {
        let mut tries = memlock_remedies();
        tries.push(WITHOUT.into());
        return Fatal {
            code: "memlock",
            summary: format!("io_uring cannot lock the memory of its rings ({error})"),
            found: format!("RLIMIT_MEMLOCK {} KiB · kernel {release}", limit / 1024),
            means:
                "rings and blocks of all shards count towards it, and those of this user's other processes"
                    .into(),
            tries,
        };
    }
    let found = format!(
        "io_uring_setup: {error} · kernel {release} · kernel.io_uring_disabled = {} · seccomp {}",
        if disabled.is_empty() { "absent" } else { disabled },
        if seccomp { "filter active" } else { "off" }
    );
    let forbidden = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
    match disabled {
        "1" | "2" if forbidden => Fatal {
            code: "uring-disabled",
            summary: "io_uring is switched off on this host".into(),
            found,
            means: "the sysctl kernel.io_uring_disabled forbids it to this process".into(),
            tries: vec![
                "sysctl -w kernel.io_uring_disabled=0".into(),
                "with 1: add the user to the group of kernel.io_uring_group".into(),
                WITHOUT.into(),
            ],
        },
        _ if forbidden && seccomp => Fatal {
            code: "uring-blocked",
            summary: format!("io_uring_setup is not permitted ({error})"),
            found,
            means: "a seccomp filter blocks io_uring, as the default profiles of container runtimes do".into(),
            tries: vec![
                "--security-opt seccomp=PROFILE, one that allows io_uring_setup, io_uring_enter and io_uring_register"
                    .into(),
                WITHOUT.into(),
            ],
        },
        _ => Fatal {
            code: if forbidden { "uring-blocked" } else { "uring-setup" },
            summary: format!("io_uring cannot be set up ({error})"),
            found,
            means: "the kernel refused a ring".into(),
            tries: vec![
                "look at the limits of memory and open files: ulimit -a".into(),
            ],
        },
    }
}

/// RLIMIT_MEMLOCK of this process in bytes; none if unlimited.
pub fn memlock_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a structure of the type that the call fills.
    let rc = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (rc == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// What lets a process lock memory.
pub fn memlock_remedies() -> Vec<String> {
    vec![
        "ulimit -l unlimited, LimitMEMLOCK=infinity in the systemd unit, or --ulimit memlock=-1 for a container"
            .into(),
        "setcap cap_ipc_lock+ep on the binary".into(),
    ]
}

/// Mode 2 of the `Seccomp` line is a filter (proc_pid_status(5)).
fn has_seccomp_filter(status: &str) -> bool {
    status.lines().find_map(|l| l.strip_prefix("Seccomp:")).is_some_and(|mode| mode.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_by_name() {
        assert!(check_kernel("6.1.0-18-amd64").is_ok());
        assert!(check_kernel("6.18.44").is_ok());
        assert!(check_kernel("7.0-rc1").is_ok());
        assert_eq!(check_kernel("5.15.0-91-generic").expect_err("too old").code, "kernel-old");
    }

    #[test]
    fn a_refusal_names_its_cause() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        let code = |disabled, seccomp| explain(&refused, "6.18", disabled, seccomp, Some(1 << 16)).code;
        assert_eq!(code("2", false), "uring-disabled");
        assert_eq!(code("1", true), "uring-disabled");
        assert_eq!(code("0", true), "uring-blocked");
        assert_eq!(code("", false), "uring-blocked");
        let no_memory = io::Error::from_raw_os_error(libc::ENOMEM);
        assert_eq!(explain(&no_memory, "6.18", "0", true, None).code, "uring-setup");
        // It said that the kernel refused a ring, and `auto` did not start, where a limit was too low.
        let low = explain(&no_memory, "6.18", "0", true, Some(1 << 16));
        assert_eq!(low.code, "memlock");
        assert!(low.found.contains("64 KiB") && low.tries.concat().contains("ulimit -l"), "{low}");
        assert_eq!(low.tries.last().map(String::as_str), Some(WITHOUT));
    }

    #[test]
    fn seccomp_is_read_from_its_line() {
        assert!(has_seccomp_filter("Name:\tx\nSeccomp:\t2\n"));
        assert!(!has_seccomp_filter("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
    }
}
