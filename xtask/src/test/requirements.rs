//! What the suites of a run need on this host. It is checked, printed and installed before anything is built.

use anyhow::Result;
use host::packages;
use xshell::Shell;

use super::Plan;
use super::suites::SUITES;
use crate::needs::Needs;

/// The requirements of one suite.
#[derive(Default)]
pub struct Requirements {
    /// Packages, and operations that need root.
    pub needs: Needs,
    /// The reason why no package helps, if there is one.
    pub obstacle: Option<String>,
}

impl From<Needs> for Requirements {
    fn from(needs: Needs) -> Self {
        Self { needs, obstacle: None }
    }
}

/// The suites that cannot run on this host, each with the reason.
pub struct Obstacles(Vec<(&'static str, String)>);

impl Obstacles {
    /// Checks the requirements of all suites of `plan`, prints what is missing, and installs what can be installed.
    /// Returns the result of the installation, too: if it failed, the suites that need nothing of it can run.
    pub fn find(sh: &Shell, plan: &Plan) -> Result<(Self, Result<()>)> {
        let (mut all, mut refused, mut obstacles) = (Needs::default(), Needs::default(), Vec::new());
        let mut granted = Vec::new();
        for suite in SUITES.iter().filter(|suite| suite.left_out(plan.level).is_none()) {
            let Requirements { needs, obstacle } = (suite.requirements)(plan, sh)?;
            match obstacle.or(needs.short_obstacle(sh)?) {
                None => {
                    all = all.and(needs.clone());
                    granted.push((suite.name, needs));
                }
                Some(reason) => {
                    refused = refused.and(needs);
                    obstacles.push((suite.name, reason));
                }
            }
        }
        if !packages::may_be_root() {
            if let Some(everything) = refused.obstacle(sh)? {
                println!("{everything}");
            }
        }
        obstacles.iter().for_each(|(suite, reason)| println!("skipped on this host: {suite}: {reason}"));
        let provided = all.provide(sh);
        if provided.is_err() {
            for (suite, needs) in granted {
                let missing = needs.missing(sh)?;
                if !missing.is_empty() {
                    obstacles.push((suite, format!("installing failed: {}", missing.join(" "))));
                }
            }
        }
        Ok((Self(obstacles), provided))
    }

    /// The reason why `suite` cannot run, if it cannot.
    pub fn of(&self, suite: &str) -> Option<String> {
        self.0.iter().find(|(other, _)| *other == suite).map(|(_, reason)| reason.clone())
    }
}
