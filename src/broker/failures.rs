//! Why a start failed, in words that say what to try.

use std::net::SocketAddr;
use std::path::Path;

use crate::base::error::Fatal;
use crate::base::limits::SHARDS_MAX;
use crate::io::{Errno, LockError};

pub fn bad_file(path: &Path, error: &std::io::Error) -> Fatal {
    Fatal {
        code: "bad-config-file",
        summary: format!("{} cannot be read", path.display()),
        found: error.to_string(),
        means: "the broker does not start without the configuration it was told to use".into(),
        tries: vec!["--config FILE with a file that this user may read".into()],
    }
}

pub fn bad_directory(dir: &Path, errno: Errno) -> Fatal {
    let code = if errno == Errno::NOSPC { "disk-full" } else { "data-dir-unusable" };
    let (means, try_this) = match errno {
        Errno::ACCES => ("this user may not write there", format!("chown or chmod {}", dir.display())),
        Errno::ROFS => {
            ("the file system is mounted read-only", "mount -o remount,rw, or another --data-dir".into())
        }
        Errno::MFILE => {
            ("the process may not open more files", "ulimit -n, or LimitNOFILE= of its systemd unit".into())
        }
        Errno::NOSPC => ("the disk is full", "free some space, or another --data-dir".into()),
        _ => ("the logs cannot be kept there", "another --data-dir".into()),
    };
    Fatal {
        code,
        summary: format!("the data directory {} cannot be used", dir.display()),
        found: errno.to_string(),
        means: means.into(),
        tries: vec![try_this],
    }
}

pub fn locked(dir: &Path, error: &LockError) -> Fatal {
    let (found, first) = match error {
        LockError::Held(Some(pid)) => {
            (format!("process {pid} holds it"), format!("stop that broker first: kill {pid}"))
        }
        LockError::Held(None) => ("another process holds it".into(), "stop the broker that uses it".into()),
        // Nobody holds it: the lock file cannot be made.
        LockError::Failed(errno) => return bad_directory(dir, *errno),
    };
    Fatal {
        code: "data-dir-locked",
        summary: format!("the data directory {} is in use", dir.display()),
        found,
        means: "two brokers on one directory would destroy each other's logs".into(),
        tries: vec![first, "another --data-dir".into()],
    }
}

/// `own`: this broker listens there already.
pub fn not_listening(addr: SocketAddr, errno: Errno, own: bool) -> Fatal {
    let in_use = errno == Errno::ADDRINUSE;
    let means = match (in_use, own) {
        (true, true) => "another listener of this broker has this port already",
        (true, false) => "another process serves this port",
        (false, _) => "the address cannot be bound",
    };
    let owner = format!("ss -ltnp 'sport = :{}' names the owner", addr.port());
    let other = "--listen 127.0.0.1:0 takes a free port".to_string();
    Fatal {
        code: if in_use { "port-in-use" } else { "listener-failed" },
        summary: format!("cannot listen on {addr}"),
        found: errno.to_string(),
        means: means.into(),
        tries: if in_use && own { vec![other] } else { vec![owner, other] },
    }
}

/// The port of one shard.
pub fn not_advertised(addr: SocketAddr, shard: u16, errno: Errno, own: bool) -> Fatal {
    let mut whole = not_listening(addr, errno, own);
    let moved = "-X advertise.port=N moves the ports of all shards; 0 takes free ones".to_string();
    if let Some(last) = whole.tries.last_mut() {
        *last = moved;
    }
    Fatal { summary: format!("shard {shard} cannot listen on {addr}"), ..whole }
}

pub fn dead(why: &str) -> Fatal {
    Fatal {
        code: "log-directory-failed",
        summary: "a write or a flush failed while the broker ran".into(),
        found: why.into(),
        means: "nothing was acknowledged after it; a restart reads the directory and decides again".into(),
        tries: vec!["dmesg, and the disk's health; then start again".into()],
    }
}

pub fn ids_end(node: i32, shards: u16) -> Fatal {
    let most = (i32::MAX - i32::from(shards)) / SHARDS_MAX as i32;
    Fatal {
        code: "bad-config-value",
        summary: format!("the shards of node {node} have no broker ids"),
        found: format!("node.id={node}"),
        means: format!("each shard is advertised under an id of its own, {SHARDS_MAX} for each node"),
        tries: vec![
            format!("-X node.id={most} or less, in a new directory"),
            "--advertise broker, which needs one id".into(),
        ],
    }
}

pub fn ports_end(first: u16, shards: u16) -> Fatal {
    Fatal {
        code: "bad-config-value",
        summary: format!("{shards} shards have no ports from {first} on"),
        found: format!("advertise.port={first}"),
        means: "every shard listens on a port of its own, and there are 65535".into(),
        tries: vec!["-X advertise.port=9192".into(), "-X advertise.port=0 takes free ones".into()],
    }
}

/// `least` is the memory that these shards need; `shards_max` how many there may be with what there is.
pub fn memory_small(shards: u16, found: String, least: &str, shards_max: Option<u16>) -> Fatal {
    let fewer = shards_max
        .map(|most| if most == 1 { "--shards 1".into() } else { format!("--shards {most} or fewer") });
    Fatal {
        code: "bad-config-value",
        summary: format!("too little memory for {shards} {}", if shards == 1 { "shard" } else { "shards" }),
        found,
        means: "a shard's part of it could not take a request of 1 MiB, which producers send by default"
            .into(),
        tries: [format!("-X memory={least}")].into_iter().chain(fewer).collect(),
    }
}

pub fn thread_ended(shard: u16, what: &str) -> Fatal {
    Fatal {
        code: "shard-failed",
        summary: format!("shard {shard} did not start"),
        found: what.into(),
        means: "without it its partitions have no core".into(),
        tries: vec!["more memory, a higher limit of threads (ulimit -u), or fewer --shards".into()],
    }
}
