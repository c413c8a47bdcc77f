//! The status of an HTTP answer, for the health check.
//!
//! Redirects are not followed: the status is that of the service itself. Of the answer, only the status line is read:
//! headers and body may have any length and form.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The most bytes of an answer that are read: the status is at its start.
const ANSWER_MAX: usize = 512;

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
    let deadline = Instant::now() + limit;
    let location = Location::of(url)?;
    let mut stream = connect(&location.address(), limit)?;
    let no_answer = || format!("no answer within {limit:?}");
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), no_answer());
        Ok(Some(left))
    };
    stream.set_write_timeout(left()?)?;
    let Location { authority, target } = location;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_MAX && !answer.contains(&b'\n') {
        let mut buffer = [0; ANSWER_MAX];
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(no_answer()), // the time limit
            Err(error) => return Err(error.into()),
        }
    }
    status_of(&answer).with_context(|| format!("not an answer of HTTP: {}", answer.escape_ascii()))
}

/// The status in `HTTP/1.1 200 OK`.
fn status_of(answer: &[u8]) -> Option<u16> {
    let answer = String::from_utf8_lossy(answer);
    let mut words = answer.lines().next()?.strip_prefix("HTTP/")?.split(' ').skip(1);
    words.next().filter(|status| status.len() == 3)?.parse().ok()
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
    use super::*;

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
}
