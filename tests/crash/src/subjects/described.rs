//! A module that has no file of its own here: it is tried on its payload of the conformance suite, over what that says is old,
//! and where nothing was.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use conformance::Payload;
use mock_client::{MockClient, Snapshot};

use super::Module;
use crate::Subject;

pub fn subjects(name: &str, module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |old| -> Box<dyn Subject> {
        Box::new(Described { name: name.to_owned(), module: module.clone(), old })
    };
    [true, false].map(subject).into()
}

struct Described {
    name: String,
    module: Module,
    old: bool,
}

impl Described {
    fn described(&self) -> Result<Payload> {
        Payload::read(&self.module.payload)
    }
}

impl Subject for Described {
    fn name(&self) -> &'static str {
        if self.old { "update" } else { "first install" }
    }

    fn device(&self) -> Result<MockClient> {
        let mut device = self.module.device()?;
        let beside = self.module.executable.parent().unwrap_or(Path::new(""));
        let payload = self.described()?;
        payload.set_up(&mut device, &self.name, beside)?;
        if self.old {
            payload.put_old(&device)?;
        }
        Ok(device)
    }

    /// The whole device but for what belongs to the client: whatever a module leaves anywhere is found. The client leaves traces in
    /// the times of folders, too.
    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        let all = Snapshot::of(device.device())?;
        Ok(all.except(&device.datastore()).except(&device.settings()).without_folder_times())
    }

    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let files = self.described()?.files(device)?.into_iter();
        files
            .map(|(name, content)| {
                Ok((name.into_string().ok().context("a payload's name is not UTF-8")?, content))
            })
            .collect()
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let journal = device.datastore().join("update-modules").join(&self.name).join("journal.json");
        ensure!(!journal.exists(), "the journal is left");
        Ok(())
    }
}
