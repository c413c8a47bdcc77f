//! When systemd starts the unit for the recovery at boot, for each way to mount `/data`.

use anyhow::{Context, Result, ensure};

use crate::device::Device;
use crate::{Scenario, Setup};

/// The scenarios. The engine has no part in them.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "recovery-unit",
    summary: "the recovery at boot runs after the mount of /data, and without it if it fails or does not exist",
    on: &[Setup::Podman],
    run,
}];

const UNIT: &str = "mender-update-module-container-recover.service";

/// A way to mount `/data`.
struct Case {
    /// The lines of `/etc/fstab`.
    fstab: &'static str,
    /// Whether the recovery runs.
    recovers: bool,
    /// Whether `/data` is mounted when it runs.
    mounted: bool,
}

const CASES: [Case; 4] = [
    Case { fstab: "", recovers: true, mounted: false },
    Case { fstab: "tmpfs /data tmpfs defaults 0 0\n", recovers: true, mounted: true },
    Case { fstab: "/dev/missing /data ext4 nofail,x-systemd.device-timeout=1s 0 2\n", recovers: true, mounted: false },
    // As a network file system: mounted after the network, which in most systems waits for sysinit.target.
    Case { fstab: "tmpfs /data tmpfs _netdev 0 0\n", recovers: false, mounted: true },
];

/// A service that sets up the network after sysinit.target, as NetworkManager does.
const NETWORK: &str = "[Unit]\nBefore=network.target\nWants=network.target\n\n\
                       [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\n\
                       [Install]\nWantedBy=multi-user.target\n";

fn run(device: &mut Device) -> Result<()> {
    device.write("/etc/systemd/system/network.service", NETWORK.as_bytes())?;
    device.ok("systemctl enable network.service && touch /etc/data-is-mounted-by-systemd")?;
    // The client's data are in /data, by a link, and /data does not come.
    reboot(device, "")?;
    ensure!(result(device)? == "exit-code", "the recovery without the client's data succeeded: {}", log(device)?);
    let log_of_failure = log(device)?;
    ensure!(log_of_failure.contains("/var/lib/mender refused: dangling symlink"), "no cause in {log_of_failure}");
    device.ok("rm /var/lib/mender && mkdir --mode=700 /var/lib/mender")?;
    for Case { fstab, recovers, mounted } in CASES {
        reboot(device, fstab)?;
        let started = microseconds(device, UNIT, "ExecMainStartTimestampMonotonic")?;
        ensure!((started != 0) == recovers, "with {fstab:?}, the recovery started at {started} µs: {}", log(device)?);
        let active = microseconds(device, "data.mount", "ActiveEnterTimestampMonotonic")?;
        ensure!((active != 0) == mounted, "with {fstab:?}, /data was mounted at {active} µs: {}", log(device)?);
        ensure!(!recovers || active <= started, "with {fstab:?}, the recovery did not wait: {}", log(device)?);
        ensure!(result(device)? == "success", "with {fstab:?}, the recovery failed: {}", log(device)?);
    }
    Ok(())
}

fn reboot(device: &mut Device, fstab: &str) -> Result<()> {
    device.write("/etc/fstab", fstab.as_bytes())?;
    device.lose_power()?;
    device.power_on()
}

/// The result of the unit, as systemd names it.
fn result(device: &Device) -> Result<String> {
    Ok(device.ok(&format!("systemctl show --property=Result --value {UNIT}"))?.trim().to_owned())
}

/// A time since the boot; 0 if it has not come yet.
fn microseconds(device: &Device, unit: &str, property: &str) -> Result<u64> {
    let text = device.ok(&format!("systemctl show --property={property} --value {unit}"))?;
    text.trim().parse().with_context(|| format!("{property} of {unit} is {text:?}"))
}

fn log(device: &Device) -> Result<String> {
    device.ok(&format!("journalctl --no-pager --boot --unit {UNIT} --unit data.mount"))
}
