//! The diagrams of the documentation, made from the tables that the suites run on.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use host::directory;
use mender_update_module_test::fault_injection::{BOOT, End, Expected, SEQUENCES, Sequence};
use mender_update_module_test::protocol::TRANSITIONS;

/// Colours that are readable on light and on dark backgrounds; the viewer's colour scheme selects them.
const STYLE: &str = "\
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
.small { font-size: 12px; fill: #6e7781; }
rect { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5; }
.previous { fill: #fff1e5; stroke: #bc4c00; }
.new { fill: #dafbe1; stroke: #1a7f37; }
.lost { fill: #ffebe9; stroke: #cf222e; }
path { fill: none; stroke: #6e7781; stroke-width: 1.5; marker-end: url(#arrow); }
.failure { stroke: #cf222e; stroke-dasharray: 5 3; }
marker path { fill: #6e7781; stroke: none; marker-end: none; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .small { fill: #9198a1; }
rect { fill: #161b22; stroke: #9198a1; }
.previous { fill: #3d1300; stroke: #db6d28; } .new { fill: #04260f; stroke: #3fb950; }
.lost { fill: #490202; stroke: #f85149; }
path { stroke: #9198a1; } .failure { stroke: #f85149; } marker path { fill: #9198a1; }
}";

/// The width and height of a box.
const BOX: (u32, u32) = (148, 40);

/// The distance between the left edges of two boxes.
const COLUMN: u32 = 184;

/// The diagrams: their paths in the work tree, and their contents.
pub fn all() -> [(&'static str, String); 2] {
    [("docs/concepts/states.svg", states()), ("docs/concepts/power-loss.svg", power_loss())]
}

/// Writes the diagrams to the work tree `root`.
pub fn write(root: &Path) -> Result<()> {
    all().into_iter().try_for_each(|(path, content)| directory::write(&root.join(path), content))
}

struct Svg(String);

impl Svg {
    fn new(width: u32, height: u32, title: &str) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
             <title>{title}</title>\n<style>\n{STYLE}\n</style>\n<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" \
             refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\"/></marker></defs>\n"
        ))
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.0, "{line}"); // to a String: no error
    }

    fn state(&mut self, (x, y): (u32, u32), class: &str, name: &str) {
        let (width, height) = BOX;
        let (middle, baseline) = (x + width / 2, y + height / 2 + 5);
        self.line(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" class=\"{class}\"/>"
        ));
        self.line(&format!("<text x=\"{middle}\" y=\"{baseline}\" text-anchor=\"middle\">{name}</text>"));
    }

    fn text(&mut self, (x, y): (u32, u32), text: &str) {
        self.line(&format!("<text x=\"{x}\" y=\"{y}\" class=\"small\">{text}</text>"));
    }

    fn arrow(&mut self, class: &str, points: &str) {
        self.line(&format!("<path class=\"{class}\" d=\"M{points}\"/>"));
    }

    fn end(mut self) -> String {
        self.line("</svg>");
        self.0
    }
}

/// The state machine: the update in the first row, the rollback in the second.
fn states() -> String {
    let mut svg = Svg::new(4 * COLUMN, 230, "The states of an update");
    let rollback = |state: &str| matches!(state, "ArtifactRollback" | "ArtifactFailure");
    let position = |state: &str| {
        let column = match state {
            "Download" => 0,
            "ArtifactInstall" | "ArtifactRollback" => 1,
            "ArtifactCommit" | "ArtifactFailure" => 2,
            _ => 3,
        };
        (column * COLUMN + 10, if rollback(state) { 140 } else { 30 })
    };
    for transition in TRANSITIONS {
        let class = if rollback(transition.state) { "previous" } else { "" };
        svg.state(position(transition.state), class, transition.state);
    }
    let (width, height) = BOX;
    for transition in TRANSITIONS {
        let (x, y) = position(transition.state);
        if let Some(next) = transition.after_success {
            let (to, row) = position(next);
            if row == y {
                svg.arrow("", &format!("{} {} H{to}", x + width, y + height / 2));
            } else {
                svg.arrow("", &format!("{} {} H{} V{}", x + width, y + height / 2, to + width / 2, row + height));
            }
        }
        let failure = transition.after_failure.filter(|next| transition.after_success != Some(*next));
        match failure {
            Some("ArtifactRollback") => {
                let (to, row) = position("ArtifactRollback");
                let x = x + width / 2;
                let to = if x == to + width / 2 { x } else { to + width - 20 };
                let between = y + height + 30;
                svg.arrow("failure", &format!("{x} {} V{between} H{to} V{row}", y + height));
            }
            Some(next) => {
                let (to, row) = position(next);
                svg.arrow("failure", &format!("{} {y} V12 H{} V{row}", x + width / 2, to + width / 2));
            }
            None => {}
        }
    }
    svg.text(
        (10, 205),
        "solid: after success; dashed: after a failure, or a power loss in ArtifactInstall or ArtifactCommit",
    );
    svg.end()
}

/// The power-loss paths: a row for each sequence of fault injection.
fn power_loss() -> String {
    let row = BOX.1 + 30;
    let height = row * SEQUENCES.len() as u32 + 20;
    let widest = SEQUENCES.iter().map(|sequence| sequence.after_power_loss.0.len()).max().unwrap_or_default() as u32;
    let mut svg =
        Svg::new((widest + 2) * COLUMN, height, "What is called after a power loss, and the active version at the end");
    for (index, Sequence { name, interrupted, after_power_loss: (states, end), .. }) in SEQUENCES.iter().enumerate() {
        let y = index as u32 * row + 30;
        svg.text((10, y - 8), &format!("power loss in {name}"));
        svg.state((10, y), "lost", interrupted);
        for (column, state) in (1..).zip(*states) {
            let name = if *state == BOOT { "recovery at boot" } else { state };
            svg.state((column * COLUMN + 10, y), "", name);
        }
        let columns = states.len() as u32 + 1;
        let (class, version) = match end {
            Expected::Only(End::Previous) => ("previous", "previous version"),
            Expected::Only(End::New) => ("new", "new version"),
            Expected::AsAfterBoot => ("", "as after the boot"),
        };
        svg.state((columns * COLUMN + 10, y), class, version);
        for column in 1..=columns {
            let (from, to) = ((column - 1) * COLUMN + 10 + BOX.0, column * COLUMN + 10);
            svg.arrow("", &format!("{from} {} H{to}", y + BOX.1 / 2));
        }
    }
    svg.end()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_committed_diagrams_are_those_of_the_tables() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for (path, content) in all() {
            let committed = fs::read_to_string(root.join(path)).unwrap_or_default();
            assert!(committed == content, "{path} is out of date: run cargo xtask docs --diagrams");
        }
    }

    #[test]
    fn every_state_is_in_the_state_machine() {
        let svg = states();
        for transition in TRANSITIONS {
            assert!(svg.contains(&format!(">{}</text>", transition.state)), "{}", transition.state);
        }
    }
}
