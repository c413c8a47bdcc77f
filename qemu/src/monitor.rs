//! Commands to QEMU itself: its monitor, which speaks JSON, and its debugger's door, which reaches devices.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::limit::MONITOR;

/// Between two attempts to connect to a QEMU that has only just been started.
const PAUSE: Duration = Duration::from_millis(20);

/// QEMU's monitor. Source of the protocol: QEMU's docs/interop/qmp-spec.
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// The monitor behind the socket `path`.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let mut monitor = Self { stream: BufReader::new(connect(path)?) };
        monitor.receive().context("reading QEMU's greeting")?;
        monitor.command("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Runs `command` and returns its answer.
    ///
    /// # Errors
    /// What QEMU says against it.
    pub(crate) fn command(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .with_context(|| format!("sending {command} to QEMU"))?;
        loop {
            let mut answer = self.receive().with_context(|| format!("reading QEMU's answer to {command}"))?;
            ensure!(answer.get("error").is_none(), "QEMU refuses {command}: {}", answer["error"]["desc"]);
            // What else comes are events.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Runs `line` as if a person had typed it: for what has no command of the protocol's own.
    ///
    /// # Errors
    /// What QEMU answers: these commands say nothing when they succeed.
    pub(crate) fn typed(&mut self, line: &str) -> Result<()> {
        let answer = self.command("human-monitor-command", json!({ "command-line": line }))?;
        let said = answer.as_str().unwrap_or_default().trim();
        ensure!(said.is_empty(), "QEMU, to {line}: {said}");
        Ok(())
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "QEMU has closed the connection");
        Ok(serde_json::from_str(&line)?)
    }
}

/// The debugger's door of a machine that stands still, to physical memory and so to devices' registers.
///
/// Source of the protocol: "The GDB Remote Serial Protocol" in GDB's manual, and QEMU's docs/system/gdb.
pub(crate) struct Debugger {
    stream: UnixStream,
}

impl Debugger {
    /// The door behind the socket `path`.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let mut debugger = Self { stream: connect(path)? };
        debugger.asked("Qqemu.PhyMemMode:1")?;
        Ok(debugger)
    }

    /// The `length` bytes at `address`, in hexadecimal.
    pub(crate) fn read(&mut self, address: u64, length: usize) -> Result<String> {
        let bytes = self.exchange(&format!("m{address:x},{length:x}"))?;
        ensure!(bytes.len() == 2 * length, "QEMU does not read {length} bytes at {address:#x}: {bytes}");
        Ok(bytes)
    }

    /// Writes `bytes`, in hexadecimal, to `address`.
    pub(crate) fn write(&mut self, address: u64, bytes: &str) -> Result<()> {
        self.asked(&format!("M{address:x},{:x}:{bytes}", bytes.len() / 2))
    }

    /// Lets the machine go on.
    pub(crate) fn detach(mut self) -> Result<()> {
        self.asked("D")
    }

    fn asked(&mut self, packet: &str) -> Result<()> {
        let answer = self.exchange(packet)?;
        ensure!(answer == "OK", "QEMU's debugger, to {packet}: {answer:?}");
        Ok(())
    }

    /// Sends `packet` and returns the answer.
    fn exchange(&mut self, packet: &str) -> Result<String> {
        let context = || format!("sending {packet} to QEMU's debugger");
        self.stream.write_all(framed(packet).as_bytes()).with_context(context)?;
        let mut received = Vec::new();
        while !(received.len() > 3 && received[received.len() - 3] == b'#') {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).with_context(context)?;
            received.push(byte[0]);
        }
        self.stream.write_all(b"+").with_context(context)?;
        let text = String::from_utf8_lossy(&received).into_owned();
        let (_, answer) = text.split_once('$').with_context(context)?;
        Ok(answer[..answer.len() - 3].to_owned())
    }
}

/// `packet` as it is sent: between `$` and `#`, with the sum of its bytes.
fn framed(packet: &str) -> String {
    let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
    format!("${packet}#{sum:02x}")
}

/// Connects to the socket `path`, which QEMU makes when it starts.
fn connect(path: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + MONITOR.duration();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(MONITOR.duration())).context("setting a socket's limit")?;
                return Ok(stream);
            }
            Err(error) if Instant::now() > deadline => {
                bail!("QEMU does not answer at {}: {MONITOR} expired: {error}", path.display());
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_ends_with_the_sum_of_its_bytes() {
        assert_eq!(framed("D"), "$D#44");
        assert_eq!(framed("OK"), "$OK#9a", "as QEMU sends it");
    }
}
