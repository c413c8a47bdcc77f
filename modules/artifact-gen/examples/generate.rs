//! Writes the manual pages and the completions of all generators to `debian/artifact-gen`, or to the directory in the
//! first argument. They are in the repository, so that a package needs no program of the workstation to be built.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::{Shell, generate};
use clap_mangen::Man;

fn main() -> io::Result<()> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/artifact-gen");
    write(&std::env::args_os().nth(1).map_or(default, PathBuf::from))
}

fn write(directory: &Path) -> io::Result<()> {
    for mut command in artifact_gen::commands() {
        let name = command.get_name().to_owned();
        let mut page = Vec::new();
        // Without the version, which a release raises.
        let man = Man::new(command.clone()).date("").source("").manual("Mender Update Modules");
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        let mut files = vec![("man", format!("{name}.1"), page)];
        let shells = [
            ("bash", Shell::Bash, name.clone()),
            ("zsh", Shell::Zsh, format!("_{name}")),
            ("fish", Shell::Fish, format!("{name}.fish")),
        ];
        for (directory, shell, file) in shells {
            let mut completions = Vec::new();
            generate(shell, &mut command, &name, &mut completions);
            files.push((directory, file, completions));
        }
        for (kind, file, content) in files {
            fs::create_dir_all(directory.join(kind))?;
            fs::write(directory.join(kind).join(file), content)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_files_are_current() {
        let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/artifact-gen");
        let made = tempfile::tempdir().unwrap();
        write(made.path()).unwrap();
        let mut count = 0;
        for kind in fs::read_dir(made.path()).unwrap().map(|entry| entry.unwrap().path()) {
            for file in fs::read_dir(&kind).unwrap().map(|entry| entry.unwrap().path()) {
                let other = packaged.join(file.strip_prefix(made.path()).unwrap());
                let same = fs::read(&other).is_ok_and(|content| content == fs::read(&file).unwrap());
                assert!(same, "{}: run cargo run --package artifact-gen --example generate", other.display());
                count += 1;
            }
        }
        assert_eq!(count, 16);
    }
}
