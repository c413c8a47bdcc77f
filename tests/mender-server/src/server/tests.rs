//! The device API, with requests as client 3.4.0 sends them.

use super::*;
use crate::Moment;
use crate::http::tests::send;

const STATUS: &str = "/api/devices/v1/deployments/device/deployments";

/// A client with the newest token.
struct Client(Server);

impl Client {
    fn new() -> Self {
        let client = Self(Server::start().unwrap());
        client.authenticate();
        client
    }

    fn authenticate(&self) {
        let answer = send(self.0.http.address, "POST /api/devices/v1/authentication/auth_requests HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("token-"), "{answer}");
    }

    /// The status of the answer, or 0 without an answer, and its body.
    fn request(&self, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
        let token = lock(&self.0.state).token();
        let answer = send(
            self.0.http.address,
            &format!(
                "{method} {path} HTTP/1.1\r\nHost: pi:1\r\nAuthorization: Bearer {token}\r\n{fields}\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        (status, answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
    }

    fn report(&self, id: &str, status: &str) -> u16 {
        self.request("PUT", &format!("{STATUS}/{id}/status"), "", &format!(r#"{{"status":"{status}"}}"#)).0
    }

    fn deploy(&self) -> String {
        let content = b"0123456789".as_slice().into();
        self.0.deploy(Artifact { name: "release-2".into(), device_type: "pi".into(), content })
    }
}

fn at(status: &'static str, number: usize) -> Moment {
    Moment { status, number }
}

#[test]
fn the_oldest_open_deployment_is_next_in_both_versions_of_the_api() {
    let client = Client::new();
    let next = |method, version| {
        client.request(method, &format!("/api/devices/{version}/deployments/device/deployments/next?a=b"), "", "{}")
    };
    assert_eq!(next("POST", "v2"), (204, String::new()));
    let (first, second) = (client.deploy(), client.deploy());
    for (method, version) in [("POST", "v2"), ("GET", "v2"), ("POST", "v1"), ("GET", "v1")] {
        let (status, body) = next(method, version);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["id"].as_str()), (200, Some(first.as_str())), "{method} {version}");
        assert_eq!(body["artifact"]["artifact_name"], "release-2");
        assert_eq!(body["artifact"]["source"]["uri"], format!("http://pi:1/artifacts/{first}"));
    }
    assert_eq!(client.report(&first, "success"), 204);
    assert!(next("POST", "v2").1.contains(&second));
    client.0.abort(&second);
    assert_eq!(next("POST", "v2").0, 204);
}

#[test]
fn reports_are_kept_until_the_deployment_is_aborted() {
    let client = Client::new();
    let id = client.deploy();
    client.0.add_fault(Fault::Abort(at("installing", 2)));
    let answers = ["downloading", "installing", "installing", "failure"].map(|status| client.report(&id, status));
    assert_eq!(answers, [204, 204, 409, 409]);
    let deployment = client.0.deployment(&id).unwrap();
    assert_eq!(deployment.statuses, ["downloading", "installing"]);
    assert_eq!(deployment.refused, ["installing", "failure"]);
    assert!(deployment.is_aborted && deployment.outcome().is_none());
    assert_eq!(client.report("unknown", "success"), 404);
    assert_eq!(client.request("PUT", &format!("{STATUS}/{id}/status"), "", "no JSON").0, 400);
}

#[test]
fn an_absent_server_answers_nothing() {
    let client = Client::new();
    let id = client.deploy();
    client.0.add_fault(Fault::AbsentFrom(at("downloading", 1)));
    assert_eq!([client.report(&id, "downloading"), client.report(&id, "downloading")], [0, 0]);
    client.0.come_back();
    assert_eq!(client.report(&id, "downloading"), 204);
    client.0.add_fault(Fault::AbsentAfter(at("installing", 1)));
    assert_eq!([client.report(&id, "installing"), client.report(&id, "success")], [204, 0]);
    client.0.come_back();
    assert_eq!(client.report(&id, "success"), 204);
    assert_eq!(client.0.deployment(&id).unwrap().statuses, ["downloading", "installing", "success"]);
    assert_eq!(client.0.unanswered(), 3);
}

#[test]
fn a_download_is_cut_once_and_resumed() {
    let client = Client::new();
    let id = client.deploy();
    client.0.add_fault(Fault::ConnectionCloses(4));
    let path = format!("/artifacts/{id}");
    let get = |fields: &str| client.request("GET", &path, fields, "");
    assert_eq!(get(""), (200, "0123".to_owned()));
    assert_eq!(get("Range: bytes=4-\r\n"), (206, "456789".to_owned()));
    assert_eq!(get("").1, "0123456789");
    assert_eq!(client.0.deployment(&id).unwrap().downloads, [0, 4, 0]);
    assert_eq!(client.request("GET", "/artifacts/unknown", "", "").0, 404);
}

#[test]
fn the_log_and_the_inventory_are_kept() {
    let client = Client::new();
    let id = client.deploy();
    let log = r#"{"messages":[{"level":"error","message":"no space","timestamp":"x"},{"level":"info"}]}"#;
    assert_eq!(client.request("PUT", &format!("{STATUS}/{id}/log"), "", log).0, 204);
    assert_eq!(client.0.deployment(&id).unwrap().log.unwrap(), ["error: no space", "info: "]);
    assert_eq!(client.request("PUT", &format!("{STATUS}/{id}/log"), "", "{}").0, 400);
    for (method, value) in [("PUT", 1), ("PATCH", 2)] {
        let body = format!(r#"[{{"name":"a","value":{value}}}]"#);
        let path = "/api/devices/v1/inventory/device/attributes";
        assert_eq!(client.request(method, path, "", &body).0, 200);
        assert_eq!(client.0.inventory()["a"], value);
    }
}

#[test]
fn only_the_newest_token_is_accepted() {
    let client = Client::new();
    client.deploy();
    let old =
        "GET /api/devices/v1/deployments/device/deployments/next HTTP/1.1\r\nAuthorization: Bearer token-1\r\n\r\n";
    assert!(send(client.0.http.address, old).starts_with("HTTP/1.1 200"));
    client.authenticate();
    assert!(send(client.0.http.address, old).starts_with("HTTP/1.1 401"));
    assert_eq!(client.0.authentications(), 2);
}
