//! The power of a device, and its console, for power losses at chosen moments.

use anyhow::{Context, Result};
use qemu::{Limit, Machine};

use super::Device;
use super::client::CLIENT;

/// The number of lines of the console that are searched.
const CONSOLE: usize = 500;

/// The exit status of the client's `commit` and `rollback` when no update is pending.
const NOTHING_PENDING: i32 = 2;

/// From the request to the kernel's report that everything is mounted read-only.
const READ_ONLY: Limit = Limit::new("READ_ONLY", 600);

impl Device<'_> {
    /// Starts to boot the device, and returns immediately.
    pub fn start_boot(&mut self) -> Result<()> {
        self.step.detail("starting to boot");
        self.machine = Some(Machine::power_on(&self.setup.image, &self.overlay, self.directory)?);
        Ok(())
    }

    /// Waits until the device has shut down to reboot.
    pub fn shuts_down_to_reboot(&mut self) -> Result<()> {
        self.step.detail("waiting for a reboot");
        self.machine.take().context("the device has no power")?.reboots(self.step)?;
        self.record_console();
        Ok(())
    }

    /// Waits until a line with `text` is on the console.
    pub fn wait_for_line(&self, text: &str, limit: Limit) -> Result<()> {
        self.machine()?.wait_for_line(self.step, text, limit)
    }

    /// The last lines of the console of this boot.
    pub fn console(&self) -> Result<String> {
        Ok(self.machine()?.console_tail(CONSOLE))
    }

    /// Ends the device with its file systems mounted read-only, and fails if they are damaged.
    pub fn check_file_systems(&mut self) -> Result<()> {
        self.ok("sync && echo u >/proc/sysrq-trigger")?;
        self.wait_for_line("Emergency Remount complete", READ_ONLY)?;
        self.power_loss()?;
        self.step.detail("checking the file systems");
        self.overlay.check_file_systems(self.step)
    }

    /// Ends an interrupted update with the client's `commit` or `rollback`, and returns its exit status. There may be
    /// nothing to end.
    pub fn client_settles(&self, arguments: &str) -> Result<i32> {
        let command = self.generation().command_line(arguments);
        Ok(self.run(&command, CLIENT)?.status)
    }

    /// Whether an update waits for a commit, which it then gets.
    pub fn has_pending_update(&self) -> Result<bool> {
        let command = self.generation().command_line("commit");
        let output = self.run(&command, super::QUERY)?;
        Ok(output.status != NOTHING_PENDING)
    }
}
