//! One connection to one broker: a blocking socket, versions agreed by ApiVersions, any number of requests in flight that are
//! answered in order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use crate::client::error::ClientError;
use crate::client::settings::{RESPONSE_BYTES_MAX, Settings};
use crate::wire::api::ApiKey;
use crate::wire::error::{WireError, codes};
use crate::wire::msg::{self, ApiVersionsRequest, Bytes, Call, StrBytes};

/// Read-ahead of the socket: a burst of small answers costs one system call.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// ApiVersions is asked in the first flexible version; a broker that does not know it answers in version 0, with error 35.
const API_VERSIONS: i16 = 3;

/// What stands before the body of an answer whose header has no tags.
const CORRELATION_ID_BYTES: usize = 4;

pub struct Connection {
    address: String,
    stream: BufReader<TcpStream>,
    client_id: String,
    /// What the broker serves: key -> (lowest, highest) version.
    served: BTreeMap<i16, (i16, i16)>,
    next_correlation_id: i32,
    in_flight: VecDeque<InFlight>,
    out: Vec<u8>,
}

#[derive(Clone, Copy)]
struct InFlight {
    correlation_id: i32,
    api: ApiKey,
    version: i16,
}

impl Connection {
    /// Connects to `host:port` and agrees on versions.
    pub fn open(address: &str, settings: &Settings) -> Result<Connection, ClientError> {
        let stream = connect(address, settings).map_err(|e| unreachable(address, &e))?;
        let mut connection = Connection {
            address: address.to_string(),
            stream: BufReader::with_capacity(READ_BUFFER_BYTES, stream),
            client_id: settings.client_id.clone(),
            served: BTreeMap::new(),
            next_correlation_id: 0,
            in_flight: VecDeque::new(),
            out: Vec::new(),
        };
        connection.agree_on_versions()?;
        Ok(connection)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Requests that are not yet answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The version in which `api` is spoken here.
    pub fn version(&self, api: ApiKey) -> Result<i16, ClientError> {
        let row = api.row();
        let ours = (row.min, row.max.min(spoken_max(api)));
        let theirs = self.served.get(&api.wire()).copied();
        let version = theirs.map_or(-1, |(_, max)| max.min(ours.1));
        if theirs.is_some_and(|(min, _)| version >= min.max(ours.0)) {
            return Ok(version);
        }
        Err(ClientError::Unsupported { address: self.address.clone(), api: api.name(), ours, theirs })
    }

    /// Sends one request and reads its answer. Nothing else may be in flight.
    pub fn call<R: Call>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        self.send(request)?;
        self.receive::<R>()
    }

    /// Sends one request, to be answered later and in order.
    pub fn send<R: Call>(&mut self, request: &R) -> Result<(), ClientError> {
        let version = self.version(R::API)?;
        self.send_as(request, version, true)
    }

    /// As [`send`](Connection::send), for a request that has no answer: Produce with acks=0.
    pub fn send_unanswered<R: Call>(&mut self, request: &R) -> Result<(), ClientError> {
        let version = self.version(R::API)?;
        self.send_as(request, version, false)
    }

    /// Reads the answer to the oldest request in flight, which must be an `R`.
    pub fn receive<R: Call>(&mut self) -> Result<R::Response, ClientError> {
        let asked = self.in_flight.pop_front().filter(|asked| asked.api == R::API);
        let asked = asked.ok_or_else(|| ClientError::Input("no such request is in flight".to_string()))?;
        let frame = self.read_frame().map_err(|e| self.lost(&e))?;
        let address = &self.address;
        let decoded = msg::response_correlation_id(&frame).and_then(|found| {
            if found != asked.correlation_id {
                return Err(WireError::CorrelationId { expected: asked.correlation_id, found });
            }
            msg::decode_response::<R>(frame, asked.version)
        });
        decoded.map_err(|error| ClientError::Protocol { address: address.clone(), error })
    }

    /// Sends a request of our own, which has no body and which only corelog knows, and returns the answer's body. Another broker closes
    /// the connection, as it does on any key that it does not know.
    pub fn call_own(&mut self, api: ApiKey) -> Result<Bytes, ClientError> {
        let stranger =
            |connection: &Connection| ClientError::NotCorelog { address: connection.address.clone() };
        if !self.in_flight.is_empty() {
            return Err(ClientError::Input("an answer is still owed".to_string()));
        }
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        self.out.clear();
        msg::write_own_request(&mut self.out, api, correlation_id, Some(&self.client_id));
        self.stream.get_mut().write_all(&self.out).map_err(|e| self.lost(&e))?;
        let frame = self.read_frame().map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => stranger(self),
            _ => self.lost(&error),
        })?;
        match msg::response_correlation_id(&frame) {
            Ok(found) if found == correlation_id => Ok(frame.slice(CORRELATION_ID_BYTES..)),
            _ => Err(stranger(self)),
        }
    }

    fn send_as<R: Call>(&mut self, request: &R, version: i16, answered: bool) -> Result<(), ClientError> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        self.out.clear();
        msg::encode_request(&mut self.out, correlation_id, Some(&self.client_id), version, request)
            .map_err(|error| ClientError::Protocol { address: self.address.clone(), error })?;
        let written = self.stream.get_mut().write_all(&self.out);
        self.out.shrink_to(READ_BUFFER_BYTES);
        written.map_err(|e| self.lost(&e))?;
        if answered {
            self.in_flight.push_back(InFlight { correlation_id, api: R::API, version });
        }
        Ok(())
    }

    fn agree_on_versions(&mut self) -> Result<(), ClientError> {
        let mut request = ApiVersionsRequest::default();
        request.client_software_name = StrBytes::from("corelog");
        request.client_software_version = StrBytes::from(env!("CARGO_PKG_VERSION"));
        self.send_as(&request, API_VERSIONS, true)?;
        let mut response = self.receive::<ApiVersionsRequest>()?;
        if response.error_code == codes::UNSUPPORTED_VERSION {
            self.send_as(&ApiVersionsRequest::default(), 0, true)?;
            response = self.receive::<ApiVersionsRequest>()?;
        }
        ClientError::check(response.error_code, "agreeing on versions", None)?;
        self.served = response.api_keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect();
        Ok(())
    }

    /// One frame without its length. The buffer grows with the bytes that arrive, not with the length that was claimed.
    fn read_frame(&mut self) -> io::Result<Bytes> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let claimed = i32::from_be_bytes(prefix);
        let len = usize::try_from(claimed).ok().filter(|len| (4..=RESPONSE_BYTES_MAX).contains(len));
        let len =
            len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("frame length {claimed}")))?;
        let mut frame = Vec::new();
        let read = (&mut self.stream).take(len as u64).read_to_end(&mut frame)?;
        if read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Bytes::from(frame))
    }

    fn lost(&self, error: &io::Error) -> ClientError {
        ClientError::Lost { address: self.address.clone(), why: plain(error) }
    }
}

/// Where we stay below the table: Produce and Fetch by topic name (ids begin at 13), DeleteTopics by the list of names (up to 5).
fn spoken_max(api: ApiKey) -> i16 {
    match api {
        ApiKey::Produce | ApiKey::Fetch => 12,
        ApiKey::DeleteTopics => 5,
        _ => i16::MAX,
    }
}

/// Tries each address that the name resolves to: `localhost` is often `::1` first.
fn connect(address: &str, settings: &Settings) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, settings.connect_timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(settings.request_timeout))?;
                stream.set_write_timeout(Some(settings.request_timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable(address: &str, error: &io::Error) -> ClientError {
    ClientError::Unreachable { address: address.to_string(), why: plain(error) }
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the broker closed the connection".to_string(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_string(),
        _ => error.to_string(),
    }
}
