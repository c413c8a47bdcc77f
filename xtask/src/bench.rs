//! `cargo xtask bench`: the cost of an update with our modules, with upstream modules, and as a lower bound.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bench::{Candidate, Method, Plan, Size};
use clap::Args;
use host::status::step;
use host::{directory, packages};
use xshell::Shell;

use crate::dist::{Dist, modules};
use crate::{dpkg, evidence, target, upstream};

/// GNU time measures the memory of modules.
const HOST_PACKAGES: &[&str] = &["time"];

/// The beginning of the report, which explains its figures.
const LEGEND: &str = "\
# The cost of an update

Times are medians of several rounds, in which all candidates run one after the other. *written* is the minimum of the
rounds, because other programs can only increase it. *missing or mixed* and *peak memory* are of one update. *ours* are
the executables of our packages, *upstream* the shell modules of Debian's mender-client. The lower bound is to write the
payload once and to sync. `web-file` reads every file back from the storage, to find storage that returns other data
than was written; the row *cp, sync, read back* is what this costs without a module.

- *written*: the bytes that the block device counted in a whole update, for each byte of the files. The file system is
  synced after each state, as a kernel does by itself within half a minute.
- *missing or mixed*: the time in ArtifactInstall and ArtifactRollback in which the destination was missing, or its
  first and last file were of different versions. A thread beside the module polls the destination.
- *total*: the time of Download, ArtifactInstall, ArtifactCommit and Cleanup with their syncs, compared with the lower
  bound and its sync.
- *peak memory*: the memory of the largest process of any state, measured by GNU time (`ru_maxrss`). A shell module runs
  several processes.
- *executable*: the size of the executable. For a shell module it is the size of the script, which also needs a shell,
  tar and coreutils.
- *container* is measured on the emulated Raspberry Pi with real podman: the bytes written to the card, and the downtime
  from the last answer before it to the first answer after it, polled every few tenths of a second.
- *goal*: a target of this project; a missed one does not fail the command. `web-file` renames one top-level file after
  the other, so with many files there are two versions for a time that grows with their number; `directory` exchanges two
  directories at once. No shell module installs several files as `web-file` does, so its table has no row for one.
";

/// Measures the cost of an update: written bytes, time and memory
///
/// Takes about 30 minutes on 2 cores. The measurement of container needs QEMU. The report is target/bench/report.md.
#[derive(Args)]
pub struct Bench {
    /// Measures this module only: web-file, directory or container (on an emulated Raspberry Pi)
    #[arg(long, value_name = "NAME", value_parser = MEASURED, hide_possible_values = true)]
    module: Option<String>,
    /// Uses small payloads, to test the command: the figures are not meaningful
    #[arg(long)]
    quick: bool,
    /// Measures in this number of rounds, and reports the median
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Measures the storage of this directory, such as an SD card [default: cargo's target directory]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Writes the report to docs/evidence too
    #[arg(long, conflicts_with_all = ["module", "quick", "rounds", "directory"])]
    write: bool,
}

/// One table of the report.
struct Table {
    title: String,
    sizes: [Size; 2],
    candidates: Vec<Candidate>,
}

impl Bench {
    /// Measures, prints the tables, and writes them to the report.
    pub fn run(self, sh: &Shell) -> Result<()> {
        packages::ensure(sh, HOST_PACKAGES)?;
        let metadata = modules::metadata(sh)?;
        let build = modules::target_directory(&metadata)?.join("bench");
        let ours = ours(sh, &build)?;
        let tables = self.tables(&ours, &upstream::modules(sh)?);
        let storage = self.directory.as_ref().map_or(build.clone(), |directory| sh.current_dir().join(directory));
        let mut report = LEGEND.to_owned();
        for Table { title, sizes: [large, small], candidates } in tables {
            let plan = Plan { large, small, rounds: self.rounds.into(), directory: storage.join("devices") };
            let comparison = step(&title, |step| bench::compare(plan, &candidates, |what| step.detail(what)))
                .with_context(|| format!("measuring {title} failed"))?;
            let table = bench::render(&title, &comparison);
            println!("\n{table}");
            report = format!("{report}\n{table}");
        }
        if self.module.as_deref().is_none_or(|module| module == CONTAINER) && !self.quick {
            let table = container(sh)?;
            println!("\n{table}");
            report = format!("{report}\n{table}");
        }
        let path = build.join("report.md");
        directory::write(&path, &report)?;
        if self.write {
            evidence::write(sh, "bench", "cargo xtask bench --write", &report)?;
        }
        println!("report: {}", path.display());
        Ok(())
    }

    fn tables(&self, ours: &[PathBuf], upstream: &Path) -> Vec<Table> {
        let one = |name: &str| ours.iter().find(|path| path.ends_with(name)).cloned();
        let candidate = |title: &str, method| Candidate { title: title.to_owned(), method };
        let mut tables = Vec::new();
        for (what, sizes, single) in self.payloads() {
            let mut files: Vec<_> =
                one("web-file").map(|path| candidate("ours: web-file", Method::WebFile(path))).into_iter().collect();
            if single {
                files.push(candidate("upstream: single-file", Method::SingleFile(upstream.join("single-file"))));
            }
            files.push(candidate("cp, sync, read back", Method::CopyAndReadBack));
            files.push(candidate("lower bound: cp, sync", Method::Copy));
            let mut archive: Vec<_> = one("directory")
                .map(|path| candidate("ours: directory", Method::Directory(path)))
                .into_iter()
                .collect();
            archive.push(candidate("upstream: directory", Method::Directory(upstream.join("directory"))));
            archive.push(candidate("lower bound: tar -x, sync", Method::Unpack));
            for (name, candidates) in [("web-file", files), ("directory", archive)] {
                if self.module.as_deref().is_none_or(|module| module == name) {
                    tables.push(Table { title: format!("{name}: {what}"), sizes, candidates });
                }
            }
        }
        tables
    }

    /// The payloads: name, large and small size, and whether the payload is one file.
    fn payloads(&self) -> [(String, [Size; 2], bool); 2] {
        let size = |files, bytes| Size { files, bytes };
        let (tree, file) = if self.quick {
            ([size(400, 20 << 10), size(20, 20 << 10)], [size(1, 20_000_000), size(1, 1_000_000)])
        } else {
            ([size(10_000, 20 << 10), size(100, 20 << 10)], [size(1, 500_000_000), size(1, 5_000_000)])
        };
        let megabytes = |size: Size| size.total() / 1_000_000;
        [
            (format!("{} files, {} MB", tree[0].files, megabytes(tree[0])), tree, false),
            (format!("one file, {} MB", megabytes(file[0])), file, true),
        ]
    }
}

/// The modules that can be measured. The command line refuses others, before anything is built.
const MEASURED: [&str; 3] = ["web-file", "directory", CONTAINER];

/// The module that is measured on an emulated Raspberry Pi.
const CONTAINER: &str = "container";

/// Measures `container` and returns its table, or text with the reason if the emulator cannot run.
fn container(sh: &Shell) -> Result<String> {
    let title = "## container: one image\n\n";
    if let Some(why) = packages::obstacle(sh, &[qemu::PACKAGES, e2e::HOST_PACKAGES].concat())? {
        return Ok(format!("{title}not measured: {why}\n"));
    }
    let cost = crate::e2e::cost(sh)?;
    let per_byte = |written: u64| written as f64 / cost.payload as f64;
    let (load, update) = (per_byte(cost.load.0), per_byte(cost.update));
    Ok(format!(
        "{title}An archive of {:.1} MB.\n\n\
         | | written per payload byte | time | downtime |\n|---|--:|--:|--:|\n\
         | `podman load` alone | {load:.2} | {:.1} s | |\n\
         | ours: install and commit | {update:.2}, {:.2} × podman's | | {:.1} s |\n\n\
         Goal: not more than podman writes, and downtime only between stop and start, not while the image is loaded.\n",
        cost.payload as f64 / 1e6,
        cost.load.1,
        update / load,
        cost.downtime
    ))
}

/// Our executables from the packages for this machine.
fn ours(sh: &Shell, build: &Path) -> Result<Vec<PathBuf>> {
    let architecture = dpkg::architecture(sh)?;
    let target = target::find(&architecture).context("choosing the package for this machine failed")?;
    let debs = Dist::of(&[target]).run(sh)?;
    let unpacked = build.join("unpacked");
    directory::empty(&unpacked)?;
    step("unpacking our packages", |step| {
        for (_, deb) in &debs {
            dpkg::unpack(sh, step, deb, &unpacked)?;
        }
        anyhow::Ok(())
    })?;
    let workspace = modules::workspace(sh)?;
    let executable = |name: &str| unpacked.join(upstream::MODULES).join(name);
    Ok(workspace.modules.iter().map(|module| executable(&module.name)).filter(|path| path.is_file()).collect())
}
