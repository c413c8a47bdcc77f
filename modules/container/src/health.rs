//! Whether what was started is healthy, and stays so.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::log;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::project::{Containers, Project, Service};
use crate::settings::Settings;
use crate::systemd::Systemd;

/// Time between two polls.
const INTERVAL: Duration = Duration::from_millis(500);

/// A service that was started again so often by itself is in a loop: there is nothing to wait for.
const LOOP: u64 = 3;

/// How long to look.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    limit: Duration,
    stable: Duration,
}

impl Limits {
    /// Those of the settings.
    ///
    /// # Errors
    /// When they can never be met.
    pub fn of(settings: &Settings) -> Result<Self> {
        let Settings { health_seconds, stable_seconds, .. } = settings;
        ensure!(
            stable_seconds < health_seconds,
            "stable_seconds = {stable_seconds} has to be less than health_seconds = {health_seconds}"
        );
        Ok(Self { limit: Duration::from_secs(*health_seconds), stable: Duration::from_secs(*stable_seconds) })
    }
}

/// Polls until every service of `project`, which was started at `started`, has been healthy for the stability window.
///
/// # Errors
/// When that does not come within the limit: which service, and its last log lines in the deployment log.
pub fn wait(
    project: &Project,
    engine: &Engine,
    systemd: &Systemd,
    limits: &Limits,
    started: SystemTime,
) -> Result<()> {
    let Limits { limit, stable } = *limits;
    let begun = Instant::now();
    let mut healthy: Option<(String, Instant)> = None;
    loop {
        let over = begun.elapsed() >= limit;
        match look(project, engine, systemd) {
            Ok(now) => {
                let (before, since) = healthy.get_or_insert_with(|| (now.clone(), Instant::now()));
                if *before != now {
                    log!("a container was started again: waiting for it to stay");
                    (*before, *since) = (now, Instant::now());
                }
                if since.elapsed() >= stable {
                    return Ok(());
                }
            }
            Err(unhealthy) if over || unhealthy.hopeless => {
                show_service(&unhealthy.service, engine, started);
                return Err(unhealthy.error.context(format!("{} is not healthy", unhealthy.service.unit)));
            }
            Err(_) => healthy = None,
        }
        if over && healthy.is_some() {
            bail!("the project was not healthy for {stable:?} within {limit:?}");
        }
        thread::sleep(INTERVAL);
    }
}

/// A service that is not healthy now.
struct Unhealthy {
    service: Service,
    error: anyhow::Error,
    /// Waiting is of no use.
    hopeless: bool,
}

/// Looks once; what it returns is another text when one of the containers is another.
fn look(project: &Project, engine: &Engine, systemd: &Systemd) -> Result<String, Box<Unhealthy>> {
    let mut incarnations = String::new();
    for service in &project.services {
        let unhealthy = |error, hopeless| Box::new(Unhealthy { service: service.clone(), error, hopeless });
        let state = systemd.state(&service.unit).map_err(|error| unhealthy(error, false))?;
        if state.restarts() >= LOOP {
            let error = anyhow::anyhow!("it ends and is started again, {} times so far", state.restarts());
            return Err(unhealthy(error, true));
        }
        if service.oneshot && state.has_succeeded() {
            continue;
        }
        if service.oneshot || !state.is_active() {
            return Err(unhealthy(anyhow::anyhow!("systemd says: {}", state.shown()), false));
        }
        let containers = containers(service, engine).map_err(|error| unhealthy(error, false))?;
        incarnations += &format!("{} {containers} ", state.restarts());
    }
    Ok(incarnations)
}

/// The incarnations of a service's containers, all of which have to be healthy.
fn containers(service: &Service, engine: &Engine) -> Result<String> {
    let (names, alone) = match &service.containers {
        Containers::Named(name) => (vec![name.clone()], true),
        Containers::Labelled(label) => (engine.containers(Some(label))?, false),
    };
    ensure!(!names.is_empty(), "it has no containers yet");
    let mut incarnations = String::new();
    for name in names {
        let container = engine.container(&name).with_context(|| format!("the container {name}"))?;
        let container = container.with_context(|| format!("there is no container {name}"))?;
        let has_succeeded = !alone && container.status == "exited" && container.exit_code == 0;
        ensure!(
            container.status == "running" || has_succeeded,
            "the container {name} is {}",
            container.status
        );
        let health = container.health.as_deref().unwrap_or("healthy");
        ensure!(
            health == "healthy" || has_succeeded,
            "the health check of the container {name} says: {health}"
        );
        incarnations += &container.incarnation;
    }
    Ok(incarnations)
}

/// Shows the last log lines of all services of `project`, which was started at `started`, in the deployment log.
pub fn show(project: &Project, engine: &Engine, started: SystemTime) {
    project.services.iter().for_each(|service| show_service(service, engine, started));
}

fn show_service(service: &Service, engine: &Engine, started: SystemTime) {
    match &service.containers {
        Containers::Named(name) => engine.show_log(name),
        Containers::Labelled(label) => {
            engine.containers(Some(label)).unwrap_or_default().iter().for_each(|name| engine.show_log(name));
        }
    }
    // A container that never came to be, or is gone already, has its reason only there. So has a provider.
    Systemd::show_journal(&service.unit, started);
}
