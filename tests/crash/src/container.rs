//! `container`: a project with one service: an update with another tag, with the same tag, beside a project with the
//! same image, and a first install.
//!
//! Engine and systemd are mocks, `fake-podman` and `fake-systemctl`. Their state is in files on the device, and they
//! are interrupted as the module is. The real engines are tested by `cargo xtask engines` and the end-to-end
//! scenarios.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use fake_engine::State;
use mender_update_module_test::{MockClient, Snapshot};
use test_image::{Archive, Image, Mode};

use crate::Module;
use mender_update_module_test::fault_injection::Subject;
use mender_update_module_test::fault_injection::succeed;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |previous| -> Box<dyn Subject> { Box::new(Container { module: module.clone(), previous }) };
    [Previous::OtherTag, Previous::SameTag, Previous::SharedImage, Previous::Nothing].map(subject).into()
}

struct Container {
    module: Module,
    previous: Previous,
}

/// The previous version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Previous {
    /// A version with another tag.
    OtherTag,
    /// A version with the same tag.
    SameTag,
    /// A version whose image another project uses too.
    SharedImage,
    /// None.
    Nothing,
}

impl Container {
    fn reference(&self) -> &'static str {
        if self.previous == Previous::SameTag { "localhost/shop:1" } else { "localhost/shop:2" }
    }

    fn engine(device: &MockClient) -> State {
        State::new(device.device().join("engine"))
    }

    fn units(device: &MockClient) -> PathBuf {
        device.device().join("units")
    }

    /// Installs version 1 as `project`.
    fn install_previous(&self, device: &mut MockClient, project: &str) -> Result<()> {
        device.set_meta_data(meta_data(project, "localhost/shop:1", &image("localhost/shop:1", "1").id));
        let previous = PreviousVersion(self);
        ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"]
            .iter()
            .try_for_each(|state| succeed(&previous, device, state))
    }
}

fn image(reference: &str, version: &str) -> Archive {
    Image { reference, version, mode: Mode::Healthy, architecture: "amd64", executable: b"not run here" }.archive()
}

fn meta_data(project: &str, reference: &str, id: &str) -> String {
    format!(
        r#"{{"project": "{project}", "images": [{{"file": "app.tar", "id": "{id}", "ref": "{reference}"}}],
            "run": {{"web": {{"image": "{reference}"}}}}}}"#
    )
}

impl Subject for Container {
    fn name(&self) -> &'static str {
        match self.previous {
            Previous::OtherTag => "update (mock engine and systemd)",
            Previous::SameTag => "update with the same tag (mock)",
            Previous::SharedImage => "update beside a project with the same image (mock)",
            Previous::Nothing => "first install (mock)",
        }
    }

    fn device(&self) -> Result<MockClient> {
        let mut device = self.module.device()?;
        let fakes = self.module.executable.parent().context("the path of the module has no directory")?;
        let (engine, units) = (device.device().join("engine"), Self::units(&device));
        let settings = format!(
            "engine = [{:?}, {engine:?}]\nsystemctl = [{:?}, {engine:?}, {units:?}]\nunits_dir = {units:?}\n\
             health_seconds = 1\nstable_seconds = 0\nreserve_mib = 0\n",
            fakes.join("fake-podman"),
            fakes.join("fake-systemctl"),
        );
        device.set("container", &settings)?;
        match self.previous {
            Previous::Nothing => {}
            Previous::SharedImage => {
                self.install_previous(&mut device, "museum")?;
                self.install_previous(&mut device, "shop")?;
            }
            Previous::OtherTag | Previous::SameTag => self.install_previous(&mut device, "shop")?,
        }
        let reference = self.reference();
        device.set_meta_data(meta_data("shop", reference, &image(reference, "2").id));
        Ok(device)
    }

    /// Projects, their units, and the content of the engine. Without times, because restarted containers and restored
    /// tags are written again; without directories; and without partly written files: units are in memory, and the
    /// engine's directory belongs to the mock.
    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        let active = Snapshot::of(device.device())?.except(&device.settings()).except(&device.tree());
        Ok(active.files_except(".new").without_times().with_device_path_masked(device.device()))
    }

    /// The projects: at a boot, systemd starts their units later.
    fn visible(&self, device: &MockClient) -> Result<Snapshot> {
        Ok(self.active(device)?.within(&device.datastore().join("update-modules/container/projects")))
    }

    fn require_new(&self, device: &MockClient) -> Result<()> {
        let (engine, new) = (Self::engine(device), image(self.reference(), "2").id);
        let tag = (self.reference().to_owned(), new.trim_start_matches("sha256:").to_owned());
        let (tags, running) = (engine.tags()?, engine.running()?);
        ensure!(tags.contains(&tag), "the engine does not have the tag {tag:?}: {tags:?}");
        let of_project: Vec<_> = running.iter().filter(|(name, _)| name.starts_with("shop")).collect();
        ensure!(
            of_project.len() == 1 && of_project[0].1 == tag.1,
            "not one container of the image {} runs, but {running:?}",
            tag.1
        );
        Ok(())
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("app.tar".into(), image(self.reference(), "2").content)])
    }

    fn boot(&self, device: &MockClient) -> Result<()> {
        Self::engine(device).lose_power(&Self::units(device))
    }

    /// The mock syncs what systemd has in memory, and the module the engine's file system.
    fn is_sync_of_module(&self, call: &str) -> bool {
        let is_of_mock = call.contains("engine") && !call.contains("file system");
        !is_of_mock && !call.ends_with("/with spaces")
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let state = device.datastore().join("update-modules/container");
        ensure!(!state.join("staging").exists(), "the update is not ended: its staging directory is left");
        ensure!(!state.join("journal.json").exists(), "the update is not ended: its journal is left");
        for entry in fs::read_dir(device.device()).context("listing the device failed")? {
            let name = entry.context("listing the device failed")?.file_name().to_string_lossy().into_owned();
            let is_scratch = name.starts_with("mender-update-module-container-");
            ensure!(!is_scratch, "the update is not ended: the engine's directory for temporary files is left: {name}");
        }
        Ok(())
    }
}

/// The previous version, as an update.
struct PreviousVersion<'a>(&'a Container);

impl Subject for PreviousVersion<'_> {
    fn name(&self) -> &'static str {
        "the previous version"
    }

    fn device(&self) -> Result<MockClient> {
        self.0.device()
    }

    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        self.0.active(device)
    }

    fn require_new(&self, _device: &MockClient) -> Result<()> {
        bail!("the previous version is not tested")
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("app.tar".into(), image("localhost/shop:1", "1").content)])
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        self.0.is_clean(device)
    }
}
