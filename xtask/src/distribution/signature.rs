//! Signatures of gpg: with a key of the user, or with a throw-away key for a trial.
//!
//! A signature has the time of the sources, so that the same key always gives the same signature.

use std::path::Path;

use anyhow::{Context, Result};
use host::command::run;
use host::status::{Step, step};
use tempfile::TempDir;
use xshell::{Cmd, Shell, cmd};

/// The Debian packages of the programs that are used here.
pub const TOOLS: &[&str] = &["gpg", "gpg-agent", "gpgconf"];

/// The user of a throw-away key.
const THROW_AWAY: &str = "Throw-away key of cargo xtask dist";

/// A key, and the time of its signatures.
pub struct Signer<'a> {
    sh: &'a Shell,
    /// gpg's directory with the throw-away key, if it is one.
    home: Option<TempDir>,
    key: String,
    /// In seconds since 1970.
    time: String,
}

impl<'a> Signer<'a> {
    /// The key of the user that gpg finds by `key`.
    ///
    /// # Errors
    /// gpg has no secret key of this name.
    pub fn of_user(sh: &'a Shell, key: &str, time: &str) -> Result<Self> {
        let signer = Self { sh, home: None, key: key.to_owned(), time: time.to_owned() };
        step(format!("finding the key {key}"), |step| run(step, signer.gpg().args(["--list-secret-keys", key])))
            .with_context(|| {
                format!("no secret key of gpg: {key}: name one that gpg --list-secret-keys shows, or set GNUPGHOME")
            })?;
        Ok(signer)
    }

    /// A new key, which exists as long as this value.
    pub fn throw_away(sh: &'a Shell, time: &str) -> Result<Self> {
        let home = tempfile::tempdir().context("creating a directory for a throw-away key failed")?;
        let mut signer = Self { sh, home: Some(home), key: String::new(), time: time.to_owned() };
        step("making a throw-away key", |step| {
            let make = signer.gpg().args(["--passphrase", "", "--pinentry-mode", "loopback"]);
            run(step, make.args(["--quick-generate-key", THROW_AWAY, "ed25519", "sign", "never"]))?;
            let list = run(step, signer.gpg().args(["--with-colons", "--list-secret-keys"]))?;
            signer.key = fingerprint(&list).with_context(|| format!("no key in the output of gpg: {list}"))?.to_owned();
            anyhow::Ok(())
        })
        .context("making a throw-away key with gpg failed")?;
        Ok(signer)
    }

    /// Whether the key is a throw-away key.
    pub fn is_throw_away(&self) -> bool {
        self.home.is_some()
    }

    /// The fingerprint, or the user's name of the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The directory of gpg with the throw-away key.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_ref().map(TempDir::path)
    }

    /// The public key as text.
    pub fn public_key(&self, step: &Step) -> Result<String> {
        let export = self.gpg().args(["--armor", "--export-options", "export-minimal", "--export", &self.key]);
        run(step, export).with_context(|| format!("exporting the public key of {} failed", self.key))
    }

    /// Writes the content of `file` with its signature to `signed`.
    pub fn sign(&self, step: &Step, file: &Path, signed: &Path) -> Result<()> {
        self.write_signature(step, "--clearsign", file, signed)
    }

    /// Writes the signature of `file` to `signature`.
    pub fn detach_sign(&self, step: &Step, file: &Path, signature: &Path) -> Result<()> {
        self.write_signature(step, "--detach-sign", file, signature)
    }

    fn write_signature(&self, step: &Step, kind: &str, file: &Path, output: &Path) -> Result<()> {
        let command = self.gpg().args(["--armor", "--digest-algo", "SHA512", "--local-user", &self.key]);
        let command = command.arg("--output").arg(output).arg(kind).arg(file);
        run(step, command).with_context(|| {
            format!(
                "signing {} with the key {} failed: the signature has the time of the last commit, and the key must be \
                 older: check it with gpg --list-secret-keys",
                file.display(),
                self.key
            )
        })?;
        Ok(())
    }

    /// gpg at the time of the signatures.
    fn gpg(&self) -> Cmd<'a> {
        let time = format!("{}!", self.time);
        let command = cmd!(self.sh, "gpg --batch --yes --quiet --no-tty --faked-system-time {time}");
        match &self.home {
            Some(home) => command.env("GNUPGHOME", home.path()),
            None => command,
        }
    }
}

impl Drop for Signer<'_> {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            // gpg has started an agent for this directory. It would end when it sees that the directory is removed.
            let end = cmd!(self.sh, "gpgconf --kill all").env("GNUPGHOME", home.path());
            let _ = end.quiet().ignore_status().ignore_stdout().ignore_stderr().run();
        }
    }
}

/// The fingerprint of the first key in the output of gpg.
fn fingerprint(list: &str) -> Option<&str> {
    list.lines().find_map(|line| line.strip_prefix("fpr:")?.split(':').find(|field| !field.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_read() {
        let list = "sec:u:255:22:0123:1:::u:::scSC:::+:::23::0:\nfpr:::::::::ABCDEF0123:\ngrp:::::::::987:\n";
        assert_eq!(fingerprint(list), Some("ABCDEF0123"));
        assert_eq!(fingerprint("gpg: no keys"), None);
    }
}
