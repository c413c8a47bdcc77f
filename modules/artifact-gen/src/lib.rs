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
    /// The generator that the name of the executable, the first of `arguments`, or the next one says. Invalid options
    /// end the process.
    fn parse_from(arguments: Vec<OsString>) -> Self {
        let program = arguments.first().and_then(|program| Path::new(program).file_name()?.to_str());
        // Under a conventional name, the help and messages have that name.
        let named = commands().into_iter().find(|command| Some(command.get_name()) == program);
        let Some(command) = named else { return Cli::parse_from(arguments).generator };
        let name = command.get_name().to_owned();
        let matches = command.get_matches_from(arguments);
        let parsed = match name.trim_end_matches(SUFFIX) {
            "web-file" => FromArgMatches::from_arg_matches(&matches).map(Self::WebFile),
            "directory" => FromArgMatches::from_arg_matches(&matches).map(Self::Directory),
            "deb" => FromArgMatches::from_arg_matches(&matches).map(Self::Deb),
            _ => FromArgMatches::from_arg_matches(&matches).map(Self::Container),
        };
        parsed.unwrap_or_else(|error| error.exit())
    }

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
    match Generator::parse_from(env::args_os().collect()).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_executable_selects_the_generator() {
        let with = |words: &str| Generator::parse_from(words.split(' ').map(OsString::from).collect());
        assert!(matches!(with("/usr/bin/web-file-artifact-gen -n a -t b c"), Generator::WebFile(_)));
        assert!(matches!(with("directory-artifact-gen -n a -t b -d /srv c"), Generator::Directory(_)));
        assert!(matches!(with("container-artifact-gen -n a -t b --project p c"), Generator::Container(_)));
        assert!(matches!(with("/usr/bin/mender-artifact-gen deb -n a -t b c"), Generator::Deb(_)));
        Cli::command().debug_assert();
        let usage = commands().remove(0).render_usage().to_string();
        assert!(usage.starts_with("Usage: web-file-artifact-gen ["), "{usage}");
    }

    #[test]
    fn every_module_has_a_generator() {
        let names: Vec<_> = commands().iter().map(|command| command.get_name().to_owned()).collect();
        let expected = ["web-file", "directory", "deb", "container"].map(|module| format!("{module}-artifact-gen"));
        assert_eq!(names, expected);
    }
}
