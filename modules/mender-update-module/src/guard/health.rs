//! The health check: whether the device is healthy with the active version.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::http;
use crate::program::Program;
use crate::stability::{INTERVAL, Poll, StabilityWindow};

/// The longest that one check of a port or URL may take; a command may take what is left of the limit.
const CHECK_MAX: Duration = Duration::from_secs(5);

/// What has to succeed, each of those that are given: in every check for `stable_seconds`, within `limit_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A program and its arguments, without a shell; it has to exit with 0.
    command: Option<Vec<String>>,
    /// `host:port`, which has to accept a connection.
    tcp: Option<String>,
    /// `http://…`, which has to answer with a status from 200 to 299.
    url: Option<String>,
    /// Seconds until the health check fails.
    #[serde(default = "limit_seconds")]
    limit_seconds: u64,
    /// Seconds for which every check has to succeed: a service that starts, exits and starts again is not healthy.
    #[serde(default = "stable_seconds")]
    stable_seconds: u64,
}

fn limit_seconds() -> u64 {
    60
}

fn stable_seconds() -> u64 {
    5
}

impl Health {
    /// Refuses what could never succeed.
    pub(super) fn check(&self) -> Result<()> {
        let Self { command, tcp, url, limit_seconds, stable_seconds } = self;
        ensure!(command.is_some() || tcp.is_some() || url.is_some(), "none of command, tcp and url: set one of them");
        ensure!(command.as_ref().is_none_or(|words| !words.is_empty()), "command is empty: name a program");
        if let Some(address) = tcp {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            ensure!(port.is_some(), "tcp = {address:?} is not of the form \"127.0.0.1:8080\"");
        }
        if let Some(url) = url {
            http::check(url)?;
        }
        ensure!(
            stable_seconds < limit_seconds,
            "stable_seconds = {stable_seconds} has to be less than limit_seconds = {limit_seconds}"
        );
        Ok(())
    }

    /// Polls until every check has succeeded for the stability window.
    pub(super) fn wait(&self) -> Result<()> {
        StabilityWindow::new(self.limit_seconds, self.stable_seconds).wait(|left| match self.check_once(left) {
            Ok(()) => Poll::Healthy(()),
            Err(error) => Poll::Unhealthy(error),
        })
    }

    fn check_once(&self, left: Duration) -> Result<()> {
        let short = left.clamp(INTERVAL, CHECK_MAX);
        if let Some((program, arguments)) = self.command.as_deref().and_then(<[String]>::split_first) {
            Program::new(program, left.max(INTERVAL)).args(arguments).run()?;
        }
        if let Some(address) = &self.tcp {
            http::connect(address, short)?;
        }
        if let Some(url) = &self.url {
            get(url, short)?;
        }
        Ok(())
    }
}

fn get(url: &str, limit: Duration) -> Result<()> {
    let status = http::status(url, limit).with_context(|| format!("requesting {url} failed"))?;
    ensure!((200..300).contains(&status), "{url} answers {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use super::*;

    fn health(json: &str) -> Health {
        let health: Health = serde_json::from_str(json).unwrap();
        health.check().unwrap();
        health
    }

    fn failure(health: &Health) -> String {
        format!("{:#}", health.wait().unwrap_err())
    }

    /// Answers every request with the next of `statuses`, and with the last one from then on.
    fn server(statuses: &'static [u16]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let status = statuses[number.min(statuses.len() - 1)];
                let _ = stream.read(&mut [0; 1024]);
                let _ = write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        address
    }

    /// A service that is started again within a second or two must be seen to be unhealthy.
    #[test]
    fn the_default_stability_window_has_many_polls() {
        assert!(INTERVAL * 8 <= Duration::from_secs(stable_seconds()));
    }

    #[test]
    fn a_service_that_starts_slowly_becomes_healthy() {
        let address = server(&[503, 500, 204]);
        health(&format!(r#"{{"url": "http://{address}/health", "limit_seconds": 60, "stable_seconds": 1}}"#))
            .wait()
            .unwrap();
    }

    #[test]
    fn a_service_that_is_healthy_only_at_every_other_poll_is_not_healthy() {
        // Never healthy for a whole window.
        const LOOP: [u16; 40] = {
            let mut statuses = [200; 40];
            let mut odd = 1;
            while odd < 40 {
                statuses[odd] = 503;
                odd += 2;
            }
            statuses
        };
        let address = server(&LOOP);
        let health = health(&format!(r#"{{"url": "http://{address}/", "limit_seconds": 3, "stable_seconds": 1}}"#));
        let said = failure(&health);
        assert!(said.contains("within 3s"), "{said}");
    }

    #[test]
    fn an_error_names_the_check_and_its_result() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (json, words) in [
            (format!(r#"{{"tcp": "{closed}", "limit_seconds": 1, "stable_seconds": 0}}"#), closed.to_string()),
            (
                r#"{"command": ["sh", "-c", "exit 7"], "limit_seconds": 1, "stable_seconds": 0}"#.to_owned(),
                "exit status: 7".to_owned(),
            ),
            (
                format!(r#"{{"url": "http://{}/x", "limit_seconds": 1, "stable_seconds": 0}}"#, server(&[404])),
                "404".to_owned(),
            ),
        ] {
            let said = failure(&health(&json));
            assert!(said.contains(&words), "{words:?} is missing in {said}");
        }
    }

    #[test]
    fn only_a_status_from_200_to_299_is_healthy() {
        let cases: [(&[_], _); 6] =
            [(&[199], false), (&[200], true), (&[299], true), (&[300], false), (&[304], false), (&[500], false)];
        for (status, healthy) in cases {
            let url = format!("http://{}/", server(status));
            assert_eq!(get(&url, Duration::from_secs(60)).is_ok(), healthy, "{status:?}");
        }
    }

    /// Answers every request with `answer`.
    fn answering(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        url
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let healthy = answering("HTTP/1.1 200 OK\r\n\r\n".to_owned());
        for status in [301, 302, 303, 307, 308] {
            let url = answering(format!("HTTP/1.1 {status} So\r\nLocation: {healthy}\r\n\r\n"));
            let said = format!("{:#}", get(&url, Duration::from_secs(60)).unwrap_err());
            assert!(said.contains(&status.to_string()), "{said}");
        }
    }

    #[test]
    fn an_answer_of_any_form_is_healthy_or_an_error() {
        let long = "x".repeat(8191);
        for (answer, healthy) in [
            (format!("HTTP/1.1 200 x\n{long}\n\n"), true),
            (format!("HTTP/1.1 200 {long}{long}"), true),
            ("HTTP/1.1 200".to_owned(), true),
            ("HTTP/1.0 204 \r\n\r\n".to_owned(), true),
            ("HTTP/1.1 2000 x\r\n\r\n".to_owned(), false),
            ("HTTP/1.1 x\r\n\r\n".to_owned(), false),
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), false),
            (String::new(), false),
            (format!("{long}{long}"), false),
        ] {
            let checked = get(&answering(answer.clone()), Duration::from_secs(60));
            assert_eq!(checked.is_ok(), healthy, "{:.40}: {checked:?}", answer);
        }
    }

    /// A server that accepts a connection, and answers only after a time that no limit of a test reaches.
    fn silent_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    thread::sleep(Duration::from_secs(60));
                    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                });
            }
        });
        address
    }

    #[test]
    fn a_check_that_does_not_end_fails() {
        let silent = format!(r#"{{"url": "http://{}/", "limit_seconds": 1, "stable_seconds": 0}}"#, silent_server());
        // Both would succeed after a minute.
        for json in [r#"{"command": ["sleep", "60"], "limit_seconds": 1, "stable_seconds": 0}"#, &silent] {
            let said = failure(&health(json));
            assert!(said.contains("not healthy within 1s"), "{said}");
        }
        let said = format!("{:#}", get(&format!("http://{}/", silent_server()), Duration::from_secs(1)).unwrap_err());
        assert!(said.ends_with("no answer within 1s"), "{said}");
    }

    #[test]
    fn an_open_port_is_enough() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap();
        health(&format!(r#"{{"tcp": "{address}", "limit_seconds": 60, "stable_seconds": 0}}"#)).wait().unwrap();
    }

    #[test]
    fn every_check_that_is_given_has_to_succeed() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (open, unavailable) = (listener.local_addr().unwrap(), server(&[503]));
        let last_fails = [
            format!(r#""command": ["true"], "tcp": "{closed}""#),
            format!(r#""command": ["true"], "tcp": "{open}", "url": "http://{unavailable}/""#),
        ];
        thread::scope(|scope| {
            for checks in last_fails {
                scope.spawn(move || {
                    failure(&health(&format!(r#"{{{checks}, "limit_seconds": 1, "stable_seconds": 0}}"#)))
                });
            }
        });
    }
}
