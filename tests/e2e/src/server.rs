//! An HTTP server of this process for files of the host. A device reaches it through QEMU's network.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// The address of the host in QEMU's network.
const HOST: &str = "10.0.2.2";

/// The time after which an idle connection is closed, so that the server can end.
const IDLE: Duration = Duration::from_secs(5);

/// The server, which ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the files below `directory` on a free port of the loopback interface.
    pub fn start(directory: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening on a port of 127.0.0.1 failed")?;
        let address = listener.local_addr().context("reading the address of the server failed")?;
        let (ends, directory) = (Arc::new(AtomicBool::new(false)), directory.to_owned());
        let is_ended = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                if is_ended.load(Ordering::Acquire) {
                    break;
                }
                let directory = directory.clone();
                // A client may close its connection at any time.
                thread::spawn(move || connection.and_then(|connection| answer(connection, &directory)));
            }
        });
        Ok(Self { address, ends, thread: Some(thread) })
    }

    /// The URL for a device.
    pub fn url(&self) -> String {
        format!("http://{HOST}:{}", self.address.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // The thread waits for a connection.
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Answers the requests of one connection.
fn answer(connection: TcpStream, directory: &Path) -> std::io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    let mut output = connection.try_clone()?;
    let mut lines = BufReader::new(connection).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        // The header ends with an empty line; no field of it matters.
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let path = request.split(' ').nth(1).unwrap_or_default();
        match file(directory, path).map(fs::read) {
            Some(Ok(content)) => {
                write!(output, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len())?;
                output.write_all(&content)?;
            }
            _ => output.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
    }
    Ok(())
}

/// The path below `directory` of a file that a request names, if it names one there.
fn file(directory: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path.strip_prefix('/')?);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_below && !path.as_os_str().is_empty()).then(|| directory.join(path))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn get(address: SocketAddr, requests: &str) -> String {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(requests.as_bytes()).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn files_are_served_until_the_server_is_dropped() {
        let directory = std::env::temp_dir().join(format!("e2e-server-{}", std::process::id()));
        fs::create_dir_all(directory.join("pool")).unwrap();
        fs::write(directory.join("pool/a.deb"), "content").unwrap();
        let server = Server::start(&directory).unwrap();
        assert!(server.url().starts_with("http://10.0.2.2:"));
        let address = server.address;
        let two = "GET /pool/a.deb HTTP/1.1\r\nHost: x\r\n\r\nGET /pool/b.deb HTTP/1.1\r\nHost: x\r\n\r\n";
        let answers = get(address, two);
        assert!(answers.contains("Content-Length: 7\r\n\r\ncontentHTTP/1.1 404"), "{answers}");
        drop(server);
        assert!(TcpStream::connect(address).is_err());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn files_outside_of_the_directory_are_not_served() {
        let file = |path: &str| file(Path::new("/srv"), path);
        assert_eq!(file("/pool/a.deb").unwrap(), Path::new("/srv/pool/a.deb"));
        for path in ["/../etc/passwd", "/pool/../../x", "//etc/passwd", "pool", "/", ""] {
            assert_eq!(file(path), None, "{path}");
        }
    }
}
