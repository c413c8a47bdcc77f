//! QEMU's command line.

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context, Result};

use crate::image::Image;
use crate::overlay::Overlay;

/// The model of the network adapter, a USB device.
pub(crate) const ADAPTER: &str = "usb-net";
/// The ID of the network in QEMU's options.
pub(crate) const NETWORK: &str = "net";

/// The time limits of the guest. An emulated machine on a busy host exceeds systemd's default limits for the start of a
/// unit and for a device to appear (90 s), and those after which the kernel reports a stall, which [`Console`] takes
/// for an error: a CPU that schedules nothing (20 s, at most 120 s) or has no RCU grace period (21 s, at most 300 s),
/// and a blocked task (120 s).
///
/// [`Console`]: crate::console::Console
const LIMITS: &str = "systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900 \
                      watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300 sysctl.kernel.hung_task_timeout_secs=900";

/// What differs between two starts of the same machine.
pub(crate) struct Options {
    /// Whether the network adapter is plugged in from the start.
    pub(crate) has_adapter: bool,
    /// Parameters on the kernel's command line, in addition to those of every start.
    pub(crate) kernel_parameters: &'static str,
    /// Arguments of QEMU, in addition to those of every start.
    pub(crate) arguments: Vec<OsString>,
}

impl Options {
    /// The options of a normal boot.
    pub(crate) const fn boot() -> Self {
        Self { has_adapter: true, kernel_parameters: "", arguments: Vec::new() }
    }
}

/// The command that runs the machine. Port `port` of the host leads to its ssh server. Its clock starts at `now`, in
/// seconds since 1970.
pub(crate) fn qemu(image: &Image, overlay: &Overlay, port: u16, options: &Options, now: u64) -> Command {
    let board = image.board();
    // Only one CPU is started. On a host with two cores, a second one is not faster, and on raspi2b it sometimes
    // hangs Debian's kernel.
    let parameters = options.kernel_parameters;
    let console = board.console;
    let kernel = format!("console={console},115200 nr_cpus=1 pi.clock={now} {LIMITS} {parameters}");
    let mut command = Command::new(board.qemu);
    command.args(["-M", board.machine, "-display", "none", "-no-reboot", "-monitor", "none"]);
    // One thread for all emulated CPUs: whenever the kernel patches its code, all CPUs must stop. With a thread for
    // each CPU on a busy host, this took up to 60 s of a boot; with one thread it takes 2 s.
    command.args(["-accel", "tcg,thread=single"]);
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    command.arg("-dtb").arg(image.device_tree()).args(["-append", kernel.trim_end()]);
    // The driver of an SD card cannot flush a cache, so QEMU must not have one. With QEMU's default, the tables of
    // the overlay are lost when QEMU is killed, and ext4 misses blocks that the card had acknowledged. The host's
    // page cache outlives QEMU; no-flush avoids waiting for the host's disk.
    let file = overlay.path().display().to_string().replace(',', ",,");
    let card = format!("if=sd,format=qcow2,cache.writeback=off,cache.no-flush=on,file={file}");
    command.args(["-drive", &card]);
    for _ in 0..board.serial {
        command.args(["-serial", "null"]);
    }
    command.args(["-serial", "stdio"]);
    command.args(["-netdev", &format!("user,id={NETWORK},hostfwd=tcp:127.0.0.1:{port}-:22")]);
    if options.has_adapter {
        command.args(["-device", &format!("{ADAPTER},netdev={NETWORK}")]);
    }
    command.args(&options.arguments);
    command
}

/// A free port of the loopback interface. If another program takes it before QEMU does, QEMU reports that and ends.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("searching a free port of 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
