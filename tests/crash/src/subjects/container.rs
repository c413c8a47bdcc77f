//! `container`: a project of one service, over an old version with the same tag or another, beside a project with the same
//! image, or where nothing was.
//!
//! Engine and systemd are mocks, `fake-podman` and `fake-systemctl`, whose state is files on the device: they are cut as
//! the module is. What real podman does is in the end-to-end scenarios.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fake_engine::State;
use mock_client::{MockClient, Snapshot};
use test_image::{Archive, Image, Mode};

use super::Module;
use crate::Subject;
use crate::drive::succeed;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |old| -> Box<dyn Subject> { Box::new(Container { module: module.clone(), old }) };
    [Old::OtherTag, Old::SameTag, Old::Neighbour, Old::Nothing].map(subject).into()
}

struct Container {
    module: Module,
    old: Old,
}

/// What is there before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    /// A version with a tag of its own.
    OtherTag,
    /// A version with the tag that the new one takes from it.
    SameTag,
    /// A version whose image another project has too.
    Neighbour,
    /// No project.
    Nothing,
}

impl Container {
    fn reference(&self) -> &'static str {
        if self.old == Old::SameTag { "localhost/shop:1" } else { "localhost/shop:2" }
    }

    fn engine(device: &MockClient) -> State {
        State::new(device.device().join("engine"))
    }

    fn units(device: &MockClient) -> PathBuf {
        device.device().join("units")
    }

    /// Installs version 1 as `project`.
    fn install_old(&self, device: &mut MockClient, project: &str) -> Result<()> {
        device.set_meta_data(meta_data(project, "localhost/shop:1", &image("localhost/shop:1", "1").id));
        let old = OldVersion(self);
        ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"]
            .iter()
            .try_for_each(|state| succeed(&old, device, state))
    }
}

fn image(reference: &str, version: &str) -> Archive {
    Image { reference, version, mode: Mode::Well, architecture: "amd64", executable: b"not run here" }
        .archive()
}

fn meta_data(project: &str, reference: &str, id: &str) -> String {
    format!(
        r#"{{"project": "{project}", "images": [{{"file": "app.tar", "id": "{id}", "ref": "{reference}"}}],
            "run": {{"web": {{"image": "{reference}"}}}}}}"#
    )
}

impl Subject for Container {
    fn name(&self) -> &'static str {
        match self.old {
            Old::OtherTag => "update (engine and systemd are played)",
            Old::SameTag => "update with the same tag (played)",
            Old::Neighbour => "update beside a project with the same image (played)",
            Old::Nothing => "first install (played)",
        }
    }

    fn device(&self) -> Result<MockClient> {
        let mut device = self.module.device()?;
        let fakes = self.module.executable.parent().context("the module is in a directory")?;
        let (engine, units) = (device.device().join("engine"), Self::units(&device));
        let settings = format!(
            "engine = [{:?}, {engine:?}]\nsystemctl = [{:?}, {engine:?}, {units:?}]\nunits_dir = {units:?}\n\
             health_seconds = 1\nstable_seconds = 0\nreserve_mib = 0\n",
            fakes.join("fake-podman"),
            fakes.join("fake-systemctl"),
        );
        device.set("container", &settings)?;
        match self.old {
            Old::Nothing => {}
            Old::Neighbour => {
                self.install_old(&mut device, "museum")?;
                self.install_old(&mut device, "shop")?;
            }
            Old::OtherTag | Old::SameTag => self.install_old(&mut device, "shop")?,
        }
        let reference = self.reference();
        device.set_meta_data(meta_data("shop", reference, &image(reference, "2").id));
        Ok(device)
    }

    /// Projects, their units, and all that the engine has. Times are left out: what is stopped and started again, or gets
    /// back a tag, is written anew. So are directories, which say nothing here, and what a cut leaves of a file that was being
    /// written: units are in memory, and what is in the engine's directory is the mock's.
    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        let live = Snapshot::of(device.device())?.except(&device.settings()).except(&device.tree());
        Ok(live.files_except(".new").without_times().wherever(device.device()))
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("app.tar".into(), image(self.reference(), "2").content)])
    }

    fn boot(&self, device: &MockClient) -> Result<()> {
        Self::engine(device).lose_power(&Self::units(device))
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let state = device.datastore().join("update-modules/container");
        ensure!(!state.join("staging").exists(), "the staging place is left");
        ensure!(!state.join("journal.json").exists(), "the journal is left");
        for entry in fs::read_dir(device.device()).context("listing the device")? {
            let name = entry.context("listing the device")?.file_name().to_string_lossy().into_owned();
            let is_scratch = name.starts_with("mender-update-module-container-");
            ensure!(!is_scratch, "the directory for the engine's temporary files is left: {name}");
        }
        Ok(())
    }
}

/// The version that is there before, as an update of its own.
struct OldVersion<'a>(&'a Container);

impl Subject for OldVersion<'_> {
    fn name(&self) -> &'static str {
        "the old version"
    }

    fn device(&self) -> Result<MockClient> {
        self.0.device()
    }

    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        self.0.live(device)
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(vec![("app.tar".into(), image("localhost/shop:1", "1").content)])
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        self.0.is_clean(device)
    }
}
