//! Skeleton: replaced by the driver.
use std::net::SocketAddr;
use std::path::Path;

use super::buffer::Pool;
use super::*;

pub struct SimIo {
    pool: Pool,
}

#[allow(unused_variables)]
impl SimIo {
    pub fn push(&mut self, op: Op, token: Token) {
        unreachable!()
    }
    pub fn turn(&mut self, wait: Wait, out: &mut Vec<Done>) {
        unreachable!()
    }
    pub fn now(&self) -> Mono {
        unreachable!()
    }
    pub fn wall_ms(&self) -> i64 {
        unreachable!()
    }
    pub fn random(&mut self, bytes: &mut [u8]) {
        unreachable!()
    }
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }
    pub fn grow_pool(&mut self) -> bool {
        unreachable!()
    }
    pub fn listen(&mut self, addr: SocketAddr) -> Result<(ListenerId, SocketAddr), Errno> {
        unreachable!()
    }
    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        unreachable!()
    }
    pub fn storage_caps(&mut self, path: &Path) -> Result<StorageCaps, Errno> {
        unreachable!()
    }
    pub fn disk_space(&mut self, path: &Path) -> Result<DiskSpace, Errno> {
        unreachable!()
    }
    pub fn lock_dir(&mut self, dir: &Path) -> Result<(), LockError> {
        unreachable!()
    }
    pub fn wait(&mut self, op: Op) -> Done {
        unreachable!()
    }
}
