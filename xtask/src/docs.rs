//! `cargo xtask docs`: makes the diagrams, and builds the book.

mod book;
mod diagram;
#[cfg(test)]
mod links;
#[cfg(test)]
mod reference;
mod tutorial;

use anyhow::Result;
use clap::Args;
use xshell::Shell;

pub use tutorial::run as run_tutorial;

/// Makes the diagrams of the documentation, and builds the book in target/book
///
/// Compiles mdBook on first use, which takes 5 minutes on 2 cores.
#[derive(Args)]
pub struct Docs {
    /// Makes the diagrams only
    #[arg(long, conflicts_with = "tutorial")]
    diagrams: bool,
    /// Runs the commands of the tutorial in a temporary directory instead, which takes about 3 minutes
    #[arg(long)]
    tutorial: bool,
}

impl Docs {
    /// Makes the diagrams, and the book or the run of the tutorial.
    pub fn run(self, sh: &Shell) -> Result<()> {
        if self.tutorial {
            return run_tutorial(sh).map(|summary| println!("{summary}"));
        }
        diagram::write(&sh.current_dir())?;
        if self.diagrams { Ok(()) } else { book::build(sh) }
    }
}
