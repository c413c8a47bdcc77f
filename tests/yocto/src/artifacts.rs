//! The artifacts that the class update-module-artifact makes of the example recipes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::directory;
use host::status::Step;
use xshell::{Shell, cmd};

use crate::build::found;

/// The recipes of artifacts: of a file, of a directory with a signature, and of a file that another recipe deploys.
pub const RECIPES: [&str; 3] = ["example-artifact", "example-directory-artifact", "example-deployed-artifact"];

/// Makes the files that the recipes use without a SRC_URI: a key and a file in the build directory.
pub fn prepare(sh: &Shell, build: &Path) -> Result<()> {
    directory::write(&build.join("outside.html"), "not in SRC_URI\n")?;
    let (key, public) = (build.join("signing.key"), build.join("signing.pub"));
    let make = cmd!(sh, "openssl ecparam -name prime256v1 -genkey -noout -out {key}").quiet();
    make.run().context("creating a key with openssl failed")?;
    let publish = cmd!(sh, "openssl ec -in {key} -pubout -out {public}").quiet().ignore_stderr();
    publish.run().context("creating a key with openssl failed")
}

/// Fails unless each artifact is the one of its recipe.
pub fn check(sh: &Shell, step: &Step, build: &Path) -> Result<()> {
    let expected: [&[&str]; 3] = [
        &["Type:   web-file", "name:     index.html", "rootfs-image.web-file.version", "no signature"],
        &[
            "Type:   directory",
            "name:     dest_dir",
            "name:     update.tar",
            "data-partition.directory.version",
            "signed and verified correctly",
        ],
        &["Type:   web-file", "name:     outside.html", "name:     example-artifact-1.0-"],
    ];
    let public = build.join("signing.pub");
    for (recipe, words) in RECIPES.iter().zip(expected) {
        let file = found(&build.join("deploy/images"), |name| {
            name.starts_with(&format!("{recipe}-1.0-")) && name.ends_with(".mender")
        })?;
        // With a key, mender-artifact refuses an artifact without a signature.
        let signed = words.contains(&"signed and verified correctly");
        let key: &[&Path] = if signed { &[Path::new("--key"), &public] } else { &[] };
        let output = run(step, cmd!(sh, "mender-artifact read {key...} {file}"))?;
        for word in words {
            ensure!(output.contains(word), "unexpected artifact: {}: no {word:?} in\n{output}", file.display());
        }
    }
    Ok(())
}
