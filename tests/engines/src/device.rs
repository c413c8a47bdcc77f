//! A device: a copy of the Debian system with real systemd as process 1 of its own namespaces.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::Artifact;
use host::status::Step;
use test_image::{Archive, Image, Mode};
use xshell::{Shell, cmd};

use crate::release::Release;
use crate::{Setup, Suite};

/// Puts the device together and boots it.
const START: &str = include_str!("../guest/start.sh");
const BOOT: &str = include_str!("../guest/boot.sh");

/// The longest that a command in the device may take, as coreutils' timeout wants it.
const LIMIT: &str = "300";

/// How long something is waited for that comes by itself.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where the client's data are, and the module's.
pub const STATE: &str = "/data/mender/update-modules/container";

/// The module's settings in scenarios.
pub const SETTINGS: &str = "/etc/mender-modules/container.toml";

/// One device.
pub struct Device<'a> {
    sh: Shell,
    suite: &'a Suite,
    /// What runs containers on it.
    pub setup: Setup,
    directory: PathBuf,
    name: String,
    step: &'a Step,
    process: Option<Child>,
}

/// What a command has said, and how it ended.
pub struct Said {
    /// The exit status; 128 and the signal's number for a command that was killed.
    pub status: i32,
    /// Standard output, then standard error.
    pub text: String,
}

impl<'a> Device<'a> {
    /// A device with the module installed, in `directory`, that has never been booted.
    pub fn new(suite: &'a Suite, setup: Setup, directory: &Path, name: &str, step: &'a Step) -> Result<Self> {
        let device = Self {
            sh: Shell::new()?,
            suite,
            setup,
            directory: directory.to_owned(),
            name: name.to_owned(),
            step,
            process: None,
        };
        device.prepare().context("preparing the device")?;
        Ok(device)
    }

    fn prepare(&self) -> Result<()> {
        let (sh, upper) = (&self.sh, self.directory.join("upper"));
        sh.write_file(self.directory.join("guest/start.sh"), START)?;
        sh.write_file(self.directory.join("guest/boot.sh"), BOOT)?;
        let data = self.directory.join("data.img");
        fs::File::create(&data)?.set_len(4 << 30)?;
        cmd!(sh, "/usr/sbin/mke2fs -q -F -t ext4 {data}").quiet().run()?;
        let module = upper.join("usr/share/mender/modules/v3/container");
        sh.create_dir(module.parent().unwrap_or(&upper))?;
        fs::copy(&self.suite.module, &module).context("copying the module")?;
        let unit = "mender-update-module-container-recover.service";
        sh.write_file(
            upper.join("usr/lib/systemd/system").join(unit),
            include_str!("../../../debian/container/mender-update-module-container-recover.service"),
        )?;
        let etc = upper.join("etc");
        let wants = |target: &str, unit: &str| -> Result<()> {
            let directory = etc.join("systemd/system").join(target);
            sh.create_dir(&directory)?;
            let link = directory.join(unit);
            Ok(std::os::unix::fs::symlink(Path::new("/usr/lib/systemd/system").join(unit), link)?)
        };
        wants("sysinit.target.wants", unit)?;
        for unit in self.setup.units() {
            wants("multi-user.target.wants", unit)?;
        }
        for (path, content) in self.setup.files() {
            sh.write_file(etc.join(path), content)?;
        }
        let engine = self.setup.engine();
        let settings = format!("engine = \"{engine}\"\nstable_seconds = 1\nhealth_seconds = 20\n");
        sh.write_file(upper.join(SETTINGS.trim_start_matches('/')), settings)?;
        Ok(())
    }

    /// Boots the device, and returns when systemd has started everything.
    ///
    /// # Errors
    /// When it does not come up: with the last lines of its console.
    pub fn power_on(&mut self) -> Result<()> {
        self.step.detail("booting");
        let console = fs::File::create(self.directory.join("console"))?;
        let mut command = self.start();
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        self.process = Some(command.spawn().context("starting unshare")?);
        let ready = "systemctl is-system-running --wait 2> /dev/null | grep -q -x -e running -e degraded";
        let begun = Instant::now();
        while !self.run(ready).is_ok_and(|said| said.status == 0) {
            let console = || fs::read_to_string(self.directory.join("console")).unwrap_or_default();
            ensure!(begun.elapsed() < PATIENCE, "the device did not boot:\n{}", console());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn start(&self) -> Command {
        let mut command = Command::new("unshare");
        let guest = self.directory.join("guest");
        command.args(["--mount", "sh"]).arg(guest.join("start.sh"));
        command.args([&self.suite.system, &self.directory]).arg(&self.name).arg(guest);
        command
    }

    /// Kills everything in the device at once. What it had written stays written: see the emulated Pi for what does not.
    ///
    /// # Errors
    /// When it is not on.
    pub fn power_cut(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the device is not on")?;
        // unshare --kill-child kills process 1 when it ends itself, and the kernel the rest.
        process.kill().and_then(|()| process.wait()).context("killing the device")?;
        let begun = Instant::now();
        // The control groups can be removed when the last process has gone.
        while !self.start().arg("clean").stderr(Stdio::null()).status()?.success() {
            ensure!(begun.elapsed() < PATIENCE, "the device's processes did not end");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Process 1, as the host sees it.
    fn process_1(&self) -> Result<String> {
        let process = self.process.as_ref().context("the device is not on")?;
        let path = format!("/proc/{0}/task/{0}/children", process.id());
        let children = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let child = children.split_whitespace().next().context("the device has no process yet")?;
        // Before that it is a program of the host's that puts the device together.
        let name = fs::read_to_string(format!("/proc/{child}/comm"))?;
        ensure!(name.trim() == "systemd", "the device is not put together yet");
        Ok(child.to_owned())
    }

    fn command(&self, command: &str) -> Result<Command> {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.process_1()?, "--all", "env", "-i", "HOME=/root"]);
        nsenter.arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin").args(["timeout", "--kill-after=5", LIMIT]);
        nsenter.args(["sh", "-c", command]).stdin(Stdio::null());
        Ok(nsenter)
    }

    /// Runs `command` in the device.
    ///
    /// # Errors
    /// When it cannot be started; a command that fails is none.
    pub fn run(&self, command: &str) -> Result<Said> {
        self.step.detail(command.lines().next().unwrap_or_default());
        let output = self.command(command)?.output().context("starting nsenter")?;
        let status = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = [output.stdout, output.stderr].concat();
        Ok(Said { status, text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// Runs `command`, which has to succeed, and returns what it says.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.ends(command, 0)
    }

    /// Runs `command`, which has to exit with `status`, and returns what it says.
    ///
    /// # Errors
    /// When it does not.
    pub fn ends(&self, command: &str, status: i32) -> Result<String> {
        let said = self.run(command)?;
        ensure!(
            said.status == status,
            "in the device, {command:?} exited with {} instead of {status}:\n{}",
            said.status,
            said.text
        );
        Ok(said.text)
    }

    /// Waits until `command` succeeds.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`]: what it said last, and what systemd's journal says.
    pub fn wait(&self, command: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let said = self.run(command)?;
            if said.status == 0 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let journal = self.run("journalctl --no-pager -n 40")?.text;
                bail!("in the device, {command:?} does not come to succeed:\n{}\n{journal}", said.text);
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Writes a file in the device.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let mut command = self.command(&format!("mkdir -p \"$(dirname '{path}')\" && cat > '{path}'"))?;
        let mut child = command.stdin(Stdio::piped()).spawn().context("starting nsenter")?;
        child.stdin.take().context("the command has no standard input")?.write_all(content)?;
        ensure!(child.wait()?.success(), "writing {path} in the device failed");
        Ok(())
    }

    /// Reads a file of the device.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.command(&format!("cat '{path}'"))?.output().context("starting nsenter")?;
        ensure!(output.status.success(), "reading {path} in the device failed");
        Ok(output.stdout)
    }

    /// An image for this device that is called `reference`.
    pub fn image(&self, reference: &str, version: &str, mode: Mode) -> Archive {
        self.image_of(reference, version, mode).archive()
    }

    /// As [`image`](Self::image), not yet packed.
    pub fn image_of<'b>(&'b self, reference: &'b str, version: &'b str, mode: Mode) -> Image<'b> {
        Image { reference, version, mode, architecture: "amd64", executable: &self.suite.server }
    }

    /// Packs `release` with mender-artifact, copies it in, and returns its path there.
    ///
    /// # Errors
    /// When mender-artifact fails.
    pub fn artifact(&self, release: &Release) -> Result<String> {
        let files = release.files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        let meta_data = Some(release.meta_data.to_string());
        let name = release.name.as_str();
        let artifact = Artifact { module: "container", name, device_type: "test-device", files, meta_data };
        let path = artifact.write(&self.sh, &self.directory)?;
        let inside = format!("/root/{name}.mender");
        self.write(&inside, &fs::read(&path)?)?;
        Ok(inside)
    }

    /// Calls the real client, which has to exit with `status`, and returns what it says.
    ///
    /// # Errors
    /// When it exits with another.
    pub fn client(&self, words: &str, status: i32) -> Result<String> {
        self.ends(&format!("mender {words}"), status)
    }

    /// Starts the real client, and returns when `moment`, a command in the device, succeeds.
    ///
    /// # Errors
    /// When the client ends before that.
    pub fn client_until(&self, words: &str, moment: &str) -> Result<Child> {
        let mut client = self.command(&format!("exec mender {words} > /run/client 2>&1"))?.spawn()?;
        let begun = Instant::now();
        while self.run(moment)?.status != 0 {
            let ended = client.try_wait()?.is_some() || begun.elapsed() > PATIENCE;
            ensure!(!ended, "the client ended before the moment came:\n{}", self.ok("cat /run/client")?);
        }
        Ok(client)
    }

    /// Installs `release` and commits it.
    ///
    /// # Errors
    /// When the client fails.
    pub fn update(&self, release: &Release) -> Result<String> {
        let artifact = self.artifact(release)?;
        let said = self.client(&format!("install {artifact}"), 0)?;
        self.client("commit", 0)?;
        Ok(said)
    }

    /// Installs `release`, which has to fail with each of `words` in the log.
    ///
    /// # Errors
    /// When it does not.
    pub fn refuses(&self, release: &Release, words: &[&str]) -> Result<String> {
        let artifact = self.artifact(release)?;
        let said = self.run(&format!("mender install {artifact}"))?;
        ensure!(said.status == 1, "the update was not refused ({}):\n{}", said.status, said.text);
        for word in words {
            ensure!(said.text.contains(word), "the log does not say {word:?}:\n{}", said.text);
        }
        Ok(said.text)
    }

    /// Has to get `version` for an answer at `port`, now or soon.
    ///
    /// # Errors
    /// When it gets another, or none.
    pub fn answers(&self, port: u16, version: &str) -> Result<()> {
        self.says(port, "", version)
            .with_context(|| format!("version {version} does not answer at port {port}"))
    }

    /// Has to get `content` for an answer at `port` when it asks for `path`, now or soon.
    ///
    /// # Errors
    /// When it gets another, or none.
    pub fn says(&self, port: u16, path: &str, content: &str) -> Result<()> {
        let ask = format!("busybox wget -q -T 2 -O - http://127.0.0.1:{port}/{path} 2> /dev/null");
        self.wait(&format!("said=$({ask}); echo \"$said\"; [ \"$said\" = '{content}' ]"))
    }

    /// Loads `archive` into the engine by hand, as somebody else.
    ///
    /// # Errors
    /// When the engine does not take it.
    pub fn load(&self, archive: &Archive) -> Result<()> {
        self.write("/root/theirs.tar", &archive.content)?;
        self.ok(&format!("{} load --quiet < /root/theirs.tar", self.setup.engine())).map(drop)
    }

    /// Runs the engine with `words`, which has to succeed, and returns what it says.
    ///
    /// # Errors
    /// When it fails.
    pub fn engine(&self, words: &str) -> Result<String> {
        self.ok(&format!("{} {words}", self.setup.engine()))
    }

    /// Every image's ID with one of its names, a line each, sorted.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn images(&self) -> Result<Vec<String>> {
        let engine = self.setup.engine();
        let said = self.ok(&format!(
            "{engine} images --no-trunc --format '{{{{.ID}}}} {{{{.Repository}}}}:{{{{.Tag}}}}'"
        ))?;
        let mut images: Vec<_> = said.lines().map(str::to_owned).collect();
        images.sort();
        Ok(images)
    }

    /// Has to find nothing left of an update, and exactly the images `before`.
    ///
    /// # Errors
    /// When it finds something else.
    pub fn is_clean(&self, before: &[String]) -> Result<()> {
        self.ok(&format!("test ! -e {STATE}/journal.json && test ! -e {STATE}/staging"))
            .context("something is left of the update")?;
        let now = self.images()?;
        ensure!(now == before, "the images were {before:#?} and are {now:#?}");
        Ok(())
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        if self.process.is_some() {
            // Nothing is left to tell it to: the scenario has ended.
            let _ = self.power_cut();
        }
    }
}
