//! `cargo xtask bench`: what an update costs, with our modules, with upstream's, and at least.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bench::{Contestant, Means, Plan, Size};
use clap::Args;
use host::command::run;
use host::packages;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::{Dist, modules};
use crate::{target, upstream};

/// GNU time says what memory a module had.
const HOST_PACKAGES: &[&str] = &["time"];

/// What the figures are, for whoever reads the report alone.
const LEGEND: &str = "\
# What an update costs

Medians of rounds in which all are measured in turn; of *written* the least, because other programs can only add to it.
*Missing or mixed* and the memory are of one update. Ours are the executables of our packages, upstream's the shell modules
of Debian's mender-client. The lower bound is to write the payload once and to sync.

- *written*: sectors that the block device has counted in a whole update, for each byte of the files' content. The file
  system is synced after each state, as a kernel does by itself within half a minute.
- *missing or mixed*: for how long a reader beside the module found the destination missing, or its first and last file
  from different versions, in ArtifactInstall and ArtifactRollback.
- *total*: Download, ArtifactInstall, ArtifactCommit and Cleanup, with the syncs, against the lower bound with its own.
- *peak memory*: of the largest process of any state, by GNU time (`ru_maxrss`). A shell module has several.
- *executable*: of a shell module the script alone, which needs a shell, tar and coreutils beside it.
- of *container*, on the emulated Raspberry Pi with real podman: what was written to the card, and the downtime, from the last
  answer before it to the first after it; polled every few tenths of a second.
";

/// Measures what an update costs: bytes written, time and memory
///
/// Takes about 30 minutes on 2 cores. The measurement of container needs QEMU. The report is target/bench/report.md.
#[derive(Args)]
pub struct Bench {
    /// Measures this module only: web-file, directory, or container, which is measured on an emulated Raspberry Pi
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Uses small payloads, to see that it works: the figures say little
    #[arg(long)]
    quick: bool,
    /// How often everything is measured, for the median
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// A directory on the storage to measure, such as an SD card [default: cargo's target directory].
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// One table: who installs what.
struct Contest {
    title: String,
    sizes: [Size; 2],
    contestants: Vec<Contestant>,
}

impl Bench {
    /// Measures, prints the tables, and writes them to the report.
    ///
    /// # Errors
    /// When a module cannot be had, or does not do what is measured.
    pub fn run(self, sh: &Shell) -> Result<()> {
        packages::ensure(sh, HOST_PACKAGES)?;
        let metadata = modules::metadata(sh)?;
        let target =
            metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
        let build = Path::new(target).join("bench");
        let ours = ours(sh, &build)?;
        let contests = self.contests(&ours, &upstream::modules(sh)?)?;
        let directory =
            self.directory.as_ref().map_or(build.clone(), |directory| sh.current_dir().join(directory));
        let mut report = LEGEND.to_owned();
        for Contest { title, sizes: [large, small], contestants } in contests {
            let plan =
                Plan { large, small, rounds: self.rounds.into(), directory: directory.join("devices") };
            let comparison =
                step(&title, |step| bench::compare(plan, &contestants, |what| step.detail(what)))
                    .with_context(|| format!("measuring {title}"))?;
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
        fs::write(&path, report).with_context(|| format!("writing {}", path.display()))?;
        println!("the report is in {}", path.display());
        Ok(())
    }

    fn contests(&self, ours: &[PathBuf], upstream: &Path) -> Result<Vec<Contest>> {
        let one = |name: &str| ours.iter().find(|path| path.ends_with(name)).cloned();
        let contestant = |title: &str, means| Contestant { title: title.to_owned(), means };
        let mut contests = Vec::new();
        for (what, sizes, single) in self.payloads() {
            let mut files: Vec<_> = one("web-file")
                .map(|path| contestant("ours: web-file", Means::WebFile(path)))
                .into_iter()
                .collect();
            if single {
                files.push(contestant(
                    "upstream: single-file",
                    Means::SingleFile(upstream.join("single-file")),
                ));
            }
            files.push(contestant("lower bound: cp, sync", Means::Copy));
            let mut archive: Vec<_> = one("directory")
                .map(|path| contestant("ours: directory", Means::Directory(path)))
                .into_iter()
                .collect();
            archive.push(contestant("upstream: directory", Means::Directory(upstream.join("directory"))));
            archive.push(contestant("lower bound: tar -x, sync", Means::Unpack));
            for (name, contestants) in [("web-file", files), ("directory", archive)] {
                if self.module.as_deref().is_none_or(|module| module == name) {
                    contests.push(Contest { title: format!("{name}: {what}"), sizes, contestants });
                }
            }
        }
        let known = self.module.as_deref().is_none_or(|module| module == CONTAINER) || !contests.is_empty();
        ensure!(known, "there are payloads for web-file, directory and container only");
        Ok(contests)
    }

    /// The payloads: what they are called, large and small, and whether it is one file.
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

/// The module that is measured on an emulated Pi.
const CONTAINER: &str = "container";

/// Measures `container` and returns its table; where there can be no emulator, why.
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
         | ours: install, commit | {update:.2}, {:.2} × podman's | | {:.1} s |\n\n\
         Goal: no more than podman writes, and downtime only from stop to start, never while an image is loaded.\n",
        cost.payload as f64 / 1e6,
        cost.load.1,
        update / load,
        cost.downtime
    ))
}

/// Our executables as they are shipped, taken out of the packages for this machine.
fn ours(sh: &Shell, build: &Path) -> Result<Vec<PathBuf>> {
    let architecture = cmd!(sh, "dpkg --print-architecture").quiet().read()?;
    let target = target::find(&architecture).context("measuring on this machine")?;
    let debs = Dist::of(&[target]).run(sh)?;
    let directory = build.join("shipped");
    host::directory::empty(&directory)?;
    step("unpacking our packages", |step| {
        for (_, deb) in &debs {
            run(step, cmd!(sh, "dpkg-deb --extract {deb} {directory}"))?;
        }
        anyhow::Ok(())
    })?;
    let workspace = modules::workspace(sh)?;
    let shipped = |name: &str| directory.join(upstream::MODULES).join(name);
    Ok(workspace.modules.iter().map(|module| shipped(&module.name)).filter(|path| path.is_file()).collect())
}
