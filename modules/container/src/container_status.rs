//! The status and the labels of a container, as both engines report them.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

/// The status of a container.
#[derive(Debug)]
pub struct ContainerStatus {
    /// Changes with every start of the container.
    pub incarnation: String,
    pub status: String,
    pub exit_code: i64,
    /// `None` for a container without a health check.
    pub health: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// The used part of what both engines report about a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(rename = "RestartCount", default)]
    restarts: i64,
    state: InspectedState,
    #[serde(default)]
    config: InspectedConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: String,
    exit_code: i64,
    /// Without a health check, docker omits it, and podman leaves the status empty. Before version 4, podman used the
    /// other name.
    #[serde(alias = "Healthcheck", default)]
    health: Option<InspectedHealth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHealth {
    #[serde(default)]
    status: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl ContainerStatus {
    /// The first container in `output`, which the engine's `container inspect` has printed. `None` for an empty list.
    pub fn parse(output: &str) -> Result<Option<Self>> {
        let found: Vec<Inspected> = serde_json::from_str(output)?;
        Ok(found.into_iter().next().map(|Inspected { id, restarts, state, config }| Self {
            incarnation: format!("{id} {restarts}"),
            status: state.status,
            exit_code: state.exit_code,
            health: state.health.map(|health| health.status).filter(|status| !matches!(&**status, "" | "none")),
            labels: config.labels.unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_both_engines_are_parsed_with_and_without_a_health_check() {
        let parse = |text: &str| ContainerStatus::parse(text).unwrap().unwrap();
        let docker = parse(
            r#"[{"Id": "1", "RestartCount": 0, "State": {"Status": "running", "ExitCode": 0},
                "Config": {"Labels": {"a": "b"}}}]"#,
        );
        assert!(docker.health.is_none());
        assert_eq!(docker.labels, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let podman = parse(
            r#"[{"Id": "1", "RestartCount": 0, "Config": {"Labels": null},
                "State": {"Status": "exited", "ExitCode": 3, "Health": {"Status": ""}}}]"#,
        );
        assert_eq!((podman.health, podman.exit_code, podman.labels.len()), (None, 3, 0));
        assert!(ContainerStatus::parse("[]").unwrap().is_none());
    }
}
