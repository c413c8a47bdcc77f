//! `tiny-http`: the HTTP server in the tests' container images.
//!
//! | path | answer |
//! |---|---|
//! | `/health` | status 200 or 503, depending on `MODE` |
//! | `/env/NAME` | the value of an environment variable |
//! | `/file/PATH` | the content of a file |
//! | `/write/PATH` | the version, after writing it to the file |
//! | others | the version |
//!
//! `tiny-http check` sends a request to `/health` of a running server, as the health check of an image.
//!
//! The environment variable `PORT` is the port (default 8080), `VERSION` the version, and `MODE` the behaviour; see
//! `test_image::Mode`.

use std::env;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

fn main() -> ExitCode {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let mode = variable("MODE");
    if env::args().nth(1).as_deref() == Some("check") {
        return check(port);
    }
    println!("version {} begins, {mode}", variable("VERSION"));
    match mode.as_str() {
        "exit" => {
            println!("this version is broken");
            ExitCode::FAILURE
        }
        "once" => ExitCode::SUCCESS,
        _ => serve(port, &variable("VERSION"), mode == "healthy"),
    }
}

fn serve(port: u16, version: &str, is_healthy: bool) -> ExitCode {
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => {
            println!("listening on port {port} failed: {error}");
            return ExitCode::FAILURE;
        }
    };
    for connection in listener.incoming() {
        // A client may close its connection early.
        let _ = connection.and_then(|connection| answer(connection, version, is_healthy));
    }
    ExitCode::SUCCESS
}

fn answer(mut connection: TcpStream, version: &str, is_healthy: bool) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let length = connection.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..length]);
    let path = request.split(' ').nth(1).unwrap_or("/");
    let is_unavailable = path.starts_with("/health") && !is_healthy;
    let status = if is_unavailable { "503 Service Unavailable" } else { "200 OK" };
    let text = content(path, version).unwrap_or_else(|error| error.to_string());
    write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

fn content(path: &str, version: &str) -> std::io::Result<String> {
    if let Some(name) = path.strip_prefix("/env/") {
        return Ok(env::var(name).unwrap_or_default());
    }
    if let Some(file) = path.strip_prefix("/file") {
        return std::fs::read_to_string(file);
    }
    if let Some(file) = path.strip_prefix("/write") {
        std::fs::write(file, version)?;
    }
    Ok(version.to_owned())
}

fn check(port: u16) -> ExitCode {
    let request = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        write!(connection, "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let is_healthy = request().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
    if is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
