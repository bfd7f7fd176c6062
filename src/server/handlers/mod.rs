//! One file per API. Its top comment is its contract: versions, behaviour, what differs from Apache Kafka.
//!
//! A handler decodes its request and either answers, or asks a shard or the controller and leaves behind what it needs to
//! encode the answer ([`Pending`]).

pub mod api_versions;
mod asked;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod fetch;
pub mod find_coordinator;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod shards;

use super::ServerConfig;
use super::buffers::Buffers;
use super::pending::{Encoded, Pending};
use crate::base::error::Refused;
use crate::base::metrics::{Path, Stamp, Stamps};
use crate::controller::image::Image;
use crate::router::mesh::Router;
use crate::router::message::{Message, Ticket};
use crate::shard::{Cx, Shard};
use crate::wire::error::code;
use crate::wire::fetch::FetchRequest;
use crate::wire::frame::RequestHeader;
use crate::wire::msg::{self, Call};
use crate::wire::produce::ProduceRequest;

pub use crate::server::metadata::Metadata;

/// A request frame and whom to ask about it.
pub struct Request<'a, 'c> {
    pub frame: &'a [u8],
    pub header: RequestHeader<'a>,
    pub ticket: Ticket,
    pub config: &'a ServerConfig,
    pub shard: &'a mut Shard,
    pub scratch: &'a mut Scratch,
    pub stamps: &'a mut Stamps,
    pub router: &'a mut Router,
    pub cx: &'a mut Cx<'c>,
}

impl Request<'_, '_> {
    /// Header and body are parsed: what follows is the work.
    pub fn parsed(&mut self, path: Path) {
        self.stamps.path = path;
        self.stamps.set(Stamp::Parsed, self.cx.clock.now().0);
    }

    /// Asks the shards that own the partitions. One reply comes back by the ticket.
    pub fn ask(&mut self, image: &Image, message: Message<'_>) {
        let me = self.config.shard;
        let owner = |key| image.owner(key).unwrap_or(me);
        if let Some(own) = self.router.route(message, owner, self.cx.now) {
            self.shard.handle(own, self.cx);
        }
    }
}

/// Memory that one request after another uses.
#[derive(Default)]
pub struct Scratch {
    pub buffers: Buffers,
    produce: ProduceRequest,
    fetch: FetchRequest,
}

/// Partitions of a parsed request for which memory is kept.
const PARSED_PARTITIONS_KEPT: usize = 1024;

/// What came of a request.
pub enum Handled {
    Encoded(Encoded),
    Wait(Pending),
    /// Only the controller can answer, and it lives on another shard.
    Forward,
}

/// Kafka's number, 0 for no error.
pub fn error_code(error: Option<Refused>) -> i16 {
    error.map_or(0, code)
}

/// A response of the cold codec.
pub fn respond<R: Call>(correlation_id: i32, version: i16, response: &R::Response) -> Encoded {
    Encoded::bytes(frame::<R>(correlation_id, version, response))
}

/// A response frame of the cold codec. A response that does not fit its version is our own bug: it is logged, and the client
/// gets an empty frame, on which it closes.
pub fn frame<R: Call>(correlation_id: i32, version: i16, response: &R::Response) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    if let Err(error) = msg::encode_response::<R>(&mut out, correlation_id, version, response) {
        tracing::error!(%error, api = R::API.name(), version, "response cannot be encoded");
    }
    out
}
