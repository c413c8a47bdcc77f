//! A Mender server for one device: the device API, with faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::deployment::{Artifact, Deployment, log_lines};
use crate::fault::{Fault, Faults};
use crate::http::{Http, Request, Response};

/// A server that accepts every device, and offers the oldest deployment that has not ended. It ends when it is dropped.
pub struct Server {
    http: Http,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The deployments with their IDs, the oldest first.
    deployments: BTreeMap<String, Deployment>,
    faults: Faults,
    is_absent: bool,
    /// The number of requests that were not answered.
    unanswered: usize,
    /// The number of requests for a token. The newest token contains it.
    authentications: usize,
    inventory: BTreeMap<String, Value>,
}

impl Server {
    /// Starts a server on a free port.
    pub fn start() -> Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        Ok(Self { http: Http::start(move |request| lock(&shared).answer(request))?, state })
    }

    /// The URL for an emulated device.
    pub fn url(&self) -> String {
        self.http.url()
    }

    /// Offers `artifact` to the device, and returns the ID of the deployment.
    pub fn deploy(&self, artifact: Artifact) -> String {
        let mut state = lock(&self.state);
        let id = format!("00000000-0000-4000-8000-{:012}", state.deployments.len() + 1);
        state.deployments.insert(id.clone(), Deployment { artifact, ..Deployment::default() });
        id
    }

    /// The present state of the deployment `id`.
    pub fn deployment(&self, id: &str) -> Result<Deployment> {
        lock(&self.state).deployments.get(id).cloned().with_context(|| format!("no such deployment: {id}"))
    }

    /// Adds a fault that happens later.
    pub fn add_fault(&self, fault: Fault) {
        lock(&self.state).faults.add(fault);
    }

    /// Aborts the deployment `id` now.
    pub fn abort(&self, id: &str) {
        if let Some(deployment) = lock(&self.state).deployments.get_mut(id) {
            deployment.is_aborted = true;
        }
    }

    /// Ends the absence of the server.
    pub fn come_back(&self) {
        lock(&self.state).is_absent = false;
    }

    /// The number of requests that the server has not answered while it was absent.
    pub fn unanswered(&self) -> usize {
        lock(&self.state).unanswered
    }

    /// The number of requests for a token.
    pub fn authentications(&self) -> usize {
        lock(&self.state).authentications
    }

    /// The attributes of the device's inventory.
    pub fn inventory(&self) -> BTreeMap<String, Value> {
        lock(&self.state).inventory.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The answer to `request`, or `None` if the server is absent.
    fn answer(&mut self, request: &Request) -> Option<Response> {
        let was_absent = self.is_absent;
        let response = if was_absent { None } else { self.answer_present(request) };
        self.unanswered += usize::from(response.is_none());
        response
    }

    fn answer_present(&mut self, request: &Request) -> Option<Response> {
        let path: Vec<_> = request.path.trim_start_matches('/').split('/').collect();
        let method = request.method.as_str();
        match (method, path.as_slice()) {
            ("POST", ["api", "devices", "v1", "authentication", "auth_requests"]) => {
                self.authentications += 1;
                return Some(Response::content(self.token().as_bytes(), None));
            }
            ("GET", ["artifacts", id]) => return Some(self.download(id, request)),
            _ => {}
        }
        if request.field("authorization") != Some(&format!("Bearer {}", self.token())) {
            return Some(Response::empty(401));
        }
        match (method, path.as_slice()) {
            ("GET" | "POST", ["api", "devices", "v1" | "v2", "deployments", "device", "deployments", "next"]) => {
                Some(self.next(request))
            }
            ("PUT", ["api", "devices", "v1" | "v2", "deployments", "device", "deployments", id, "status"]) => {
                self.report(id, &request.body)
            }
            ("PUT", ["api", "devices", "v1" | "v2", "deployments", "device", "deployments", id, "log"]) => {
                Some(self.keep_log(id, &request.body))
            }
            ("PUT" | "PATCH", ["api", "devices", "v1", "inventory", "device", "attributes"]) => {
                Some(self.keep_inventory(&request.body))
            }
            _ => Some(Response::empty(404)),
        }
    }

    /// The token that requests must have.
    fn token(&self) -> String {
        format!("token-{}", self.authentications)
    }

    fn next(&self, request: &Request) -> Response {
        let is_open = |deployment: &Deployment| !deployment.is_aborted && deployment.outcome().is_none();
        let Some((id, deployment)) = self.deployments.iter().find(|(_, deployment)| is_open(deployment)) else {
            return Response::empty(204);
        };
        let url = format!("http://{}", request.field("host").unwrap_or_default());
        Response::content(deployment.description(id, &url).to_string().as_bytes(), None)
    }

    /// Keeps a report of the status of the deployment `id`, and lets the faults of this moment happen.
    fn report(&mut self, id: &str, body: &[u8]) -> Option<Response> {
        let Some(deployment) = self.deployments.get_mut(id) else { return Some(Response::empty(404)) };
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(status) = body["status"].as_str() else { return Some(Response::empty(400)) };
        let faults = self.faults.at(status, deployment.count(status) + 1);
        self.is_absent = faults.iter().any(|fault| matches!(fault, Fault::AbsentFrom(_) | Fault::AbsentAfter(_)));
        deployment.is_aborted |= faults.iter().any(|fault| matches!(fault, Fault::Abort(_)));
        if faults.iter().any(|fault| matches!(fault, Fault::AbsentFrom(_))) {
            return None;
        }
        if deployment.is_aborted {
            deployment.refused.push(status.to_owned());
            return Some(Response::empty(409));
        }
        deployment.statuses.push(status.to_owned());
        Some(Response::empty(204))
    }

    fn keep_log(&mut self, id: &str, body: &[u8]) -> Response {
        match (self.deployments.get_mut(id), log_lines(body)) {
            (Some(deployment), Some(lines)) => {
                deployment.log = Some(lines);
                Response::empty(204)
            }
            (None, _) => Response::empty(404),
            (_, None) => Response::empty(400),
        }
    }

    /// Keeps the attributes, a list of objects with `name` and `value`.
    fn keep_inventory(&mut self, body: &[u8]) -> Response {
        let Ok(attributes) = serde_json::from_slice::<Vec<Map<String, Value>>>(body) else {
            return Response::empty(400);
        };
        self.inventory = attributes
            .into_iter()
            .filter_map(|mut attribute| Some((attribute.get("name")?.as_str()?.to_owned(), attribute.remove("value")?)))
            .collect();
        Response::empty(200)
    }

    fn download(&mut self, id: &str, request: &Request) -> Response {
        let Some(deployment) = self.deployments.get_mut(id) else { return Response::empty(404) };
        let range = request.field("range");
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok());
        deployment.downloads.push(start.unwrap_or_default());
        let response = Response::content(&deployment.artifact.content, range);
        Response { closed_after: self.faults.closed_after(), ..response }
    }
}

#[cfg(test)]
mod tests;
