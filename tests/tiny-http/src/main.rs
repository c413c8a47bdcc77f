//! `tiny-http`: the server in the tests' images. It answers every request with its version, and `/health` with whether it
//! is well. `/env/NAME` is answered with a variable, `/file/PATH` with a file's content, and `/write/PATH` writes the version
//! there. `tiny-http check` asks a running one: the image's health check.
//!
//! `PORT` is where it listens (default 8080), `MODE` how it behaves: see `test_image::Mode`.

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
        _ => serve(port, &variable("VERSION"), mode == "well"),
    }
}

fn serve(port: u16, version: &str, well: bool) -> ExitCode {
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => {
            println!("port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for connection in listener.incoming() {
        // A client that goes away is none of the server's business.
        let _ = connection.and_then(|connection| answer(connection, version, well));
    }
    ExitCode::SUCCESS
}

fn answer(mut connection: TcpStream, version: &str, well: bool) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let length = connection.read(&mut request)?;
    let request = String::from_utf8_lossy(&request[..length]);
    let path = request.split(' ').nth(1).unwrap_or("/");
    let is_refused = path.starts_with("/health") && !well;
    let status = if is_refused { "503 Service Unavailable" } else { "200 OK" };
    let text = content(path, version).unwrap_or_else(|error| error.to_string());
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
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
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        write!(connection, "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let well = ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
