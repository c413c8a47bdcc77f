//! The health check of a project: its units are active and its containers are healthy, and stay so.

use std::time::SystemTime;

use anyhow::{Context, Error, Result, anyhow, ensure};
use mender_update_module::{Poll, StabilityWindow};

use crate::engine::Engine;
use crate::project::{Containers, Project, Service};
use crate::settings::Settings;
use crate::systemd::Systemd;

/// Restarts by systemd from which on a service is in a restart loop.
const RESTART_LOOP: u64 = 3;

/// The stability window of the settings.
pub fn window(settings: &Settings) -> StabilityWindow {
    StabilityWindow::new(settings.health_seconds, settings.stable_seconds)
}

/// Polls until every service of `project`, which was started at `started`, was healthy for the stability window.
///
/// # Errors
/// When that does not happen within the limit: the service and the cause. The deployment log has its last log lines.
pub fn wait(
    project: &Project,
    engine: &Engine,
    systemd: &Systemd,
    window: &StabilityWindow,
    started: SystemTime,
) -> Result<()> {
    let mut unhealthy = None;
    let result = window.wait(|_left| {
        unhealthy = None;
        let mut incarnations = String::new();
        for service in &project.services {
            match poll(service, engine, systemd) {
                Poll::Healthy(incarnation) => incarnations += &incarnation,
                Poll::Unhealthy(error) => {
                    unhealthy = Some(service);
                    return Poll::Unhealthy(error.context(service.unit.clone()));
                }
                Poll::Failed(error) => {
                    unhealthy = Some(service);
                    return Poll::Failed(error.context(service.unit.clone()));
                }
            }
        }
        Poll::Healthy(incarnations)
    });
    if let (Err(_), Some(service)) = (&result, unhealthy) {
        show_logs_of(service, engine, started);
    }
    result.context("health check failed")
}

/// Polls `service`. The value of a healthy one changes when one of its containers is restarted.
fn poll(service: &Service, engine: &Engine, systemd: &Systemd) -> Poll<String> {
    let state = match systemd.state(&service.unit) {
        Ok(state) => state,
        Err(error) => return Poll::Unhealthy(error),
    };
    if state.restarts() >= RESTART_LOOP {
        return Poll::Failed(anyhow!("in a restart loop: systemd has restarted it {} times", state.restarts()));
    }
    if service.oneshot && state.has_succeeded() {
        return Poll::Healthy(String::new());
    }
    if service.oneshot || !state.is_active() {
        return Poll::Unhealthy(anyhow!("unit {}", state.summary()));
    }
    match incarnations(service, engine) {
        Ok(containers) => Poll::Healthy(format!("{} {containers} ", state.restarts())),
        Err(error) => Poll::Unhealthy(error),
    }
}

/// The incarnations of the containers of `service`, all of which have to be healthy.
fn incarnations(service: &Service, engine: &Engine) -> Result<String, Error> {
    let (names, is_single) = match &service.containers {
        Containers::Named(name) => (vec![name.clone()], true),
        Containers::Labelled(label) => (engine.containers(Some(label))?, false),
    };
    ensure!(!names.is_empty(), "no containers yet");
    let mut incarnations = String::new();
    for name in names {
        let container = engine.container(&name)?.with_context(|| format!("container {name}: not found"))?;
        let has_succeeded = !is_single && container.status == "exited" && container.exit_code == 0;
        ensure!(container.status == "running" || has_succeeded, "container {name}: status {}", container.status);
        let health = container.health.as_deref().unwrap_or("healthy");
        ensure!(health == "healthy" || has_succeeded, "container {name}: health check: {health}");
        incarnations += &container.incarnation;
    }
    Ok(incarnations)
}

/// Shows the last log lines of all services of `project`, which was started at `started`, in the deployment log.
pub fn show_logs(project: &Project, engine: &Engine, started: SystemTime) {
    project.services.iter().for_each(|service| show_logs_of(service, engine, started));
}

fn show_logs_of(service: &Service, engine: &Engine, started: SystemTime) {
    match &service.containers {
        Containers::Named(name) => engine.show_log(name),
        Containers::Labelled(label) => {
            engine.containers(Some(label)).unwrap_or_default().iter().for_each(|name| engine.show_log(name));
        }
    }
    // Only the unit's log has the cause if the container was never made or is removed already, and the messages of a
    // compose provider.
    Systemd::show_journal(&service.unit, started);
}
