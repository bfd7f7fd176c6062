//! Peers that keep a connection and do nothing with it: idle ones, slow senders, those that do not read.

use super::connection::{Connection, Phase};
use super::{
    FRAME_BYTES_PER_SECOND_MIN, FRAME_HEADER_MS_MAX, SEND_STALL_MS_MAX, SHORT_BYTES_PER_SECOND_MIN,
    SHORT_STALL_MS_MAX, Server, ServerConfig,
};
use crate::io::Mono;

impl Server {
    /// Closes every connection whose patience is used up.
    pub(super) fn sweep(&mut self, now: Mono) {
        let closed = std::mem::take(&mut self.closed_for_memory);
        if closed > 0 {
            tracing::warn!(
                connections = closed,
                "closed: the requests that wait took all the memory that they may; a larger `memory` takes more"
            );
        }
        let short = self.budget.is_short();
        if short {
            for (at, conn) in &mut self.connections {
                self.budget.settle(at, conn);
            }
        }
        self.listen_again();
        let late: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, conn)| conn.phase == Phase::Open)
            .filter(|(_, conn)| is_late(conn, &self.config, now) || short && is_hoarding(conn, now))
            .map(|(at, _)| at)
            .collect();
        for at in late {
            self.close(at);
        }
    }
}

/// While memory is short: an answer that is not being taken, a frame that does not come.
fn is_hoarding(conn: &Connection, now: Mono) -> bool {
    if conn.sending && now.since_ms(conn.send_since) > SHORT_STALL_MS_MAX {
        return true;
    }
    let Some(ms) = conn.frame_ms(now).filter(|_| conn.inbox.is_empty() && conn.receiving) else {
        return false;
    };
    ms > SHORT_STALL_MS_MAX && (conn.splitter.held_bytes() as u64) < SHORT_BYTES_PER_SECOND_MIN * (ms / 1000)
}

fn is_late(conn: &Connection, config: &ServerConfig, now: Mono) -> bool {
    if conn.sending && now.since_ms(conn.send_since) > SEND_STALL_MS_MAX {
        return true;
    }
    if let Some(ms) = conn.frame_ms(now) {
        let due = FRAME_BYTES_PER_SECOND_MIN * (ms / 1000);
        // A frame that waits in our inbox is our own slowness, not the peer's.
        if conn.inbox.is_empty() && ms > FRAME_HEADER_MS_MAX && (conn.splitter.held_bytes() as u64) < due {
            return true;
        }
    }
    conn.owes_nothing() && now.since_ms(conn.last_heard) > config.idle_ms_max
}
