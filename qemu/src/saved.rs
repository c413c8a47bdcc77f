//! A running machine as a file: booted and prepared once, gone on with as often as one likes.
//!
//! QEMU saves the whole machine into the overlay, next to the card. Three things about these boards stand in the way:
//!
//! - A machine with its network adapter is not saved. It is booted without one, and gets it when it goes on.
//! - On `raspi3b`, one that is idle when it is saved does not wake again: it waits for the adapter busily.
//! - The card hangs on one of two controllers, which QEMU forgets: see [`wake`].

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use host::status::Step;
use serde_json::json;

use crate::command::{ADAPTER, NETWORK, Sockets, Start};
use crate::disk::Overlay;
use crate::image::Image;
use crate::limit;
use crate::machine::Machine;
use crate::monitor::{Debugger, Monitor};
use crate::ssh::quote;

/// What the state is called in the overlay.
pub(crate) const TAG: &str = "saved";
/// The word of the kernel's command line that tells the machine to wait for its adapter.
pub(crate) const UNPLUGGED_WORD: &str = "pi.unplugged";
/// What the machine says when it can be saved.
const UNPLUGGED: &str = "pi: unplugged";
/// What the machine says when it has gone on and has its network.
pub(crate) const PLUGGED: &str = "pi: plugged";
/// The unit that waits for the adapter. It does nothing in a machine that boots with one.
const UNIT: &str = include_str!("../guest/plug.service");

/// The registers GPFSEL4 and GPFSEL5 of the BCM2836 and BCM2837, in which the pins 48 to 53 choose the card's controller
/// (BCM2835 ARM Peripherals, 6.1).
const CARD_PINS: u64 = 0x3f20_0010;
/// How many bytes the two have.
const CARD_PINS_SIZE: usize = 8;

/// A machine that was saved.
pub struct Saved {
    overlay: Overlay,
}

impl Saved {
    /// Shuts `machine`, which has run with `overlay`, down, boots it again without a network, saves it there, and goes on
    /// with it once, to see that it can.
    ///
    /// # Errors
    /// When the machine does not shut down or come up, QEMU cannot save it, as on a full disk, or it does not go on.
    pub fn of(
        step: &Step,
        machine: Machine,
        image: &Image,
        overlay: Overlay,
        directory: &Path,
    ) -> Result<Self> {
        let units = "/etc/systemd/system";
        machine.check(
            &format!(
                "printf %s {} >{units}/plug.service && mkdir -p {units}/pi.target.wants \
                 && ln -s ../plug.service {units}/pi.target.wants",
                quote(UNIT)
            ),
            limit::CONNECT,
        )?;
        machine.power_off(step)?;
        let machine = Machine::start(image, &overlay, directory, Start::Unplugged)?;
        machine
            .wait(step, UNPLUGGED, limit::BOOT)
            .context("the machine did not come up without a network")?;
        Monitor::connect(&machine.sockets().monitor)?.typed(&format!("savevm {TAG}"))?;
        machine.power_cut()?;
        let saved = Self { overlay };
        let tried = saved.overlay(&directory.join("tried.qcow2"))?;
        Machine::resume(step, image, &tried, directory)?.power_cut()?;
        Ok(saved)
    }

    /// The state and its card as the file `path`, for [`Machine::resume`].
    ///
    /// # Errors
    /// When the disk is full.
    pub fn overlay(&self, path: &Path) -> Result<Overlay> {
        fs::copy(self.overlay.path(), path)
            .with_context(|| format!("copying {} to {}", self.overlay.path().display(), path.display()))?;
        Ok(Overlay::at(path))
    }
}

/// Puts a machine that was loaded together, and lets it go on.
///
/// The registers come back with what they were, but not what writing them once did: the card is on the controller that a
/// reset gives it to. Writing something else and then what they were does it again.
pub(crate) fn wake(sockets: &Sockets) -> Result<()> {
    let mut debugger = Debugger::connect(&sockets.debugger)?;
    let pins = debugger.read(CARD_PINS, CARD_PINS_SIZE)?;
    debugger.write(CARD_PINS, &"00".repeat(CARD_PINS_SIZE))?;
    debugger.write(CARD_PINS, &pins)?;
    debugger.detach()?;
    let adapter = json!({ "driver": ADAPTER, "netdev": NETWORK });
    Monitor::connect(&sockets.monitor)?.command("device_add", adapter).map(drop)
}
