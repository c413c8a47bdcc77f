//! A snapshot of a booted machine: it is made once, and many scenarios start from it without a boot.
//!
//! # Why
//! Most scenarios start with the same device: booted, with the project's packages installed. On an idle host, the
//! scenario `install-rollback` takes 30 s on `raspi3b` and 46 s on `raspi2b` with a boot and the installation of the
//! package. With a snapshot it takes 11 s and about 20 s: it resumes in 8 s, and the scenario's programs are in the
//! page cache. Creating the snapshot takes 91 s and 130 s. `cargo xtask test` runs 24 and 5 such scenarios: on 2 cores
//! the snapshots save about three minutes of it, and more on a busy host.
//!
//! # What
//! `savevm` of QEMU's monitor writes the whole machine (CPU, memory, devices) into the qcow2 overlay, next to the
//! content of the card. Each scenario copies this overlay and resumes the machine with `-loadvm`. A boot after a
//! power loss is always a real boot of the same overlay.
//!
//! # How
//! Three properties of QEMU's Raspberry Pi machines need a workaround:
//!
//! 1. QEMU refuses to save a machine with a USB network adapter. [`Snapshot::create`] therefore boots the machine
//!    without one. [`Snapshot::resume`] plugs the adapter in with `device_add`, and [`UNIT`] configures the network.
//! 2. On `raspi3b`, a CPU that is idle when the machine is saved does not get timer interrupts after the resume.
//!    [`UNIT`] therefore keeps the CPU busy until the adapter is there.
//! 3. The SD card is connected to one of two controllers. A write to a GPIO register selects the controller, but
//!    loading a snapshot restores the register without the effect of the write. [`select_card_controller`] writes the
//!    register again through QEMU's debugger interface, while the machine is stopped.
//!
//! # Limits
//! QEMU does not document snapshots for these machines as supported. [`Snapshot::create`] therefore resumes the new
//! snapshot once and fails if that fails. A caller boots when creating or resuming a snapshot fails. The snapshot
//! works with the QEMU executable that made it; it is not cached. The clock stops while the machine is saved;
//! [`Snapshot::resume`] sets it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use host::script::quoted;
use host::status::Step;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{ADAPTER, NETWORK, Options};
use crate::image::Image;
use crate::limit::{self, Limit};
use crate::machine::Machine;
use crate::overlay::Overlay;

/// QEMU's name of the snapshot in the overlay.
const TAG: &str = "saved";

/// The kernel parameter that activates [`UNIT`].
const KERNEL_PARAMETER: &str = "pi.unplugged";
/// The line on the console when the machine can be saved.
const UNPLUGGED: &str = "pi: unplugged";
/// The line on the console when a resumed machine has its network.
const PLUGGED: &str = "pi: plugged";

/// The unit in the guest that waits for the network adapter. Without the kernel parameter it does nothing.
///
/// `ExecStartPre` reads programs into the page cache that scenarios run. The loop in `ExecStart` must keep the CPU busy
/// and must not start a program. A process that writes to the console waits for it, so the report comes from another
/// process.
const UNIT: &str = r#"[Unit]
Description=Wait for the network adapter of a resumed machine
ConditionKernelCommandLine=pi.unplugged
After=ready.service

[Service]
TimeoutStartSec=infinity
ExecStartPre=-/bin/sh -c 'mender --version; mender-update --version; strace -V; getfattr --version; \
    dropbear -V; podman images'
ExecStart=/bin/sh -c '{ sleep 1; echo "pi: unplugged" >/dev/console; } & \
    until [ -d /sys/class/net/usb0 ]; do :; done; \
    busybox ifconfig usb0 10.0.2.15 netmask 255.255.255.0 up && busybox route add default gw 10.0.2.2; \
    echo "pi: plugged" >/dev/console'
"#;

/// The address of the registers GPFSEL4 and GPFSEL5 of the BCM2836 and BCM2837, whose bits for the pins 48 to 53
/// select the controller of the card (BCM2835 ARM Peripherals, section 6.1).
const CARD_PINS: u64 = 0x3f20_0010;
/// The size of the two registers in bytes.
const CARD_PINS_SIZE: usize = 8;

/// From the start of a resume to [`PLUGGED`]: measured 3 to 5 s.
const RESUME: Limit = Limit::new("RESUME", 300);
/// An answer of QEMU: measured 0.6 s for loading a machine, and 2.6 s for saving one on a busy host.
const MONITOR: Limit = Limit::new("MONITOR", 300);
/// The pause between two attempts to connect to a QEMU that has just been started.
const PAUSE: Duration = Duration::from_millis(20);

/// A saved machine: its state and the content of its card.
pub struct Snapshot {
    overlay: Overlay,
}

impl Snapshot {
    /// Shuts down `machine`, which runs on `overlay`, boots it without a network adapter, saves it in the overlay, and
    /// resumes it once as a check.
    pub fn create(step: &Step, machine: Machine, image: &Image, overlay: Overlay, directory: &Path) -> Result<Self> {
        let units = "/etc/systemd/system";
        machine.check(
            &format!(
                "printf %s {} >{units}/plug.service && mkdir -p {units}/pi.target.wants \
                 && ln -s ../plug.service {units}/pi.target.wants",
                quoted(UNIT)
            ),
            limit::CONNECT,
        )?;
        machine.power_off(step)?;
        let control = ControlSockets::new()?;
        let options =
            Options { has_adapter: false, kernel_parameters: KERNEL_PARAMETER, arguments: control.monitor_arguments() };
        let machine = Machine::start(image, &overlay, directory, &options)?;
        machine.wait(step, UNPLUGGED, limit::BOOT).context("booting without a network adapter")?;
        Monitor::connect(&control.monitor())?.human_command(&format!("savevm {TAG}"))?;
        machine.power_loss()?;
        let snapshot = Self { overlay };
        let copy = snapshot.copy(&directory.join("resumed.qcow2"))?;
        Self::resume(step, image, &copy, directory)?.power_loss()?;
        Ok(snapshot)
    }

    /// Copies the snapshot and its card to the file `path`, for [`Snapshot::resume`].
    pub fn copy(&self, path: &Path) -> Result<Overlay> {
        fs::copy(self.overlay.path(), path)
            .with_context(|| format!("copying {} to {} failed", self.overlay.path().display(), path.display()))?;
        Ok(Overlay::at(path))
    }

    /// Resumes the machine in `overlay`, which [`Snapshot::copy`] made. Returns when commands can be run, after 8 s on
    /// either board. For `directory` see [`Machine::boot`].
    pub fn resume(step: &Step, image: &Image, overlay: &Overlay, directory: &Path) -> Result<Machine> {
        let control = ControlSockets::new()?;
        let mut arguments = [control.monitor_arguments(), control.debugger_arguments()].concat();
        // -S: the CPU does not run before the debugger detaches.
        arguments.extend(["-S", "-loadvm", TAG].map(OsString::from));
        let options = Options { has_adapter: false, kernel_parameters: "", arguments };
        let machine = Machine::start(image, overlay, directory, &options)?;
        plug_in(&control).map_err(|error| machine.explain(error))?;
        machine.wait(step, PLUGGED, RESUME).context("resuming the machine")?;
        machine.connect()?;
        machine.set_clock()?;
        Ok(machine)
    }
}

/// Starts the CPU of a machine that was loaded, and plugs in its network adapter.
fn plug_in(control: &ControlSockets) -> Result<()> {
    let mut debugger = Debugger::connect(&control.debugger())?;
    select_card_controller(&mut debugger)?;
    debugger.detach()?;
    let adapter = json!({ "driver": ADAPTER, "netdev": NETWORK });
    Monitor::connect(&control.monitor())?.command("device_add", adapter).map(drop)
}

/// Connects the card to the controller that it had when the machine was saved: writes another value to the registers,
/// then the restored value. Only a write that changes the value has an effect.
fn select_card_controller(debugger: &mut Debugger) -> Result<()> {
    let pins = debugger.read(CARD_PINS, CARD_PINS_SIZE)?;
    debugger.write(CARD_PINS, &"00".repeat(CARD_PINS_SIZE))?;
    debugger.write(CARD_PINS, &pins)
}

/// The sockets on which QEMU takes commands. The path of a socket is limited to about 100 bytes, hence `/tmp`.
struct ControlSockets {
    directory: TempDir,
}

impl ControlSockets {
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pi-").tempdir_in("/tmp");
        Ok(Self { directory: directory.context("creating a directory in /tmp failed")? })
    }

    fn monitor(&self) -> PathBuf {
        self.directory.path().join("monitor")
    }

    fn debugger(&self) -> PathBuf {
        self.directory.path().join("debugger")
    }

    fn monitor_arguments(&self) -> Vec<OsString> {
        vec!["-qmp".into(), listening(&self.monitor())]
    }

    fn debugger_arguments(&self) -> Vec<OsString> {
        vec!["-gdb".into(), listening(&self.debugger())]
    }
}

/// QEMU's notation for a socket on which it listens.
fn listening(path: &Path) -> OsString {
    format!("unix:{},server=on,wait=off", path.display()).into()
}

/// A connection to QEMU's monitor. The protocol is in QEMU's docs/interop/qmp-spec.
struct Monitor {
    stream: BufReader<Connection>,
}

impl Monitor {
    fn connect(path: &Path) -> Result<Self> {
        let mut monitor = Self { stream: BufReader::new(connect(path)?) };
        monitor.receive().context("reading the greeting of QEMU's monitor failed")?;
        monitor.command("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Runs `command` and returns its result.
    fn command(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream
            .get_mut()
            .stream
            .write_all(line.as_bytes())
            .with_context(|| format!("sending {command} to QEMU's monitor"))?;
        loop {
            let mut answer =
                self.receive().with_context(|| format!("reading the answer of QEMU's monitor to {command} failed"))?;
            if let Some(error) = answer.get("error") {
                bail!("command of QEMU's monitor failed: {command}: {}", error["desc"]);
            }
            // Other messages are events.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Runs `line` as a command of the human monitor, for commands that QMP does not have.
    fn human_command(&mut self, line: &str) -> Result<()> {
        let answer = self.command("human-monitor-command", json!({ "command-line": line }))?;
        // These commands print only errors.
        let error = answer.as_str().unwrap_or_default().trim();
        ensure!(error.is_empty(), "command of QEMU's monitor failed: {line}: {error}");
        Ok(())
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "QEMU closed the connection");
        Ok(serde_json::from_str(&line)?)
    }
}

/// A connection to QEMU's debugger interface, which reads and writes physical memory of a stopped machine, the
/// registers of devices among it. The protocol is in GDB's manual, "The GDB Remote Serial Protocol", and in QEMU's
/// docs/system/gdb.
struct Debugger {
    connection: Connection,
}

impl Debugger {
    fn connect(path: &Path) -> Result<Self> {
        let mut debugger = Self { connection: connect(path)? };
        debugger.command("Qqemu.PhyMemMode:1")?;
        Ok(debugger)
    }

    /// Reads `length` bytes at `address`, in hexadecimal.
    fn read(&mut self, address: u64, length: usize) -> Result<String> {
        let bytes = self.exchange(&format!("m{address:x},{length:x}"))?;
        ensure!(bytes.len() == 2 * length, "reading {length} bytes at {address:#x}: QEMU answered {bytes:?}");
        Ok(bytes)
    }

    /// Writes `bytes`, in hexadecimal, to `address`.
    fn write(&mut self, address: u64, bytes: &str) -> Result<()> {
        self.command(&format!("M{address:x},{:x}:{bytes}", bytes.len() / 2))
    }

    /// Lets the machine run.
    fn detach(mut self) -> Result<()> {
        self.command("D")
    }

    /// Sends `packet`, which must be answered with OK.
    fn command(&mut self, packet: &str) -> Result<()> {
        let answer = self.exchange(packet)?;
        ensure!(answer == "OK", "command of QEMU's debugger interface failed: {packet}: {answer:?}");
        Ok(())
    }

    /// Sends `packet` and returns the answer.
    fn exchange(&mut self, packet: &str) -> Result<String> {
        let context = || format!("sending {packet} to QEMU's debugger interface");
        self.connection.stream.write_all(framed(packet).as_bytes()).with_context(context)?;
        let mut received = Vec::new();
        while !(received.len() > 3 && received[received.len() - 3] == b'#') {
            let mut byte = [0];
            self.connection.read_exact(&mut byte).with_context(context)?;
            received.push(byte[0]);
        }
        self.connection.stream.write_all(b"+").with_context(context)?;
        let text = String::from_utf8_lossy(&received).into_owned();
        let (_, answer) = text.split_once('$').with_context(context)?;
        Ok(answer[..answer.len() - 3].to_owned())
    }
}

/// `packet` between `$` and `#`, followed by the sum of its bytes.
fn framed(packet: &str) -> String {
    let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
    format!("${packet}#{sum:02x}")
}

/// A connection to QEMU. A read waits for [`MONITOR`] at most.
struct Connection {
    stream: UnixStream,
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wait = MONITOR.start();
        let expired = || io::Error::new(ErrorKind::TimedOut, format!("{wait} expired"));
        self.stream.set_read_timeout(Some(wait.left().ok_or_else(expired)?))?;
        // WouldBlock is how Linux reports that the time is over.
        self.stream.read(buffer).map_err(|error| if error.kind() == ErrorKind::WouldBlock { expired() } else { error })
    }
}

/// Connects to the socket `path`, which QEMU creates when it starts.
fn connect(path: &Path) -> Result<Connection> {
    let wait = MONITOR.start();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(Connection { stream }),
            Err(error) if wait.left().is_none() => {
                bail!("connecting to QEMU failed: {}: {wait} expired: {error}", path.display());
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::with_deadline;

    #[test]
    fn a_packet_ends_with_the_sum_of_its_bytes() {
        assert_eq!(framed("D"), "$D#44");
        assert_eq!(framed("OK"), "$OK#9a", "as QEMU sends it");
    }

    #[test]
    fn an_answer_is_waited_for_until_the_deadline() {
        let (stream, _qemu) = UnixStream::pair().unwrap();
        let mut connection = Connection { stream };
        let mut read = || connection.read(&mut [0]).unwrap_err().to_string();
        for seconds in [0, 1] {
            let deadline = format!("deadline PAST ({seconds} s for all steps together) expired");
            assert_eq!(with_deadline(Limit::new("PAST", seconds), &mut read), deadline);
        }
    }

    #[test]
    fn the_unit_uses_the_same_parameter_and_lines() {
        assert!(UNIT.contains(&format!("ConditionKernelCommandLine={KERNEL_PARAMETER}\n")));
        assert!([UNPLUGGED, PLUGGED].iter().all(|line| UNIT.contains(&format!("echo \"{line}\""))));
    }
}
