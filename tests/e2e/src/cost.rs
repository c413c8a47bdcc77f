//! The cost of a container update, measured on the emulated Pi with real podman. There the writes of the card can be
//! counted, and the module controls a systemd of its own.

use anyhow::{Context, Result, bail};
use host::{directory, status};
use xshell::Shell;

use crate::Setup;
use crate::device::Device;
use crate::scenarios::container;

/// The cost of one update with one image.
pub struct Cost {
    /// The size of the image archive in bytes.
    pub payload: u64,
    /// The baseline: bytes that `podman load` alone writes to the card, and its duration in seconds.
    pub load: (u64, f64),
    /// Bytes that the client, the module and podman write during the whole update.
    pub update: u64,
    /// The downtime during the update in seconds.
    pub downtime: f64,
}

/// Padding bytes in the image: much more than podman's own files need.
const PADDING: usize = 8 << 20;

/// Polls the service in the background and logs the uptime and whether the service answered.
const POLL: &str = "while :; do busybox wget -q -T 2 -O /dev/null http://127.0.0.1:8080/ && answered=1 || answered=0; \
    read up rest < /proc/uptime; echo $up $answered; sleep 0.2; \
    done < /dev/null > /dev/shm/polls 2> /dev/null & echo $! > /dev/shm/poller";

/// Measures an update on the machine of `setup`.
pub fn measure(setup: &Setup) -> Result<Cost> {
    let sh = &Shell::new()?;
    let directory = setup.directory.join("cost");
    directory::empty(&directory)?;
    let machine = setup.image.board().machine;
    let cost = status::step(format!("{machine}: cost of a container update"), |step| {
        costs(&mut Device::new(sh, setup, &directory, step)?)
    })?;
    directory::remove(&directory)?;
    Ok(cost)
}

fn costs(device: &mut Device) -> Result<Cost> {
    let other = container::with_first_version(device, PADDING)?;
    let archive = device.write_file("other.tar", &other.content)?;
    let before = written(device)?;
    let times = device.ok(&format!(
        "read start rest < /proc/uptime; podman load --quiet --input {archive} >&2 && sync; \
         read end rest < /proc/uptime; echo $start $end"
    ))?;
    let load = (written(device)? - before, duration(&times)?);
    let second = container::second_version(device, PADDING)?;
    let before = written(device)?;
    device.ok(POLL)?;
    device.install_and_commit(&second)?;
    let polls = device.ok("kill $(cat /dev/shm/poller) && cat /dev/shm/polls")?;
    let update = written(device)? - before;
    Ok(Cost { payload: other.content.len() as u64, load, update, downtime: downtime(&polls) })
}

/// Bytes that were written to the card since power-on, after a sync.
fn written(device: &Device) -> Result<u64> {
    let stat = device.ok("sync && cat /sys/block/mmcblk0/stat")?;
    let sectors = stat.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    Ok(sectors.context("no seventh field in /sys/block/mmcblk0/stat")? * 512)
}

/// The time from the first to the second of two `times`.
fn duration(times: &str) -> Result<f64> {
    let times: Vec<f64> = times.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    let [start, end] = times[..] else { bail!("unexpected times: {times:?} instead of two numbers") };
    Ok(end - start)
}

/// The sum of all times without an answer, in seconds: each from the last answer before it to the first one after it.
fn downtime(polls: &str) -> f64 {
    let polls = polls.lines().filter_map(|line| {
        let (time, answered) = line.split_once(' ')?;
        Some((time.parse::<f64>().ok()?, answered == "1"))
    });
    let (mut last_answer, mut downtime, mut previous) = (None, 0.0, true);
    for (time, answered) in polls {
        if let Some(last_answer) = last_answer.filter(|_| answered && !previous) {
            downtime += time - last_answer;
        }
        if answered {
            last_answer = Some(time);
        }
        previous = answered;
    }
    downtime
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downtime_is_from_answer_to_answer() {
        assert_eq!(downtime("1.0 1\n2.0 0\n3.0 0\n4.5 1\n5.0 1\n6.0 0\n6.5 1\n"), 5.0);
        assert_eq!(downtime("1.0 1\n2.0 1\n"), 0.0);
        assert_eq!(downtime("1.0 0\n2.0 1\n"), 0.0, "no answer before");
    }
}
