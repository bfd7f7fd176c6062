//! The `sim` driver under the suite, in a world where nothing fails.

use std::net::SocketAddr;
use std::path::Path;

use corelog::base::limits::BLOCK_BYTES;
use corelog::io::Io;
use corelog::io::sim::{self, ClientRead, DiskConfig, Faults, SimConn};

use super::shards::{Player, ends};
use super::{Peer, World, each_case};

struct SimWorld(sim::World);

fn make_world(case: &str) -> Option<Box<dyn World>> {
    // Another order of completions for each case, the same in every run.
    let seed = case.bytes().fold(1, |seed: u64, byte| seed.wrapping_mul(31) ^ u64::from(byte));
    let world = sim::World::new(seed, Faults::none());
    world.add_disk("/sim", DiskConfig::default());
    Some(Box::new(SimWorld(world)))
}

impl World for SimWorld {
    fn io(&mut self) -> Io {
        Io::Sim(Box::new(self.0.io(self.0.start_process(), 64 * BLOCK_BYTES)))
    }

    fn shards(&mut self, count: usize) -> Vec<Io> {
        let process = self.0.start_process();
        (0..count).map(|_| Io::Sim(Box::new(self.0.io(process, 64 * BLOCK_BYTES)))).collect()
    }

    fn play(&mut self) {
        let process = self.0.start_process();
        self.0.schedule_shards(process);
        let ios = [0, 1].map(|_| Io::Sim(Box::new(self.0.io(process, 64 * BLOCK_BYTES))));
        let mut wakers = [ios[1].waker(), ios[0].waker()].into_iter();
        let players = ios.into_iter().zip(ends());
        let mut players: Vec<Player> =
            players.map(|(io, ends)| Player::new(io, ends, wakers.next().expect("one each"))).collect();
        let mut over = [false; 2];
        while over != [true; 2] {
            let at = self.0.next_turn(process);
            over[at] = players[at].step();
        }
        assert!(self.0.cover("wake_sent") > 0, "nobody slept");
    }

    fn dir(&self) -> &Path {
        Path::new("/sim")
    }

    fn connect(&mut self, to: SocketAddr) -> Box<dyn Peer> {
        Box::new(SimPeer(self.0.connect(to).expect("somebody listens")))
    }
}

struct SimPeer(SimConn);

impl Peer for SimPeer {
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.0.send(bytes)
    }

    fn read(&mut self, into: &mut Vec<u8>) -> bool {
        loop {
            match self.0.recv(usize::MAX) {
                ClientRead::Bytes(bytes) => into.extend(bytes),
                ClientRead::Nothing => return true,
                ClientRead::End | ClientRead::Reset => return false,
            }
        }
    }

    fn read_some(&mut self, into: &mut Vec<u8>, max: usize) -> bool {
        match self.0.recv(max) {
            ClientRead::Bytes(bytes) => into.extend(bytes),
            ClientRead::Nothing => {}
            ClientRead::End | ClientRead::Reset => return false,
        }
        true
    }

    fn finish(&mut self) {
        self.0.finish();
    }
}

each_case!(self::make_world);
