//! The results of `dist`: a table of packages and sources, and `SHA256SUMS` for `sha256sum --check`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::cache;

use super::job::Job;
use super::modules::{SUMS, Workspace};
use super::record::{self, Content};
use crate::target::Libc;

const HEADINGS: [&str; 7] = ["package", "architecture", "C library", "executable", "size", "sha256", "path"];

/// The largest size in bytes of the executables of all modules together, and the architecture for which it is checked.
/// Flash for the root file system is small, so an updater must not grow unnoticed, such as by a dependency. Code for
/// other architectures has another size, and grows for the same reasons.
const SIZE_GOAL: (&str, u64) = ("arm64", 3_500_000);

/// The size in bytes of the executables together, by architecture and C library.
pub struct Sizes(BTreeMap<(&'static str, String), u64>);

/// The sizes of the executables of `jobs`.
pub fn sizes(workspace: &Workspace, jobs: &[Job]) -> Result<Sizes> {
    let mut sums = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.module.is_update_module()) {
        let Content { size, libc } = record::content(&workspace.target, &job.deb)?;
        *sums.entry((job.target.debian, libc)).or_default() += size;
    }
    Ok(Sizes(sums))
}

impl Sizes {
    /// Prints the sizes.
    ///
    /// # Errors
    /// With musl a size is more than [`SIZE_GOAL`]. The GNU C library alone is larger.
    pub fn check(&self) -> Result<()> {
        for ((architecture, libc), sum) in &self.0 {
            println!("executables for {architecture} together, with {libc}: {sum} bytes");
            let why = too_large(architecture, libc, *sum);
            ensure!(why.is_none(), why.unwrap_or_default());
        }
        Ok(())
    }
}

fn too_large(architecture: &str, libc: &str, sum: u64) -> Option<String> {
    let (checked, goal) = SIZE_GOAL;
    (architecture == checked && libc == Libc::Musl.name() && sum > goal).then(|| {
        format!(
            "executables too large: {architecture}: {sum} bytes together, the goal is {goal}: find with cargo-bloat \
             what has grown"
        )
    })
}

/// A row of the table.
pub type Row = [String; HEADINGS.len()];

/// The row of the file at `path`, which is not a package of a module.
pub fn row(workspace: &Workspace, name: &str, architecture: &str, path: &Path) -> Result<Row> {
    let content = fs::read(path).with_context(|| format!("reading {} failed", path.display()))?;
    Ok([
        name.to_owned(),
        architecture.to_owned(),
        String::new(),
        String::new(),
        format!("{} KiB", content.len().div_ceil(1024)),
        cache::sha256(&content),
        path.strip_prefix(&workspace.root).unwrap_or(path).display().to_string(),
    ])
}

/// One row for each job, and one for each of `sources`, with paths relative to the work tree. SBOMs have no rows,
/// because each is also in its package.
pub fn rows(workspace: &Workspace, jobs: &[Job], sources: &[PathBuf]) -> Result<Vec<Row>> {
    let package = |job: &Job| {
        let Content { size, libc } = record::content(&workspace.target, &job.deb)?;
        let mut row = row(workspace, &job.module.debian, job.target.debian, &job.deb)?;
        (row[2], row[3]) = (libc, format!("{size} B"));
        Ok(row)
    };
    let source = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        row(workspace, name.rsplit_once('-').map_or(&*name, |(package, _)| package), "source", path)
    };
    jobs.iter().map(package).chain(sources.iter().map(source)).collect()
}

/// Formats `rows` as a table with aligned columns.
pub fn render(rows: &[Row]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let all = || [&headings].into_iter().chain(rows);
    let width = |column: usize| all().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut table = String::new();
    for row in all() {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

/// Writes `SHA256SUMS` for all released files in `out`. Removes the signature of other sums.
pub fn sums(out: &Path) -> Result<()> {
    let mut lines = String::new();
    for path in released(out)? {
        let content = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        lines.push_str(&format!("{}  {name}\n", cache::sha256(&content)));
    }
    let path = out.join(SUMS);
    let signature = out.join(format!("{SUMS}.asc"));
    if signature.exists() && fs::read_to_string(&path).ok().as_ref() != Some(&lines) {
        fs::remove_file(&signature).with_context(|| format!("removing {} failed", signature.display()))?;
    }
    fs::write(&path, lines).with_context(|| format!("writing {} failed", path.display()))
}

/// The packages, SBOMs and sources in `out`, sorted. The list is empty if `out` does not exist.
pub fn released(out: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(out) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("listing {} failed", out.display()))?,
    };
    let mut released: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            [".deb", ".spdx.json", ".cdx.json", ".tar.gz"].iter().any(|ending| name.ends_with(ending))
        })
        .collect();
    released.sort();
    Ok(released)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = ["a", "arm64", "musl", "12 B", "9 KiB", "0123", "dist/a.deb"].map(str::to_owned);
        let expected = "package  architecture  C library  executable  size   sha256  path\n\
                        a        arm64         musl       12 B        9 KiB  0123    dist/a.deb\n";
        assert_eq!(render(&[row]), expected);
    }

    #[test]
    fn only_more_than_the_goal_is_too_large() {
        let (checked, goal) = SIZE_GOAL;
        for (architecture, libc, sum) in
            [(checked, "musl", goal), ("amd64", "musl", goal + 1), (checked, "glibc", goal + 1)]
        {
            assert_eq!(too_large(architecture, libc, sum), None);
        }
        assert!(too_large(checked, "musl", goal + 1).unwrap().contains("arm64: 3500001 bytes together"));
    }

    #[test]
    fn sums_have_the_format_of_sha256sum() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("a.deb"), "abc").unwrap();
        fs::write(out.path().join("a.spdx.json"), "abc").unwrap();
        fs::write(out.path().join("note.txt"), "").unwrap();
        fs::write(out.path().join("SHA256SUMS.asc"), "of other sums").unwrap();
        sums(out.path()).unwrap();
        assert!(!out.path().join("SHA256SUMS.asc").exists());
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected = format!("{abc}  a.deb\n{abc}  a.spdx.json\n");
        assert_eq!(fs::read_to_string(out.path().join("SHA256SUMS")).unwrap(), expected);
        fs::write(out.path().join("SHA256SUMS.asc"), "of these sums").unwrap();
        sums(out.path()).unwrap();
        assert!(out.path().join("SHA256SUMS.asc").exists());
    }
}
