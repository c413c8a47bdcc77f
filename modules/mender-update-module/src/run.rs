//! The command line: calls one method of the module, and returns the exit status.

use std::env;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::client;
use crate::durable;
use crate::journal::Journal;
use crate::log;
use crate::module::UpdateModule;
use crate::payloads::Payloads;
use crate::settings_file;
use crate::state::State;
use crate::status::{self, Status};
use crate::supervision;
use crate::tree::WorkTree;

/// Runs `module` with the command line of the client, `MODULE STATE TREE`. Returns the exit status: 0 for success and
/// for unknown states, 1 for failure, with the chain of errors on standard error.
///
/// Apart from the protocol, a module supports `--help`, `--version`, `--status [--json]`, `--check-settings [FILE]`,
/// `--recover [TREE]`, the recovery at boot, and `--under-way`, which succeeds if an update is pending, for the
/// removal of the package: 1 means that none is, 2 that the module cannot find it out.
pub fn run<M: UpdateModule>(module: M) -> ExitCode {
    match answer(&module, env::args_os().skip(1).collect()).and_then(write_answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log!("{}: {error:#}", M::NAME);
            if error.is::<Unknown>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// The answer to a query, without its newline; `None` for every other state.
type Answer = Option<&'static str>;

fn answer<M: UpdateModule>(module: &M, arguments: Vec<OsString>) -> Result<Answer> {
    match arguments.as_slice() {
        [flag] if flag == "--version" => print(M::VERSION),
        [flag] if flag == "--help" || flag == "-h" => print(status::help(M::NAME, M::VERSION)),
        [flag] if flag == "--status" => print(status_of(module)?),
        [flag, form] if flag == "--status" && form == "--json" => {
            print(serde_json::to_string(&status_of(module)?).context("writing the status failed: JSON")?)
        }
        [flag] if flag == "--check-settings" => {
            let file = settings_file::path(M::NAME);
            if durable::exists(&file)? {
                check_settings(module, &file)
            } else {
                print(format!("{}: does not exist: the defaults apply", file.display()))
            }
        }
        [flag, file] if flag == "--check-settings" => check_settings(module, Path::new(file)),
        [flag] if flag == "--recover" => silent(recover_this_device(module)),
        [flag, tree] if flag == "--recover" => silent(recover(module, &WorkTree::new(tree))),
        [flag] if flag == "--under-way" => under_way(M::NAME),
        [state, tree] => match state.to_str().unwrap_or_default().parse() {
            Ok(state) => call(module, state, &WorkTree::new(tree)).with_context(|| format!("{state:?} failed")),
            Err(_) => Ok(None),
        },
        _ => bail!(
            "invalid arguments: use '{name} STATE TREE', as the Mender client does, or see '{name} --help'",
            name = M::NAME
        ),
    }
}

fn print(text: impl Display) -> Result<Answer> {
    println!("{text}");
    Ok(None)
}

fn check_settings<M: UpdateModule>(module: &M, file: &Path) -> Result<Answer> {
    module.check_settings(file)?;
    print(format!("{}: valid", file.display()))
}

fn status_of<M: UpdateModule>(module: &M) -> Result<Status> {
    let tree = WorkTree::in_datastore(client::datastore(M::NAME)?);
    let journal = Journal::new(&tree.state_directory(M::NAME));
    Ok(Status {
        module: M::NAME,
        version: M::VERSION,
        pending: module.pending(&tree)?,
        unrestored: journal.unrestored()?,
        journal: journal.current(),
        settings: settings_file::path(M::NAME),
        log: tree.datastore().join("deployments.*.log"),
    })
}

/// That it is not known whether an update is pending.
#[derive(Debug)]
struct Unknown;

impl Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("finding out whether an update is pending failed")
    }
}

/// Prints the journal of a pending update of the module `name`, and fails if no update is pending.
fn under_way(name: &str) -> Result<Answer> {
    // A mistake in the settings, with which no update begins, hides no update that has begun.
    let datastore = client::datastore_at_boot(name).context(Unknown)?;
    let journal = Journal::new(&WorkTree::in_datastore(datastore).state_directory(name));
    match journal.not_ended().context(Unknown)? {
        Some(record) => {
            println!("{}", record.display());
            Ok(None)
        }
        None => {
            // A datastore that the settings meant was not looked at.
            settings_file::datastore(name).context(Unknown)?;
            bail!("no update is pending")
        }
    }
}

/// The recovery at boot, with the datastore of the device's client.
///
/// # Errors
/// Also when the settings are not TOML, or their datastore is wrong: another one that they meant was not recovered.
fn recover_this_device<M: UpdateModule>(module: &M) -> Result<()> {
    let datastore = client::datastore_at_boot(M::NAME)?;
    if !durable::exists(&datastore)? {
        log!(
            "no pending update found: {} does not exist: if the Mender client has another data directory, set datastore in \
             /etc/mender-modules/{}.toml",
            datastore.display(),
            M::NAME
        );
    }
    recover(module, &WorkTree::in_datastore(datastore))?;
    settings_file::datastore(M::NAME).map(drop)
}

fn recover<M: UpdateModule>(module: &M, tree: &WorkTree) -> Result<()> {
    supervision::end_with_client();
    let _lock = Journal::new(&tree.state_directory(M::NAME)).lock(false)?;
    module.recover(tree)
}

fn call<M: UpdateModule>(module: &M, state: State, tree: &WorkTree) -> Result<Answer> {
    if state.is_query() {
        return answered(module, state, tree);
    }
    supervision::end_with_client();
    let payloads = match state {
        State::Download => Payloads::without_sizes(tree.path()),
        State::DownloadWithFileSizes => Payloads::with_sizes(tree.path()),
        _ => {
            let _lock = Journal::new(&tree.state_directory(M::NAME)).lock(false)?;
            return answered(module, state, tree);
        }
    };
    let progress = payloads.progress();
    silent(download(module, tree, payloads).inspect_err(|_| progress.complete(tree.path())))
}

fn download<M: UpdateModule>(module: &M, tree: &WorkTree, payloads: Payloads) -> Result<()> {
    if !M::GUARDED {
        settings_file::refuse_tables(M::NAME)?;
    }
    let _lock = Journal::new(&tree.state_directory(M::NAME)).lock(true)?;
    module.download(tree, payloads)
}

fn answered<M: UpdateModule>(module: &M, state: State, tree: &WorkTree) -> Result<Answer> {
    match state {
        State::ProvidePayloadFileSizes => module.provides_payload_file_sizes(tree).map(yes_or_no),
        // The caller has the payloads.
        State::Download | State::DownloadWithFileSizes => Ok(None),
        State::ArtifactInstall => silent(module.artifact_install(tree)),
        State::NeedsArtifactReboot => module.needs_artifact_reboot(tree).map(|needs| Some(needs.word())),
        State::ArtifactReboot => silent(module.artifact_reboot(tree)),
        State::ArtifactVerifyReboot => silent(module.artifact_verify_reboot(tree)),
        State::ArtifactCommit => silent(module.artifact_commit(tree)),
        State::SupportsRollback => module.supports_rollback(tree).map(yes_or_no),
        State::ArtifactRollback => silent(module.artifact_rollback(tree)),
        State::ArtifactRollbackReboot => silent(module.artifact_rollback_reboot(tree)),
        State::ArtifactVerifyRollbackReboot => silent(module.artifact_verify_rollback_reboot(tree)),
        State::ArtifactFailure => silent(module.artifact_failure(tree)),
        State::Cleanup => silent(module.cleanup(tree)),
    }
}

fn silent(done: Result<()>) -> Result<Answer> {
    done.map(|()| None)
}

fn yes_or_no(yes: bool) -> Answer {
    Some(if yes { "Yes" } else { "No" })
}

/// Writes the answer and its newline in one write: to the client, two writes are "Too many lines", which leaves the
/// device inconsistent.
fn write_answer(answer: Answer) -> Result<()> {
    let Some(word) = answer else { return Ok(()) };
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(format!("{word}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .with_context(|| format!("writing the answer {word:?} to standard output failed"))
}

#[cfg(test)]
mod tests;
