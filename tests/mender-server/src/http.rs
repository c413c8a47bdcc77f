//! An HTTP/1.1 server on the loopback interface, with one request for each connection. The parser is httparse, hyper's.
//!
//! The server owns its connections, because faults need that: an answer may end in the middle, or be missing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// The address of the host in QEMU's network.
const HOST: &str = "10.0.2.2";

/// The time after which a connection is closed if nothing more of its request arrives. An emulated device on a busy
/// host needs some seconds; one that loses power sends nothing more.
const IDLE: Duration = Duration::from_secs(600);

/// The largest request in bytes. A deployment log has some hundred lines.
const LARGEST: usize = 16 << 20;

/// The largest number of header fields in a request.
const FIELDS: usize = 64;

/// A request.
#[derive(Debug, Default)]
pub struct Request {
    /// The method, such as `GET`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// Names, in lower case, and values of the header fields.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of the header field `name`, which is in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The part of `text` that has been received completely, or `None` if more has to be received.
    fn parse(text: &[u8]) -> io::Result<Option<Self>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(head) = parsed.parse(text).map_err(io::Error::other)? else { return Ok(None) };
        let fields = parsed
            .headers
            .iter()
            .map(|field| (field.name.to_lowercase(), String::from_utf8_lossy(field.value).trim().to_owned()));
        let mut request = Self { fields: fields.collect(), ..Self::default() };
        request.method = parsed.method.unwrap_or_default().to_owned();
        let target = parsed.path.unwrap_or_default();
        request.path = target.split('?').next().unwrap_or_default().to_owned();
        let rest = text.get(head..).unwrap_or_default();
        // Client 3.4 sends every body in chunks.
        let body = match (request.field("transfer-encoding"), request.field("content-length")) {
            (Some(_), _) => chunked(rest)?,
            (None, Some(length)) => rest.get(..length.parse().map_err(io::Error::other)?).map(<[u8]>::to_vec),
            (None, None) => Some(Vec::new()),
        };
        Ok(body.map(|body| Self { body, ..request }))
    }

    fn read(connection: &mut TcpStream) -> io::Result<Self> {
        let mut received = Vec::new();
        let mut buffer = [0; 8192];
        while received.len() < LARGEST {
            let length = connection.read(&mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            received.extend_from_slice(&buffer[..length]);
            if let Some(request) = Self::parse(&received)? {
                return Ok(request);
            }
        }
        Err(io::Error::other("the request is too large"))
    }
}

/// The body that `text` contains in chunks, or `None` if more has to be received. Trailers are not supported.
fn chunked(mut text: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(text).map_err(|_| io::Error::other("invalid size of a chunk"))?;
        let httparse::Status::Complete((start, size)) = parsed else { return Ok(None) };
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size)).unwrap_or(usize::MAX);
        let Some(chunk) = text.get(start..end) else { return Ok(None) };
        body.extend_from_slice(chunk);
        // A line end follows each chunk, and the last one is empty.
        let Some(rest) = text.get(end..).and_then(|rest| rest.get(2..)) else { return Ok(None) };
        if chunk.is_empty() {
            return Ok(Some(body));
        }
        text = rest;
    }
}

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status, such as 200.
    pub status: u16,
    /// Header fields, without the length of the body.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Fault: the connection is closed after this number of bytes of the body.
    pub closed_after: Option<usize>,
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The answer to a request for `content`, or for a range of it.
    pub fn content(content: &[u8], range: Option<&str>) -> Self {
        let Some(range) = range else { return Self { status: 200, body: content.to_vec(), ..Self::default() } };
        let size = content.len();
        match part(range, size) {
            Some((start, end)) => Self {
                status: 206,
                fields: vec![("Content-Range", format!("bytes {start}-{}/{size}", end - 1))],
                body: content[start..end].to_vec(),
                closed_after: None,
            },
            None => Self { fields: vec![("Content-Range", format!("bytes */{size}"))], ..Self::empty(416) },
        }
    }

    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let Self { status, fields, body, closed_after } = self;
        let mut head = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\n", reason(*status));
        // An answer with status 204 has no body and no length.
        if *status != 204 {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        output.write_all(format!("{head}\r\n").as_bytes())?;
        output.write_all(&body[..closed_after.map_or(body.len(), |length| length.min(body.len()))])?;
        output.flush()
    }
}

/// The start and the end of `range`, a range of bytes as in RFC 9110, in a content of `size` bytes. Suffixes and lists
/// are not supported, because no client sends them.
fn part(range: &str, size: usize) -> Option<(usize, usize)> {
    let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start = start.parse().ok()?;
    let end = if last.is_empty() { size } else { last.parse::<usize>().ok()?.checked_add(1)?.min(size) };
    (start < end).then_some((start, end))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        416 => "Range Not Satisfiable",
        _ => "Unknown",
    }
}

/// A server, which ends when it is dropped.
pub struct Http {
    /// The address on this host.
    pub(crate) address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Starts a server on a free port. `answer` gets every request, in several threads; for `None` the connection is
    /// closed without an answer.
    pub fn start(answer: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening on a port of 127.0.0.1 failed")?;
        let address = listener.local_addr().context("reading the address of the server failed")?;
        let (ends, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let is_ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                if is_ended.load(Ordering::Acquire) {
                    break;
                }
                let answer = Arc::clone(&answer);
                // A client may close its connection at any time.
                thread::spawn(move || connection.and_then(|connection| serve(connection, answer.as_ref())));
            }
        });
        Ok(Self { address, ends, thread: Some(thread) })
    }

    /// The URL for an emulated device.
    pub fn url(&self) -> String {
        format!("http://{HOST}:{}", self.address.port())
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // The thread waits for a connection.
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(mut connection: TcpStream, answer: &impl Fn(&Request) -> Option<Response>) -> io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    let request = Request::read(&mut connection)?;
    match answer(&request) {
        Some(response) => response.write(&mut connection),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Sends `request` and returns the answer until the connection is closed.
    pub(crate) fn send(address: SocketAddr, request: &str) -> String {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn requests_are_parsed_when_they_are_complete() {
        let text = b"PUT /a/b?c=d HTTP/1.1\r\nContent-Length: 4\r\nX-Name:  value \r\n\r\nbody and more";
        for length in 0..text.len() - b" and more".len() {
            assert!(Request::parse(&text[..length]).unwrap().is_none(), "{length} bytes");
        }
        let request = Request::parse(text).unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/a/b"));
        assert_eq!((request.field("x-name"), request.body.as_slice()), (Some("value"), &b"body"[..]));
        for text in ["\0\r\n\r\n", "PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
            assert!(Request::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bodies_may_be_in_chunks() {
        let text =
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nB;x=y\r\n and\r\n more\r\n0\r\n\r\n";
        for length in 0..text.len() {
            assert!(Request::parse(&text[..length]).unwrap().is_none(), "{length} bytes");
        }
        assert_eq!(Request::parse(text).unwrap().unwrap().body, b"body and\r\n more");
        let head = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(Request::parse(format!("{head}x\r\n").as_bytes()).is_err());
        assert!(Request::parse(format!("{head}FFFFFFFFFFFFFFF\r\n").as_bytes()).unwrap().is_none());
    }

    #[test]
    fn ranges_are_those_of_the_content() {
        let content = |range| Response::content(b"0123456789", range);
        assert_eq!((content(None).status, content(None).body.len()), (200, 10));
        for (range, body, field) in [
            ("bytes=4-", "456789", "bytes 4-9/10"),
            ("bytes=2-3", "23", "bytes 2-3/10"),
            ("bytes=9-99", "9", "bytes 9-9/10"),
        ] {
            let part = content(Some(range));
            assert_eq!((part.status, part.body.as_slice()), (206, body.as_bytes()), "{range}");
            assert_eq!(part.fields, [("Content-Range", field.to_owned())]);
        }
        for range in ["bytes=10-", "bytes=5-4", "bytes=-3", "bytes=a-b", "lines=1-2"] {
            assert_eq!(content(Some(range)).status, 416, "{range}");
        }
    }

    #[test]
    fn answers_are_complete_unless_they_are_faults() {
        let server = Http::start(|request| match request.path.as_str() {
            "/closed" => None,
            "/cut" => Some(Response { closed_after: Some(3), ..Response::content(b"0123456789", None) }),
            "/none" => Some(Response::empty(204)),
            _ => Some(Response::content(&request.body, None)),
        })
        .unwrap();
        assert!(server.url().starts_with("http://10.0.2.2:"));
        let address = server.address;
        let answer = send(address, "POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
        let cut = send(address, "GET /cut HTTP/1.1\r\n\r\n");
        assert!(cut.ends_with("Content-Length: 10\r\n\r\n012"), "{cut}");
        assert_eq!(send(address, "GET /closed HTTP/1.1\r\n\r\n"), "");
        assert!(!send(address, "GET /none HTTP/1.1\r\n\r\n").contains("Content-Length"));
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }
}
