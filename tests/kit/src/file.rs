//! Reading a file that a module should have written.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// The text of the regular file at `path`.
///
/// # Errors
/// When it is not a regular file: the open of a FIFO, which a module left there, would wait without a limit. When it
/// cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let failed = || format!("reading {} failed", path.display());
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let mut file = File::from(file.with_context(failed)?);
    ensure!(file.metadata().with_context(failed)?.is_file(), "{} is not a regular file", path.display());
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn a_fifo_is_an_error_instead_of_a_wait() {
        let directory = tempfile::tempdir().unwrap();
        let [file, fifo] = ["file", "fifo"].map(|name| directory.path().join(name));
        fs::write(&file, "text").unwrap();
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(read_text(&file).unwrap(), "text");
        assert!(format!("{:#}", read_text(&fifo).unwrap_err()).contains("is not a regular file"));
        assert!(format!("{:#}", read_text(&directory.path().join("missing")).unwrap_err()).contains("missing failed"));
    }
}
