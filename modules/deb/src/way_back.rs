//! The way back, from wherever the switch or an earlier attempt at this was cut: the former packages, exactly.

use anyhow::{Context, Result, ensure};
use update_module::{durable, say};

use crate::control::Stanza;
use crate::database::{self, Database, Diversions};
use crate::dpkg;
use crate::former::{Folders, Former, Package};
use crate::locks;
use crate::marks;
use crate::places;
use crate::staged::Staged;

/// What dpkg has to overlook on the way back: between two states that fit together it passes through some that do not.
const FORCE: [&str; 9] = [
    "--force-depends",
    "--force-breaks",
    "--force-conflicts",
    "--force-overwrite",
    "--force-hold",
    "--force-downgrade",
    "--force-remove-reinstreq",
    "--force-confdef",
    "--force-confold",
];

/// Brings `former` back, which is kept in `folders.old`, in the place of `staged`.
///
/// # Errors
/// When another package manager does not end, or something cannot be brought back: which package, and what it is now.
pub fn go(former: &Former, folders: &Folders, staged: &[Staged], lock_seconds: u64) -> Result<()> {
    let frontend = locks::take(locks::FRONTEND, lock_seconds)?;
    drop(locks::take(locks::DATABASE, lock_seconds)?);
    database::settle()?;
    attempt(former, folders, staged)?;
    let mut left = missing(former, &Database::read()?);
    if !left.is_empty() {
        silence_scripts(&left)?;
        attempt(former, folders, staged)?;
        left = missing(former, &Database::read()?);
    }
    let names = || left.iter().map(|package| package.key.to_string()).collect::<Vec<_>>().join(", ");
    ensure!(
        left.is_empty(),
        "these packages are not what they were: {}. See above for why, and dpkg --audit",
        names()
    );
    database::sweep(lock_seconds)?;
    marks::sweep()?;
    remove_strays(former, staged)?;
    former.places.put_back(&folders.places())?;
    former.extras.put_back()?;
    database::put_back(&former.stanzas(), lock_seconds)?;
    drop(frontend);
    marks::set(former.marks())
}

/// Has dpkg do what is missing. That it complains is no failure: what counts is how the packages are in the end.
fn attempt(former: &Former, folders: &Folders, staged: &[Staged]) -> Result<()> {
    let database = Database::read()?;
    let run = |verb: &str, what: &[String]| {
        if what.is_empty() {
            return;
        }
        if let Err(error) = dpkg::dpkg().args(FORCE).arg(verb).args(what).run() {
            say(format_args!("on the way back: {error:#}"));
        }
    };
    let mut purge = Vec::new();
    let mut remove = Vec::new();
    let mut install = Vec::new();
    for package in &former.packages {
        let now = database.find(&package.key);
        if is_untouched(package, now, staged) && has_its_files(package, former, folders)? {
            continue;
        }
        match (&package.deb, now) {
            (Some(deb), _) => install.push(folders.old.join(deb).to_string_lossy().into_owned()),
            (None, Some(now)) if package.stanza.is_some() => remove.push(now.dpkg_name()?),
            (None, Some(now)) => purge.push(now.dpkg_name()?),
            (None, None) => {}
        }
    }
    // What is new goes first: it may hold files and conflicts that keep the old away.
    run("--purge", &purge);
    run("--remove", &remove);
    // dpkg leaves a symlink in the place of a folder alone, but makes a folder where nothing is.
    former.moved.put_back_missing(&folders.moved())?;
    run("--install", &install);
    if database::is_interrupted()? || Database::read()?.unfinished().next().is_some() {
        run("--configure", &["--pending".to_owned()]);
    }
    Ok(())
}

/// Whether nothing has happened to `package`, or everything to bring it back. A stanza cannot tell one build of a
/// version from another.
fn is_untouched(package: &Package, now: Option<&Stanza>, staged: &[Staged]) -> bool {
    let version = |stanza: &Stanza| stanza.field("Version").map(str::to_owned);
    let same_version = staged.iter().any(|new| {
        new.key == package.key && version(&new.control) == package.stanza.as_ref().and_then(version)
    });
    now == package.stanza.as_ref() && !same_version
}

/// Whether the package has not lost a file to another: that changes dpkg's list of its files, and nothing else.
fn has_its_files(package: &Package, former: &Former, folders: &Folders) -> Result<bool> {
    match package.stanza.as_ref().filter(|_| package.deb.is_some()) {
        Some(stanza) => former.places.is_as_kept(&database::info_file(stanza, "list")?, &folders.places()),
        None => Ok(true),
    }
}

/// The packages that are not in their former state.
fn missing<'a>(former: &'a Former, database: &Database) -> Vec<&'a Package> {
    let is_missing = |package: &&Package| {
        let now = database.find(&package.key).filter(|now| now.state() != "not-installed");
        match (&package.stanza, now) {
            (None, None) => false,
            (Some(before), Some(now)) => {
                let same = |field| before.field(field) == now.field(field);
                before.state() != now.state()
                    || (before.is_installed()
                        && !(now.is_installed() && same("Version") && same("Architecture")))
            }
            _ => true,
        }
    };
    former.packages.iter().filter(is_missing).collect()
}

/// The last resort: scripts of the new packages that fail when they are to go are replaced by ones that do nothing.
fn silence_scripts(packages: &[&Package]) -> Result<()> {
    let database = Database::read()?;
    for now in packages.iter().filter_map(|package| database.find(&package.key)) {
        for script in ["prerm", "postrm"] {
            let path = database::info_file(now, script)?;
            if durable::exists(&path)? {
                say(format_args!(
                    "{} fails, and would keep the old away: running without it",
                    path.display()
                ));
                durable::rewrite_file(&path, b"#!/bin/sh\nexit 0\n")?;
            }
        }
    }
    Ok(())
}

/// Removes what a cut has left of the new packages, and what no package has: what was there before is in
/// [`Former::places`].
fn remove_strays(former: &Former, staged: &[Staged]) -> Result<()> {
    let files = staged.iter().map(Staged::files).collect::<Result<Vec<_>>>()?;
    let (owners, diversions) = (Database::read()?.owners(files.iter().flatten())?, Diversions::read()?);
    for (package, mut files) in staged.iter().zip(files) {
        files.sort();
        // Folders after what is in them.
        for path in files.iter().rev() {
            let place = diversions.place(path, &package.key.name);
            places::unfinished(place).try_for_each(|half| places::remove_file(&half))?;
            if !owners.of(path).is_empty() || former.places.has(place) {
                continue;
            }
            let removed = if durable::look_at(place)?.is_some_and(|found| found.is_dir()) {
                durable::remove_empty_dir(place)
            } else {
                places::remove_file(place)
            };
            removed.context("removing what the update has left")?;
        }
    }
    for package in former.packages.iter().filter_map(|package| package.stanza.as_ref()) {
        for path in database::files_of(package)? {
            places::unfinished(&path).try_for_each(|half| places::remove_file(&half))?;
        }
        for path in database::info_files(package)?.iter().filter(|path| !former.places.has(path)) {
            places::remove_file(path)?;
        }
    }
    Ok(())
}
