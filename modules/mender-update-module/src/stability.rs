//! Polling until something is healthy and stays so.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};

use crate::log;

/// Time between two polls.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);

/// The time limit of a health check, and how long everything has to stay healthy: a service that starts, exits and
/// starts again is not healthy.
///
/// ```
/// use mender_update_module::{Poll, StabilityWindow};
///
/// let window = StabilityWindow::new(10, 0);
/// window.wait(|_left| Poll::Healthy("process 17")).unwrap();
/// assert!(window.wait(|_left| Poll::<()>::Failed(anyhow::anyhow!("it has exited"))).is_err());
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StabilityWindow {
    limit: Duration,
    stable: Duration,
}

/// The result of one poll.
pub enum Poll<T> {
    /// Healthy. The value changes when something was restarted meanwhile, which restarts the stability window.
    Healthy(T),
    /// Not healthy yet: the next poll may succeed.
    Unhealthy(Error),
    /// Not healthy, and waiting does not help.
    Failed(Error),
}

impl StabilityWindow {
    /// A window of `stable_seconds` within `limit_seconds`.
    pub fn new(limit_seconds: u64, stable_seconds: u64) -> Self {
        Self { limit: Duration::from_secs(limit_seconds), stable: Duration::from_secs(stable_seconds) }
    }

    /// The time limit.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Polls until every poll of one whole stability window was healthy with the same value. `poll` gets the time left.
    ///
    /// # Errors
    /// The error of the last poll, when the limit is over or the poll has failed for good.
    pub fn wait<T: PartialEq>(&self, mut poll: impl FnMut(Duration) -> Poll<T>) -> Result<()> {
        let Self { limit, stable } = *self;
        let begun = Instant::now();
        let mut healthy: Option<(T, Instant)> = None;
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            match poll(left) {
                Poll::Healthy(value) => {
                    let since = match healthy.take() {
                        Some((before, since)) if before == value => since,
                        Some(_) => {
                            log!("restarted during the health check: the stability window starts again");
                            Instant::now()
                        }
                        None => Instant::now(),
                    };
                    if since.elapsed() >= stable {
                        return Ok(());
                    }
                    if left.is_zero() {
                        bail!("not healthy for {stable:?} within {limit:?}");
                    }
                    healthy = Some((value, since));
                }
                Poll::Failed(error) => return Err(error),
                Poll::Unhealthy(error) => {
                    if left.is_zero() {
                        return Err(error.context(format!("not healthy within {limit:?}")));
                    }
                    if healthy.take().is_some() {
                        log!("healthy, then unhealthy: {error:#}");
                    }
                }
            }
            thread::sleep(INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_changed_value_restarts_the_window() {
        let mut polls = 0;
        let result = StabilityWindow::new(2, 1).wait(|_| {
            polls += 1;
            Poll::Healthy(polls)
        });
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains("not healthy for 1s within 2s"), "{error}");
    }

    #[test]
    fn a_final_failure_ends_the_wait_at_once() {
        let begun = Instant::now();
        let result = StabilityWindow::new(60, 1).wait(|_| Poll::<()>::Failed(anyhow!("in a restart loop")));
        assert_eq!(result.unwrap_err().to_string(), "in a restart loop");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn journals_keep_the_form_of_version_0_1_0() {
        let json = r#"{"limit":{"secs":120,"nanos":0},"stable":{"secs":10,"nanos":0}}"#;
        let window: StabilityWindow = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&window).unwrap(), json);
    }

    #[test]
    fn a_poll_that_is_unhealthy_once_is_repeated_until_the_limit() {
        let mut polls = 0;
        let becoming = |_| {
            polls += 1;
            if polls == 1 { Poll::Unhealthy(anyhow!("starting")) } else { Poll::Healthy(()) }
        };
        let window = StabilityWindow::new(60, 0);
        assert_eq!(window.limit(), Duration::from_secs(60));
        window.wait(becoming).unwrap();
        assert_eq!(polls, 2);
        let mut lefts = Vec::new();
        let result = StabilityWindow::new(0, 0).wait(|left| {
            lefts.push(left);
            Poll::<()>::Unhealthy(anyhow!("stopped"))
        });
        assert_eq!(
            (format!("{:#}", result.unwrap_err()).as_str(), lefts),
            ("not healthy within 0ns: stopped", vec![Duration::ZERO])
        );
    }

    #[test]
    fn what_is_healthy_for_the_window_is_healthy() {
        let mut polls = 0;
        let healthy = |_| {
            polls += 1;
            Poll::Healthy(())
        };
        StabilityWindow::new(60, 1).wait(healthy).unwrap();
        assert!(polls > 1);
    }
}
