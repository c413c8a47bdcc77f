//! A device: a copy of the Debian system, with real systemd as process 1 of new namespaces.

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

/// The scripts that assemble and boot the device.
const START: &str = include_str!("../guest/start.sh");
const BOOT: &str = include_str!("../guest/boot.sh");

/// The time limit for a command in the device, and for a condition that becomes true by itself. Longer than
/// [`HEALTH_PASSES`], because an install contains a health check. A boot takes two seconds on an idle host.
const LIMIT: Duration = Duration::from_secs(600);

/// The limit of a health check that has to pass, in seconds: many times what the start of a container takes.
const HEALTH_PASSES: u64 = 300;

/// The limit of a health check that has to fail, in seconds: it may take all of it.
const HEALTH_FAILS: u64 = 20;

/// The module's state directory, in the data of the client.
pub const STATE: &str = "/data/mender/update-modules/container";

/// The module's settings in scenarios.
pub const SETTINGS: &str = "/etc/mender-modules/container.toml";

/// One device.
pub struct Device<'a> {
    sh: Shell,
    suite: &'a Suite,
    /// The engine and compose provider.
    pub setup: Setup,
    directory: PathBuf,
    name: String,
    step: &'a Step,
    process: Option<Child>,
}

/// The output and exit status of a command.
pub struct Output {
    /// The exit status; 128 and the signal's number for a command that was killed.
    pub status: i32,
    /// Standard output, then standard error.
    pub text: String,
}

impl<'a> Device<'a> {
    /// A device in `directory`, with the module installed, not booted yet.
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
        fs::copy(&self.suite.module, &module).context("copying the module failed")?;
        let generator = upper.join("usr/bin/container-artifact-gen");
        sh.create_dir(upper.join("usr/bin"))?;
        fs::copy(&self.suite.generator, &generator).context("copying the generator failed")?;
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
        let settings = format!("engine = \"{engine}\"\nstable_seconds = 1\nhealth_seconds = {HEALTH_PASSES}\n");
        sh.write_file(upper.join(SETTINGS.trim_start_matches('/')), settings)?;
        Ok(())
    }

    /// Boots the device, and returns when systemd has started everything.
    ///
    /// # Errors
    /// When it does not boot in time: with the output of its console.
    pub fn power_on(&mut self) -> Result<()> {
        self.step.detail("booting");
        let console = fs::File::create(self.directory.join("console"))?;
        let mut command = self.start();
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        self.process = Some(command.spawn().context("starting setpriv failed: install util-linux")?);
        let ready = "systemctl is-system-running --wait 2> /dev/null | grep -q -x -e running -e degraded";
        let begun = Instant::now();
        while !self.run(ready).is_ok_and(|output| output.status == 0) {
            let console = || fs::read_to_string(self.directory.join("console")).unwrap_or_default();
            ensure!(begun.elapsed() < LIMIT, "the device did not boot:\n{}", console());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn start(&self) -> Command {
        // A device ends with this process, also after Ctrl-C: unshare ignores that, and systemd has its own session.
        let mut command = Command::new("setpriv");
        let guest = self.directory.join("guest");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh"]).arg(guest.join("start.sh"));
        command.args([&self.suite.system, &self.directory]).arg(&self.name).arg(guest);
        command
    }

    /// Simulates a power loss: kills everything in the device at once. Writes are not lost; only on the emulated Pi
    /// they are.
    ///
    /// # Errors
    /// When it is not on.
    pub fn lose_power(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the device is not on")?;
        // unshare --kill-child kills process 1 when it ends itself, and the kernel the rest.
        process.kill().and_then(|()| process.wait()).context("killing the device")?;
        let begun = Instant::now();
        // The control groups can be removed when the last process has ended.
        while !self.start().arg("clean").stderr(Stdio::null()).status()?.success() {
            ensure!(begun.elapsed() < LIMIT, "the device's processes did not end");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The host's number of the device's process 1.
    fn process_1(&self) -> Result<String> {
        let process = self.process.as_ref().context("the device is not on")?;
        let path = format!("/proc/{0}/task/{0}/children", process.id());
        let children = fs::read_to_string(&path).with_context(|| format!("reading {path} failed"))?;
        let child = children.split_whitespace().next().context("the device has no process yet")?;
        // Before that it is a program of the host that assembles the device.
        let name = fs::read_to_string(format!("/proc/{child}/comm"))?;
        ensure!(name.trim() == "systemd", "the device is not assembled yet");
        Ok(child.to_owned())
    }

    fn command(&self, command: &str) -> Result<Command> {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.process_1()?, "--all", "env", "-i", "HOME=/root"]);
        nsenter.arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
        nsenter.args(["timeout", "--kill-after=5", &LIMIT.as_secs().to_string()]);
        nsenter.args(["sh", "-c", command]).stdin(Stdio::null());
        Ok(nsenter)
    }

    /// Runs `command` in the device.
    ///
    /// # Errors
    /// When it cannot be started. A failed command is no error.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.step.detail(command.lines().next().unwrap_or_default());
        let output = self.command(command)?.output().context("starting nsenter failed")?;
        let status = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = [output.stdout, output.stderr].concat();
        Ok(Output { status, text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// Runs `command`, which has to succeed, and returns its output.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.exits_with(command, 0)
    }

    /// Runs `command`, which has to exit with `status`, and returns its output.
    ///
    /// # Errors
    /// When it exits with another status: with its output.
    pub fn exits_with(&self, command: &str, status: i32) -> Result<String> {
        let output = self.run(command)?;
        ensure!(
            output.status == status,
            "command failed in the device: {command:?}: exit status {} instead of {status}:\n{}",
            output.status,
            output.text
        );
        Ok(output.text)
    }

    /// Waits until `command` succeeds.
    ///
    /// # Errors
    /// When it does not within [`LIMIT`]: with its last output and systemd's journal.
    pub fn wait(&self, command: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let output = self.run(command)?;
            if output.status == 0 {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                let journal = self.run("journalctl --no-pager -n 40")?.text;
                bail!(
                    "command failed in the device for {} s: {command:?}:\n{}\n{journal}",
                    LIMIT.as_secs(),
                    output.text
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Writes a file in the device.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let mut command = self.command(&format!("mkdir -p \"$(dirname '{path}')\" && cat > '{path}'"))?;
        let mut child = command.stdin(Stdio::piped()).spawn().context("starting nsenter failed")?;
        child.stdin.take().context("the command has no standard input")?.write_all(content)?;
        ensure!(child.wait()?.success(), "writing {path} in the device failed");
        Ok(())
    }

    /// Reads a file of the device.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.command(&format!("cat '{path}'"))?.output().context("starting nsenter failed")?;
        ensure!(output.status.success(), "reading {path} in the device failed");
        Ok(output.stdout)
    }

    /// An image for this device with the name `reference`.
    pub fn image(&self, reference: &str, version: &str, mode: Mode) -> Archive {
        self.image_of(reference, version, mode).archive()
    }

    /// As [`image`](Self::image), not yet packed.
    pub fn image_of<'b>(&'b self, reference: &'b str, version: &'b str, mode: Mode) -> Image<'b> {
        Image { reference, version, mode, architecture: "amd64", executable: &self.suite.server }
    }

    /// Packs `release` with mender-artifact, copies it into the device, and returns its path there.
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

    /// Runs the real client, which has to exit with `status`, and returns its output.
    ///
    /// # Errors
    /// When it exits with another status: with its output.
    pub fn client(&self, arguments: &str, status: i32) -> Result<String> {
        self.exits_with(&format!("mender {arguments}"), status)
    }

    /// Starts the real client, and returns when the command `condition` succeeds in the device.
    ///
    /// # Errors
    /// When the client ends before that.
    pub fn client_until(&self, arguments: &str, condition: &str) -> Result<Child> {
        let mut client = self.command(&format!("exec mender {arguments} > /run/client 2>&1"))?.spawn()?;
        let begun = Instant::now();
        while self.run(condition)?.status != 0 {
            let ended = client.try_wait()?.is_some() || begun.elapsed() > LIMIT;
            ensure!(!ended, "the client ended before {condition:?} succeeded:\n{}", self.ok("cat /run/client")?);
        }
        Ok(client)
    }

    /// Installs `release` and commits it.
    ///
    /// # Errors
    /// When the client fails.
    pub fn update(&self, release: &Release) -> Result<String> {
        let artifact = self.artifact(release)?;
        let output = self.client(&format!("install {artifact}"), 0)?;
        self.client("commit", 0)?;
        Ok(output)
    }

    /// Installs `release`, which has to fail with each of `expected` in the log.
    ///
    /// # Errors
    /// When it does not: with the log.
    pub fn refuses(&self, release: &Release, expected: &[&str]) -> Result<String> {
        let artifact = self.artifact(release)?;
        let output = self.run(&format!("mender install {artifact}"))?;
        ensure!(output.status == 1, "the update was not refused: exit status {}:\n{}", output.status, output.text);
        for text in expected {
            ensure!(output.text.contains(text), "{text:?} is missing in the log:\n{}", output.text);
        }
        Ok(output.text)
    }

    /// Calls `work` with a short limit for the health check, which has to fail in it.
    pub fn unhealthy<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.set_health_limit(HEALTH_FAILS)?;
        let result = work(self)?;
        self.set_health_limit(HEALTH_PASSES)?;
        Ok(result)
    }

    fn set_health_limit(&self, seconds: u64) -> Result<()> {
        self.ok(&format!("sed -i 's/^health_seconds.*/health_seconds = {seconds}/' {SETTINGS}")).map(drop)
    }

    /// Waits until the server at `port` answers with `version`.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn answers(&self, port: u16, version: &str) -> Result<()> {
        self.serves(port, "", version).with_context(|| format!("version {version} does not answer at port {port}"))
    }

    /// Waits until the server at `port` answers with `content` to a request for `path`.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn serves(&self, port: u16, path: &str, content: &str) -> Result<()> {
        let request = format!("busybox wget -q -T 2 -O - http://127.0.0.1:{port}/{path} 2> /dev/null");
        self.wait(&format!("answer=$({request}); echo \"$answer\"; [ \"$answer\" = '{content}' ]"))
    }

    /// Loads `archive` into the engine without the module.
    ///
    /// # Errors
    /// When the engine does not take it.
    pub fn load(&self, archive: &Archive) -> Result<()> {
        self.write("/root/unrelated.tar", &archive.content)?;
        self.ok(&format!("{} load --quiet < /root/unrelated.tar", self.setup.engine())).map(drop)
    }

    /// Runs the engine with `arguments`, which has to succeed, and returns its output.
    pub fn engine(&self, arguments: &str) -> Result<String> {
        self.ok(&format!("{} {arguments}", self.setup.engine()))
    }

    /// The IDs and names of all images, one name in a line, sorted.
    pub fn images(&self) -> Result<Vec<String>> {
        let engine = self.setup.engine();
        let output =
            self.ok(&format!("{engine} images --no-trunc --format '{{{{.ID}}}} {{{{.Repository}}}}:{{{{.Tag}}}}'"))?;
        let mut images: Vec<_> = output.lines().map(str::to_owned).collect();
        images.sort();
        Ok(images)
    }

    /// Requires that nothing is left of an update, and that the images are those in `before`.
    ///
    /// # Errors
    /// What is left, or differs.
    pub fn is_clean(&self, before: &[String]) -> Result<()> {
        self.ok(&format!("test ! -e {STATE}/journal.json && test ! -e {STATE}/staging"))
            .context("the journal or the staging directory is left")?;
        let now = self.images()?;
        ensure!(now == before, "the images differ: before {before:#?}, now {now:#?}");
        Ok(())
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        if self.process.is_some() {
            // An error cannot be returned from here, and the scenario has ended.
            let _ = self.lose_power();
        }
    }
}
