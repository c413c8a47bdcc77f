use mender_server::Artifact;

use super::*;

/// The views after a deployment of release-2 over `base`, with these statuses. The artifact `active` is active.
fn views(active: &str, statuses: &[&str]) -> Views {
    let artifact = Artifact { name: "release-2".into(), ..Artifact::default() };
    let statuses: Vec<_> = statuses.iter().map(|status| (*status).to_owned()).collect();
    let log = statuses.iter().any(|status| status == "failure").then(|| vec!["error: no space".to_owned()]);
    let mut provided = provides(&format!("artifact_name={active}\nrootfs-image.version=1"));
    if active != "base" {
        provided.insert("data-partition.web-file.version".into(), active.into());
    }
    Views {
        module: "web-file",
        disk: active.into(),
        artifact: active.into(),
        provides: provided,
        deployment: Deployment { artifact, statuses, log, ..Deployment::default() },
    }
}

const SUCCESS: &[&str] = &["downloading", "downloading", "installing", "installing", "success"];
const FAILURE: &[&str] = &["downloading", "installing", "failure"];

/// Fails unless the views disagree, and the error contains `text`.
fn disagree(views: &Views, text: &str) {
    let error = format!("{:#}", views.outcome().unwrap_err());
    assert!(error.contains(text), "{error}");
}

#[test]
fn views_agree_on_every_outcome() {
    let outcome = |active, statuses| views(active, statuses).outcome().unwrap();
    assert_eq!(outcome("release-2", SUCCESS), Outcome::Committed);
    let reboot = ["downloading", "installing", "rebooting", "installing", "success"];
    assert_eq!(outcome("release-2", &reboot), Outcome::Committed);
    assert_eq!(outcome("base", FAILURE), Outcome::Failed);
    assert_eq!(outcome("release-1", &["downloading", "failure"]), Outcome::Failed);
    assert_eq!(outcome("release-2", &["already-installed"]), Outcome::AlreadyInstalled);
    let mut aborted = views("base", &["downloading"]);
    aborted.deployment.is_aborted = true;
    aborted.deployment.refused = vec!["installing".into(), "failure".into()];
    assert_eq!(aborted.outcome().unwrap(), Outcome::Aborted);
    aborted.deployment.refused.push("success".into());
    disagree(&aborted, "success of an aborted deployment");
}

#[test]
fn the_disk_disagrees_with_the_client() {
    for active in ["base", "mixed: base release-2", ""] {
        disagree(&Views { disk: active.into(), ..views("release-2", SUCCESS) }, "disk and show-artifact");
    }
    let inconsistent = Views { artifact: "release-2_INCONSISTENT".into(), ..views("release-2", SUCCESS) };
    disagree(&inconsistent, "disk and show-artifact");
}

#[test]
fn the_client_disagrees_with_itself() {
    let mut name = views("release-2", SUCCESS);
    name.provides.insert("artifact_name".into(), "base".into());
    disagree(&name, "the artifact's name");
    let mut version = views("release-2", SUCCESS);
    version.provides.remove("data-partition.web-file.version");
    disagree(&version, "show-provides: the version");
    let mut left = views("base", FAILURE);
    left.provides.insert("data-partition.web-file.version".into(), "release-2".into());
    disagree(&left, "show-provides: the version");
}

#[test]
fn the_status_disagrees_with_the_device() {
    disagree(&views("base", SUCCESS), "disk and status");
    disagree(&views("release-1", SUCCESS), "disk and status");
    disagree(&views("release-2", FAILURE), "disk and status");
    disagree(&views("base", &["already-installed"]), "disk and status");
    disagree(&views("release-2", &["success"]), "success without an install");
    disagree(&views("release-2", &["downloading", "already-installed"]), "an install of an installed artifact");
    disagree(&views("base", &["downloading"]), "no final status");
}

#[test]
fn a_status_out_of_order_is_found() {
    for statuses in [
        &["installing", "downloading", "success"][..],
        &["downloading", "installing", "success", "success"],
        &["downloading", "installing", "failure", "success"],
        &["downloading", "installing", "unknown", "success"],
    ] {
        disagree(&views("release-2", statuses), "out of order");
    }
}

#[test]
fn the_log_exists_exactly_for_a_failure() {
    let mut missing = views("base", FAILURE);
    missing.deployment.log = None;
    disagree(&missing, "deployment log");
    assert!(!is_over(&missing.deployment));
    let mut superfluous = views("release-2", SUCCESS);
    superfluous.deployment.log = Some(Vec::new());
    disagree(&superfluous, "deployment log");
}

#[test]
fn a_deployment_is_over_with_its_last_report() {
    assert!(is_over(&views("release-2", SUCCESS).deployment) && is_over(&views("base", FAILURE).deployment));
    assert!(!is_over(&views("base", &SUCCESS[..4]).deployment));
    let mut aborted = views("base", &["downloading"]).deployment;
    aborted.refused = vec!["installing".into()];
    assert!(!is_over(&aborted));
    aborted.refused.push("failure".into());
    assert!(is_over(&aborted));
}
