//! The status of an HTTP answer, for the health check.
//!
//! Redirects are not followed: the status is that of the service itself. Of the answer, only the status line is read:
//! headers and body may have any length and form. An interim answer (1xx, RFC 9110 section 15.2) is skipped.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// The most bytes of an answer that are read: the status is at its start, after interim answers.
const ANSWER_MAX: usize = 8 << 10;

/// The bytes of a status line that hold the version and the status.
const LINE_START: usize = 64;

/// The most bytes of an answer in a message.
const SHOWN_MAX: usize = 512;

/// The parts of a URL that a request needs.
struct Location<'a> {
    /// `host` or `host:port`.
    authority: &'a str,
    /// The path with the query.
    target: String,
}

impl<'a> Location<'a> {
    fn of(url: &'a str) -> Result<Self> {
        let rest = url.strip_prefix("http://");
        let rest = rest.with_context(|| format!("url = {url:?}: only http:// is known; for others use command"))?;
        ensure!(
            rest.bytes().all(|byte| byte.is_ascii_graphic()),
            "url = {url:?}: a space, or a character that is not ASCII: write it as %XX"
        );
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        ensure!(is_authority(authority), "url = {url:?}: not of the form http://HOST:PORT/PATH");
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { authority, target: format!("{slash}{target}") })
    }

    /// `host:port`.
    fn address(&self) -> String {
        let host_end = self.authority.rfind(']').unwrap_or_default(); // an IPv6 address has colons, too
        let port = if self.authority[host_end..].contains(':') { "" } else { ":80" };
        format!("{}{port}", self.authority)
    }
}

/// Whether `text` is a host, or a host with a port. An IPv6 address is in brackets.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, port)) => (address, if port.is_empty() { None } else { port.strip_prefix(':').or(Some("")) }),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_host = !host.is_empty() && !host.contains(['[', ']', '@']);
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Refuses a `url` that [`status`] cannot request.
pub(super) fn check(url: &str) -> Result<()> {
    Location::of(url).map(drop)
}

/// Requests `url`, and returns the status of the answer.
///
/// # Errors
/// When no service answers within `limit`, or the answer is not one of HTTP.
pub(super) fn status(url: &str, limit: Duration) -> Result<u16> {
    let deadline = Deadline { at: Instant::now() + limit, limit };
    let location = Location::of(url)?;
    let mut stream = connect(&location.address(), limit)?;
    stream.set_write_timeout(Some(deadline.left()?))?;
    let Location { authority, target } = location;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| deadline.named(error))?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_MAX {
        let mut buffer = [0; 512];
        stream.set_read_timeout(Some(deadline.left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => answer.push(b'\n'), // the end of the answer is the end of its last line
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(deadline.named(error)),
        }
        match status_of(&answer) {
            Status::Known(status) => return Ok(status),
            Status::Invalid => break,
            Status::Unfinished => {}
        }
    }
    bail!("not an answer of HTTP: {}", answer[..answer.len().min(SHOWN_MAX)].escape_ascii())
}

/// The end of the time for an answer.
struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    fn left(&self) -> Result<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), self.no_answer());
        Ok(left)
    }

    /// `error` of a socket. The system reports its time limit as an operation that would block.
    fn named(&self, error: io::Error) -> anyhow::Error {
        if error.kind() == ErrorKind::WouldBlock { anyhow!(self.no_answer()) } else { error.into() }
    }

    fn no_answer(&self) -> String {
        format!("no answer within {:?}", self.limit)
    }
}

/// What the beginning of an answer says about its status.
#[derive(Debug, PartialEq, Eq)]
enum Status {
    Known(u16),
    /// More of the answer is necessary.
    Unfinished,
    /// It is not an answer of HTTP.
    Invalid,
}

/// The status in `HTTP/1.1 200 OK`, after interim answers, each of which ends with an empty line.
fn status_of(mut answer: &[u8]) -> Status {
    loop {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(LINE_START)]);
        let mut words = text.splitn(3, [' ', '\r', '\n']);
        let (Some(version), Some(status), Some(_)) = (words.next(), words.next(), words.next()) else {
            return if answer.contains(&b'\n') { Status::Invalid } else { Status::Unfinished };
        };
        let is_http = version.starts_with("HTTP/") && status.len() == 3;
        match status.parse().ok().filter(|_| is_http) {
            None => return Status::Invalid,
            Some(100..=199) => {}
            Some(status) => return Status::Known(status),
        }
        answer = after_headers(answer);
    }
}

/// What follows the first empty line of `answer`.
fn after_headers(answer: &[u8]) -> &[u8] {
    let ends = [&b"\n\r\n"[..], b"\n\n"];
    let after = ends.map(|end| answer.windows(end.len()).position(|bytes| bytes == end).map(|at| at + end.len()));
    after.into_iter().flatten().min().map_or(&[], |at| &answer[at..])
}

/// Connects to the first address of `host:port` that accepts a connection.
///
/// # Errors
/// When none accepts one within `limit`, which is that of each address.
pub(super) fn connect(address: &str, limit: Duration) -> Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        address.to_socket_addrs().with_context(|| format!("resolving {address} failed"))?.collect();
    let mut refusal = None;
    for resolved in addresses {
        match TcpStream::connect_timeout(&resolved, limit) {
            Ok(stream) => return Ok(stream),
            Err(error) => refusal = Some(error),
        }
    }
    match refusal {
        Some(error) => Err(error).with_context(|| format!("connecting to {address} failed")),
        None => bail!("{address} has no address"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use rustix::process::{Signal, kill_process};
    use rustix::thread::gettid;

    use super::*;
    use crate::test_support::log_of;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn interim_answers_are_skipped() {
        for (answer, expected) in [
            (&b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n"[..], Status::Known(200)),
            (b"HTTP/1.1 100\n\nHTTP/1.1 199 X\n\nHTTP/1.1 503 No\n\n", Status::Known(503)),
            (b"HTTP/1.1 103 Early Hints\r\nLink: HTTP/1.1 200 OK\r\n", Status::Unfinished),
            (b"HTTP/1.1 100 Continue\r\n\r\nnonsense\n", Status::Invalid),
            (b"HTTP/1.1 20", Status::Unfinished),
            (b"HTTP/1.1 2000 OK\n", Status::Invalid),
        ] {
            assert_eq!(status_of(answer), expected, "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn a_url_has_a_host_a_port_and_a_target() {
        for (url, address, target) in [
            ("http://a", "a:80", "/"),
            ("http://a:8080/x?y=z#part", "a:8080", "/x?y=z"),
            ("http://[::1]?y", "[::1]:80", "/?y"),
            ("http://[::1]:81/%20", "[::1]:81", "/%20"),
        ] {
            let location = Location::of(url).unwrap();
            assert_eq!((location.address().as_str(), location.target.as_str()), (address, target));
        }
        for bad in [
            "https://a/",
            "a:80",
            "http://",
            "http:///x",
            "http://user@a/",
            "http://:80/",
            "http://a:b/",
            "http://127.0.0.1:80800/",
            "http://a:/",
            "http://[::1/",
            "http://[::1]x/",
            "http://a:80:80/",
            "http://a/b c",
            "http://a/\r\nX: y",
            "http://ä/",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    /// A service that does `answer` with its only connection, after the request has arrived.
    fn service(answer: impl FnOnce(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.peek(&mut [0]).unwrap();
            answer(stream);
        });
        url
    }

    #[test]
    fn a_connection_that_is_reset_is_an_error_of_its_own() {
        // The system resets a connection that is closed with unread data.
        let error = format!("{:#}", status(&service(drop), LIMIT).unwrap_err());
        assert!(!error.contains("not an answer") && !error.contains("within"), "{error}");
    }

    #[test]
    fn a_signal_does_not_fail_a_request() {
        log_of(
            "guard::http::tests::a_signal_does_not_fail_a_request",
            |_| {},
            || {
                signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::new(AtomicBool::new(false))).unwrap();
                // The kernel prefers the thread with this ID: the one that waits for the answer.
                let thread = gettid();
                let url = service(move |mut stream| {
                    for _ in 0..20 {
                        thread::sleep(Duration::from_millis(10));
                        kill_process(thread, Signal::USR1).unwrap();
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                });
                assert_eq!(status(&url, LIMIT).unwrap(), 200);
            },
        );
    }
}
