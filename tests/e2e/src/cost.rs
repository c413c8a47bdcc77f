//! What an update of a container costs, measured on the emulated Pi with real podman: on a workstation there is neither a
//! card whose writes could be counted alone nor a systemd to spare.

use anyhow::{Context, Result};
use host::{directory, status};
use xshell::Shell;

use crate::Stage;
use crate::lab::Lab;
use crate::scenarios::container;

/// The figures of one update by one image.
pub struct Cost {
    /// The archive's size, in bytes.
    pub payload: u64,
    /// Bytes that `podman load` alone writes to the card, and the seconds that it takes.
    pub load: (u64, f64),
    /// Bytes that the whole update writes, by the client, the module and podman.
    pub update: u64,
    /// Seconds for which nobody answered during it.
    pub silent: f64,
}

/// Bytes of noise in the image beside the server: many times what podman's own notes take.
const NOISE: usize = 8 << 20;

/// Asks the service again and again, and notes when, and whether it answered.
const WATCH: &str = "while :; do busybox wget -q -T 2 -O /dev/null http://127.0.0.1:8080/ && well=1 || well=0; \
    read up rest < /proc/uptime; echo $up $well; sleep 0.2; done < /dev/null > /dev/shm/watch 2> /dev/null & echo $! > /dev/shm/watcher";

/// Measures on the machine of `stage`.
///
/// # Errors
/// When the update fails, or the machine does.
pub fn measure(stage: &Stage) -> Result<Cost> {
    let sh = &Shell::new()?;
    let directory = stage.directory.join("cost");
    directory::empty(&directory)?;
    let cost = status::step("raspi3b: the cost of a container's update", |step| {
        costs(&mut Lab::new(sh, stage, &directory, step)?)
    })?;
    directory::remove(&directory)?;
    Ok(cost)
}

fn costs(lab: &mut Lab) -> Result<Cost> {
    let other = container::with_first_version(lab, NOISE)?;
    let archive = lab.put("other.tar", &other.content)?;
    let before = written(lab)?;
    let seconds = lab.ok(&format!(
        "read begun rest < /proc/uptime; podman load --quiet --input {archive} >&2 && sync; read ended rest < /proc/uptime; \
         echo $begun $ended"
    ))?;
    let load = (written(lab)? - before, between(&seconds)?);
    let second = container::second_version(lab, NOISE)?;
    let before = written(lab)?;
    lab.ok(WATCH)?;
    lab.client(&format!("install {second}"), 0)?;
    lab.client("commit", 0)?;
    let watched = lab.ok("kill $(cat /dev/shm/watcher) && cat /dev/shm/watch")?;
    let update = written(lab)? - before;
    Ok(Cost { payload: other.content.len() as u64, load, update, silent: silent(&watched) })
}

/// Bytes that the card has taken since power-on, everything synced.
fn written(lab: &Lab) -> Result<u64> {
    let stat = lab.ok("sync && cat /sys/block/mmcblk0/stat")?;
    let sectors = stat.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    Ok(sectors.context("the card's counters have no seventh field")? * 512)
}

fn between(times: &str) -> Result<f64> {
    let times: Vec<f64> = times.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    let [begun, ended] = times[..] else { anyhow::bail!("{times:?} are not two times") };
    Ok(ended - begun)
}

/// From the last answer before each silence to the first after it, in seconds, all together.
fn silent(watched: &str) -> f64 {
    let looks = watched.lines().filter_map(|line| {
        let (time, well) = line.split_once(' ')?;
        Some((time.parse::<f64>().ok()?, well == "1"))
    });
    let (mut last, mut silent, mut was_well) = (None, 0.0, true);
    for (time, well) in looks {
        if let Some(last) = last.filter(|_| well && !was_well) {
            silent += time - last;
        }
        if well {
            last = Some(time);
        }
        was_well = well;
    }
    silent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_from_answer_to_answer() {
        assert_eq!(silent("1.0 1\n2.0 0\n3.0 0\n4.5 1\n5.0 1\n6.0 0\n6.5 1\n"), 5.0);
        assert_eq!(silent("1.0 1\n2.0 1\n"), 0.0);
        assert_eq!(silent("1.0 0\n2.0 1\n"), 0.0, "nothing has answered yet");
    }
}
