//! From bytes to handlers: cuts frames, looks at the header, calls the one handler of the API.

use super::connection::{Chunk, Connection, Slot};
use super::handlers::{self, Handled, Request, Scratch};
use super::pending::Pending;
use super::{On, ServerConfig};
use crate::base::ids::ShardId;
use crate::base::metrics::{Path, Stamp, Stamps};
use crate::router::message::{Reply, ReplyBody, Ticket};
use crate::wire::api::ApiKey;
use crate::wire::error::WireError;
use crate::wire::frame::RequestHeader;

/// Where the controller lives.
pub const CONTROLLER: ShardId = ShardId(0);

/// The connection must be closed behind what it is owed: its bytes cannot be followed, or its acks=0 request failed.
pub struct Close;

impl From<WireError> for Close {
    fn from(error: WireError) -> Close {
        tracing::debug!(%error, "connection closed on its request");
        Close
    }
}

/// Dispatches the frames in the oldest chunk of the inbox, until it is used up, or the connection's bound of unanswered requests is reached,
/// or it owes more than `owed_bytes_max`; then the rest goes back to the front.
pub fn one_chunk(
    conn: &mut Connection,
    at: usize,
    owed_bytes_max: u64,
    config: &ServerConfig,
    scratch: &mut Scratch,
    on: &mut On<'_>,
) -> Result<(), Close> {
    let Some(Chunk { mut buf, at: parsed, received }) = conn.inbox.pop_front() else { return Ok(()) };
    let total = buf.len();
    let mut rest = &mut buf[parsed..];
    while !conn.waits_for_order() && !on.router.holds_back(at as u32) {
        let sequence = conn.next_sequence();
        let Some(frame) = conn.splitter.next_frame(&mut rest)? else {
            conn.frame_since =
                (conn.splitter.held_bytes() > 0).then(|| conn.frame_since.unwrap_or(on.cx.now));
            return Ok(());
        };
        let ticket = Ticket { shard: config.shard, conn: at as u32, generation: conn.generation, sequence };
        let mut stamps = Stamps::default();
        stamps.set(Stamp::Rx, received.0);
        stamps.set(Stamp::FirstByte, conn.frame_since.map_or(received.0, |since| since.0.min(received.0)));
        let slot = one_frame(frame.bytes(), ticket, &mut stamps, config, scratch, on)?;
        conn.frame_since = None;
        conn.push(slot);
        if conn.owed_bytes() > owed_bytes_max {
            break;
        }
    }
    let left = rest.len();
    if left > 0 {
        conn.inbox.push_front(Chunk { buf, at: total - left, received });
    }
    Ok(())
}

/// Answers a frame that a connection of another shard received, for an API that only the controller knows. None: later, by the ticket.
pub fn control_frame(
    ticket: Ticket,
    frame: &[u8],
    config: &ServerConfig,
    scratch: &mut Scratch,
    on: &mut On<'_>,
) -> Option<Reply> {
    let answer = |frame| Some(Reply { ticket, body: ReplyBody::Frame(frame), stamps: Stamps::default() });
    let Ok(header) = RequestHeader::parse(frame) else { return answer(None) };
    match handle(frame, header, ticket, &mut Stamps::default(), config, scratch, on) {
        Ok(Handled::Wait(_)) => None,
        Ok(Handled::Encoded(encoded)) => {
            let parts = encoded.parts.filter(|_| !encoded.close);
            answer(parts.map(|parts| parts.iter().flat_map(|part| part.as_slice()).copied().collect()))
        }
        Ok(Handled::Forward) | Err(_) => answer(None),
    }
}

fn one_frame(
    frame: &[u8],
    ticket: Ticket,
    stamps: &mut Stamps,
    config: &ServerConfig,
    scratch: &mut Scratch,
    on: &mut On<'_>,
) -> Result<Slot, Close> {
    let header = match RequestHeader::parse(frame) {
        Ok(header) => header,
        Err(error) => return handlers::api_versions::unsupported(&error, *stamps).ok_or(Close::from(error)),
    };
    match handle(frame, header, ticket, stamps, config, scratch, on)? {
        Handled::Wait(pending) => Ok(Slot::Waiting(pending, *stamps)),
        Handled::Forward => {
            on.router.send_control(CONTROLLER, ticket, frame, on.cx.now);
            Ok(Slot::Waiting(Pending::Control(frame.len()), *stamps))
        }
        Handled::Encoded(encoded) if encoded.close => Err(Close),
        Handled::Encoded(encoded) => Ok(match encoded.parts {
            Some(parts) => Slot::Ready(parts, *stamps),
            None => Slot::Silent,
        }),
    }
}

fn handle(
    frame: &[u8],
    header: RequestHeader<'_>,
    ticket: Ticket,
    stamps: &mut Stamps,
    config: &ServerConfig,
    scratch: &mut Scratch,
    on: &mut On<'_>,
) -> Result<Handled, WireError> {
    let api = header.api;
    let On { shard, router, meta, cx } = on;
    let mut request = Request { frame, header, ticket, config, shard, router, scratch, stamps, cx };
    let handled = match api {
        ApiKey::Produce => handlers::produce::handle(&mut request, meta),
        ApiKey::Fetch => handlers::fetch::handle(&mut request, meta),
        ApiKey::ListOffsets => handlers::list_offsets::handle(&mut request, meta),
        ApiKey::Metadata => handlers::metadata::handle(&mut request, meta),
        ApiKey::FindCoordinator => handlers::find_coordinator::handle(&mut request),
        ApiKey::ApiVersions => handlers::api_versions::handle(&mut request),
        ApiKey::CreateTopics => handlers::create_topics::handle(&mut request, meta),
        ApiKey::DeleteTopics => handlers::delete_topics::handle(&mut request, meta),
        ApiKey::DeleteRecords => handlers::delete_records::handle(&mut request, meta),
        ApiKey::InitProducerId => handlers::init_producer_id::handle(&mut request, meta),
        ApiKey::OffsetForLeaderEpoch => handlers::offset_for_leader_epoch::handle(&mut request, meta),
        ApiKey::DescribeConfigs => handlers::describe_configs::handle(&mut request, meta),
        ApiKey::CreatePartitions => handlers::create_partitions::handle(&mut request, meta),
        ApiKey::IncrementalAlterConfigs => handlers::incremental_alter_configs::handle(&mut request, meta),
        ApiKey::DescribeCluster => handlers::describe_cluster::handle(&mut request, meta),
        ApiKey::Shards => handlers::shards::handle(&mut request, meta),
    };
    if request.stamps.get(Stamp::Parsed) == 0 {
        request.parsed(Path::Other);
    }
    handled
}
