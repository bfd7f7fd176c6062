//! Peers that keep a connection and do nothing with it: idle ones, slow senders, those that do not read.

use super::connection::{Connection, Phase};
use super::{FRAME_BYTES_PER_SECOND_MIN, FRAME_HEADER_MS_MAX, SEND_STALL_MS_MAX, Server, ServerConfig};
use crate::io::Mono;

impl Server {
    /// Closes every connection whose patience is used up.
    pub(super) fn sweep(&mut self, now: Mono) {
        let late: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, conn)| conn.phase == Phase::Open && is_late(conn, &self.config, now))
            .map(|(at, _)| at)
            .collect();
        for at in late {
            self.close(at);
        }
    }
}

fn is_late(conn: &Connection, config: &ServerConfig, now: Mono) -> bool {
    if conn.sending && now.since_ms(conn.send_since) > SEND_STALL_MS_MAX {
        return true;
    }
    if let Some(since) = conn.frame_since {
        let ms = now.since_ms(since);
        let due = FRAME_BYTES_PER_SECOND_MIN * (ms / 1000);
        // A frame that waits in our inbox is our own slowness, not the peer's.
        if conn.inbox.is_empty() && ms > FRAME_HEADER_MS_MAX && (conn.splitter.held_bytes() as u64) < due {
            return true;
        }
    }
    conn.owes_nothing() && now.since_ms(conn.last_heard) > config.idle_ms_max
}
