//! Real files and loopback sockets, for the drivers that are not simulated.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use corelog::base::error::Fatal;
use corelog::io::open::DriverConfig;

use super::shards::{Player, ends};
use super::*;
use crate::support::skip;

/// Makes a driver.
pub type Make = fn(DriverConfig) -> Result<Io, Fatal>;

/// A world for one case over the driver that `make` makes, or none where it cannot run.
pub fn world(driver: &str, case: &str, make: Make) -> Option<Box<dyn World>> {
    if let Err(fatal) = make(config()) {
        skip(&format!("conformance::{driver}::{case}"), &fatal.to_string());
        return None;
    }
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let name = format!("{driver}-{}-{}-{case}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).expect("a directory for the case");
    Some(Box::new(RealWorld { dir, make }))
}

fn config() -> DriverConfig {
    DriverConfig { pool_bytes: 16 << 20, entries: 64, recv_buffers: RECV_BUFFERS, ..DriverConfig::default() }
}

struct RealWorld {
    dir: PathBuf,
    make: Make,
}

impl World for RealWorld {
    fn io(&mut self) -> Io {
        (self.make)(config()).expect("a second driver as good as the first")
    }

    fn shards(&mut self, count: usize) -> Vec<Io> {
        (0..count).map(|_| self.io()).collect()
    }

    fn play(&mut self) {
        let [first, second] = [mpsc::channel(), mpsc::channel()];
        let channels = [(first.0, second.1), (second.0, first.1)];
        let make = self.make;
        let threads = channels.into_iter().zip(ends()).map(|((tell, learn), ends)| {
            thread::spawn(move || {
                // On its own thread, as a ring must be.
                let io = make(config()).expect("a driver as good as the first");
                tell.send(io.waker()).expect("the other player waits for it");
                let other = learn.recv().expect("the other player tells it");
                let mut player = Player::new(io, ends, other);
                while !player.step() {}
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().expect("played to the end"));
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn connect(&mut self, to: SocketAddr) -> Box<dyn Peer> {
        let stream = TcpStream::connect(to).expect("the listener's queue takes us");
        stream.set_nonblocking(true).expect("non-blocking");
        Box::new(RealPeer { stream })
    }
}

impl Drop for RealWorld {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct RealPeer {
    stream: TcpStream,
}

impl Peer for RealPeer {
    fn write(&mut self, bytes: &[u8]) -> usize {
        match self.stream.write(bytes) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("write to the driver: {error}"),
        }
    }

    fn read(&mut self, into: &mut Vec<u8>) -> bool {
        let mut piece = [0; 16384];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(len) => into.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("read from the driver: {error}"),
            }
        }
    }

    fn read_some(&mut self, into: &mut Vec<u8>, max: usize) -> bool {
        let mut piece = vec![0; max];
        match self.stream.read(&mut piece) {
            Ok(0) => return false,
            Ok(len) => into.extend_from_slice(&piece[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("read from the driver: {error}"),
        }
        true
    }

    fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("an open connection");
    }
}
