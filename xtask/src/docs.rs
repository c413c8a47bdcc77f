//! `cargo xtask docs`: makes the diagrams, and builds the book.

mod book;
mod commands;
mod diagram;
#[cfg(test)]
mod errors;
pub mod fence;
#[cfg(test)]
mod links;
#[cfg(test)]
mod markdown;
#[cfg(test)]
mod reference;

use anyhow::Result;
use clap::Args;
use xshell::Shell;

pub use commands::{Length, run as run_commands};

/// Makes the diagrams of the documentation, and builds the book in target/book
///
/// Compiles mdBook on first use, which takes 5 minutes on 2 cores.
#[derive(Args)]
pub struct Docs {
    /// Makes the diagrams only
    #[arg(long, conflicts_with = "commands")]
    diagrams: bool,
    /// Runs the commands of the pages in temporary directories instead, which takes minutes
    #[arg(long)]
    commands: bool,
}

impl Docs {
    /// Makes the diagrams, and the book or runs the commands.
    pub fn run(self, sh: &Shell) -> Result<()> {
        if self.commands {
            return run_commands(sh, &[Length::Seconds, Length::Minutes]).map(|summary| println!("{summary}"));
        }
        diagram::write(&sh.current_dir())?;
        if self.diagrams { Ok(()) } else { book::build(sh) }
    }
}
