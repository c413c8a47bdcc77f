//! Generators of Mender artifacts for the modules `web-file`, `directory`, `deb` and `container`.
//!
//! One executable has all of them. It runs as `web-file-artifact-gen`, by a link of that name, or as `artifact-gen
//! web-file`. A run goes through these files:
//!
//! 1. `generator`: the payload and the meta-data, from files and options.
//! 2. The module's own check: what its Download would refuse is refused here.
//! 3. `platform` and `payload_name`: architectures and file names.
//! 4. `mender_artifact` packs the artifact beside its final name.
//! 5. `summary` shows what was made.
//!
//! All temporary files are in `work`, which removes them on every way out.

mod command;
mod generator;
mod mender_artifact;
mod options;
mod payload_name;
mod platform;
mod progress;
mod run;
mod summary;
mod tar;
mod work;

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use generator::{container::Container, deb::Deb, directory::Directory, web_file::WebFile};

/// The end of the name of every generator.
const SUFFIX: &str = "-artifact-gen";

/// Makes Mender artifacts for the modules web-file, directory, deb and container
///
/// `web-file-artifact-gen` is the same as `artifact-gen web-file`.
#[derive(Parser)]
#[command(name = "artifact-gen", version)]
struct Cli {
    #[command(subcommand)]
    generator: Generator,
}

#[derive(Subcommand)]
enum Generator {
    WebFile(Box<WebFile>),
    Directory(Box<Directory>),
    Deb(Box<Deb>),
    Container(Box<Container>),
}

impl Generator {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::WebFile(generator) => run::run(&*generator),
            Self::Directory(generator) => run::run(&*generator),
            Self::Deb(generator) => run::run(&*generator),
            Self::Container(generator) => run::run(&*generator),
        }
    }
}

/// The command lines of all generators, under their conventional names: for manual pages and completions.
pub fn commands() -> Vec<clap::Command> {
    let generators = Cli::command();
    let named = |command: &clap::Command| {
        let name = format!("{}{SUFFIX}", command.get_name());
        command.clone().name(name.clone()).bin_name(name).version(env!("CARGO_PKG_VERSION"))
    };
    generators.get_subcommands().map(named).collect()
}

/// Runs a generator: the `main` of the executable. The exit code is 0 if the artifact was made, 1 for a failure, 2 for
/// invalid options.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches_from(arguments(env::args_os().collect()));
    let result = Cli::from_arg_matches(&matches).map_err(anyhow::Error::from).and_then(|cli| cli.generator.run());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `arguments` with the generator as the first argument, if the executable's name says which one runs.
fn arguments(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().and_then(|program| Path::new(program).file_name()?.to_str());
    let generator = name.and_then(|name| name.strip_suffix(SUFFIX)).map(OsString::from);
    if let Some(generator) = generator {
        arguments.insert(1, generator);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_executable_selects_the_generator() {
        let with = |words: &[&str]| arguments(words.iter().map(OsString::from).collect());
        assert_eq!(with(&["/usr/bin/web-file-artifact-gen", "a"])[1..], ["web-file", "a"]);
        assert_eq!(with(&["artifact-gen", "deb", "a"])[1..], ["deb", "a"]);
        Cli::command().debug_assert();
    }

    #[test]
    fn every_module_has_a_generator() {
        let names: Vec<_> = commands().iter().map(|command| command.get_name().to_owned()).collect();
        let expected = ["web-file", "directory", "deb", "container"].map(|module| format!("{module}-artifact-gen"));
        assert_eq!(names, expected);
    }
}
