//! A file system on a loop device whose every write and flush is logged. Needs root, FUSE, loop devices and
//! `qemu-storage-daemon`; all of it is taken down again in the one order that does not hang: unmount, detach, end the daemon.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// What the disks are formatted with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// That of `CORELOG_POWERLOSS_FS`, else ext4.
    pub fn asked() -> FileSystem {
        match std::env::var("CORELOG_POWERLOSS_FS").as_deref() {
            Err(_) | Ok("ext4") => FileSystem::Ext4,
            Ok("xfs") => FileSystem::Xfs,
            Ok(other) => panic!("CORELOG_POWERLOSS_FS={other}: ext4 or xfs"),
        }
    }

    fn maker(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "mkfs.ext4",
            FileSystem::Xfs => "mkfs.xfs",
        }
    }

    pub fn make(self, image: &Path) {
        let options: &[&str] = match self {
            FileSystem::Ext4 => {
                &["-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
            }
            FileSystem::Xfs => &["-q", "-f", "-K"],
        };
        run(Command::new(self.maker()).args(options).arg(image));
    }

    pub fn mount(self, device: &str, at: &Path) {
        let (kind, options) = match self {
            FileSystem::Ext4 => ("ext4", "noatime"),
            // Copies of one disk have one name, and that of the last may just be going.
            FileSystem::Xfs => ("xfs", "noatime,nouuid"),
        };
        run(Command::new("mount").args(["-t", kind, "-o", options, device]).arg(at));
    }
}

pub struct Rig {
    pub dir: PathBuf,
    pub mount: PathBuf,
    device: String,
    daemon: Option<u32>,
    mounted: bool,
}

/// Why the rig cannot be built here, or none.
pub fn missing() -> Option<String> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    if !root {
        return Some("root".into());
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("/dev/fuse".into());
    }
    ["qemu-storage-daemon", "losetup", FileSystem::asked().maker(), "mount"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").output().is_err())
        .map(str::to_string)
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// One `losetup --find` at a time on this host: two at once get the same device and destroy each other.
pub fn attach(image: &Path) -> String {
    let lock = std::env::temp_dir().join("corelog-loop.lock");
    let mut command = Command::new("flock");
    command.arg(lock).args(["losetup", "--find", "--show", "--direct-io=off"]).arg(image);
    String::from_utf8(run(&mut command).stdout).expect("a device name").trim().to_string()
}

pub fn detach(device: &str) {
    run(Command::new("losetup").arg("-d").arg(device));
}

pub fn umount(at: &Path) {
    for _ in 0..50 {
        if Command::new("umount").arg(at).output().is_ok_and(|o| o.status.success()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    run(Command::new("umount").arg(at));
}

impl Rig {
    /// Makes the file system; `base.img` beside it is the disk before the first logged write.
    pub fn build(dir: &Path, megabytes: u64) -> Rig {
        let _ = fs::remove_dir_all(dir);
        let mount_point = dir.join("mnt");
        fs::create_dir_all(&mount_point).expect("a directory for the rig");
        let (disk, export, log) = (dir.join("disk.img"), dir.join("export"), dir.join("writes.log"));
        File::create(&disk).and_then(|f| f.set_len(megabytes << 20)).expect("disk image");
        let file_system = FileSystem::asked();
        file_system.make(&disk);
        run(Command::new("cp").arg("--sparse=always").arg(&disk).arg(dir.join("base.img")));
        File::create(&log).and_then(|f| f.set_len(8 << 30)).expect("write log");
        File::create(&export).expect("export point");
        let pid_file = dir.join("daemon.pid");
        run(Command::new("qemu-storage-daemon")
            .args(["--daemonize", "--pidfile"])
            .arg(&pid_file)
            .args(["--blockdev", &format!("driver=file,node-name=disk,filename={}", disk.display())])
            .args(["--blockdev", &format!("driver=file,node-name=logf,filename={}", log.display())])
            .args(["--blockdev", "driver=blklogwrites,node-name=log,file=disk,log=logf,log-sector-size=512"])
            .args([
                "--export",
                &format!("type=fuse,id=e0,node-name=log,mountpoint={},writable=on", export.display()),
            ]));
        let daemon = fs::read_to_string(&pid_file).expect("pid file").trim().parse().ok();
        let device = attach(&export);
        file_system.mount(&device, &mount_point);
        Rig { dir: dir.to_path_buf(), mount: mount_point, device, daemon, mounted: true }
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("writes.log")
    }

    /// Takes it down; the write log is complete then.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.mounted) {
            umount(&self.mount);
            detach(&self.device);
        }
        if let Some(pid) = self.daemon.take() {
            run(Command::new("kill").arg(pid.to_string()));
            for _ in 0..100 {
                if !Path::new(&format!("/proc/{pid}")).exists() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.mounted || self.daemon.is_some() {
            self.finish();
        }
    }
}
