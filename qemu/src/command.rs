//! QEMU's command line.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::disk::Overlay;
use crate::image::Image;
use crate::saved;

/// How a machine begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// As a Pi that gets power.
    PowerOn,
    /// Likewise, but without a network adapter: to be saved, since QEMU saves no machine that has one.
    Unplugged,
    /// Where it was saved; it stands still until [`saved::wake`].
    Resume,
}

/// Where QEMU takes commands: sockets in a directory with a short path.
pub(crate) struct Sockets {
    /// QEMU's monitor, of its own protocol, QMP.
    pub(crate) monitor: PathBuf,
    /// The debugger's, of GDB's remote protocol.
    pub(crate) debugger: PathBuf,
}

impl Sockets {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self { monitor: directory.join("monitor"), debugger: directory.join("debugger") }
    }
}

/// The command that runs the machine, its ssh at `port` of this host and its clock at `now`, in seconds since 1970.
pub(crate) fn qemu(
    image: &Image,
    overlay: &Overlay,
    port: u16,
    start: Start,
    sockets: &Sockets,
    now: u64,
) -> Command {
    let board = image.board();
    // One CPU is brought up: with two host cores more of them only take turns, and a second one on raspi2b
    // hangs Debian's kernel now and then.
    let unplugged = if start == Start::Unplugged { saved::UNPLUGGED_WORD } else { "" };
    let kernel = format!("console={},115200 nr_cpus=1 pi.clock={now} {unplugged}", board.console);
    let mut command = Command::new(board.qemu);
    command.args(["-M", board.machine, "-display", "none", "-no-reboot", "-monitor", "none"]);
    // Single: every code patch of the kernel must stop all emulated CPUs, which as threads of a busy host took
    // up to 60 s of a boot; taking turns in one thread it takes 2 s.
    command.args(["-accel", "tcg,thread=single"]);
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    command.arg("-dtb").arg(image.device_tree()).args(["-append", kernel.trim_end()]);
    // An SD card has no cache that its driver could flush, so QEMU must not have one either: with its default,
    // the overlay's tables die with QEMU, and ext4 finds blocks gone that the card had acknowledged. The host's
    // own page cache survives QEMU's death: no-flush spares waiting for its disk.
    let file = overlay.path().display().to_string().replace(',', ",,");
    let card = format!("if=sd,format=qcow2,cache.writeback=off,cache.no-flush=on,file={file}");
    command.args(["-drive", &card]);
    for _ in 0..board.serial {
        command.args(["-serial", "null"]);
    }
    command.args(["-serial", "stdio"]);
    command.args(["-netdev", &format!("user,id={NETWORK},hostfwd=tcp:127.0.0.1:{port}-:22")]);
    let socket = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
    match start {
        Start::PowerOn => command.args(["-device", &format!("{ADAPTER},netdev={NETWORK}")]),
        Start::Unplugged => command.args(["-qmp", &socket(&sockets.monitor)]),
        Start::Resume => command
            .args(["-qmp", &socket(&sockets.monitor), "-gdb", &socket(&sockets.debugger)])
            .args(["-S", "-loadvm", saved::TAG]),
    };
    command
}

/// QEMU's name of the network adapter.
pub(crate) const ADAPTER: &str = "usb-net";
/// What our command line calls the network behind it.
pub(crate) const NETWORK: &str = "net";

/// A port that nobody listens on. Another program might take it before QEMU does: QEMU then says so and ends.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port on the loopback")?;
    Ok(listener.local_addr()?.port())
}
