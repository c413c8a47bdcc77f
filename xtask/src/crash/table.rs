//! The results of `cargo xtask crash`, for a terminal and as Markdown.

use std::fmt::Write;

use mender_update_module_test::fault_injection::Report;

/// Whose module it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of this work tree.
    Ours,
    /// Of Debian's mender-client.
    Upstream,
}

impl Whose {
    fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Upstream => "upstream",
        }
    }
}

/// The reports of all modules.
#[derive(Default)]
pub struct Results {
    modules: Vec<(String, Whose, Vec<Report>)>,
}

impl Results {
    /// Adds the reports of a module.
    pub fn add(&mut self, name: &str, whose: Whose, reports: Vec<Report>) {
        self.modules.push((name.to_owned(), whose, reports));
    }

    /// Everything of one side in one report.
    pub fn total(&self, whose: Whose) -> Report {
        let mut total = Report::default();
        for (_, side, reports) in &self.modules {
            if *side == whose {
                reports.iter().for_each(|report| total += report);
            }
        }
        total
    }

    /// One line for each sequence, and one for each module.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (name, whose, reports) in &self.modules {
            let mut total = Report::default();
            for report in reports {
                total += report;
                let _ = writeln!(text, "    {:<70} {report}", report.sequence); // to a String: no error
            }
            let _ = writeln!(text, "{name} ({}): {total}", whose.word());
        }
        text.trim_end().to_owned()
    }

    /// The report: the faults and the outcomes.
    pub fn markdown(&self, upstream_points: usize) -> String {
        let mut text = format!(
            "# Fault injection\n\n\
             - **crash points**: all of a module's processes are killed before each call that changes the device or syncs, \
             and after the last. After call N is before call N+1, and counted once. A pair of interruptions is one. Of \
             upstream modules about {upstream_points} in a sequence, every k-th; among all modules, of container at \
             most 40 of each kind in a sequence, and of deb at most 4 of one kind, evenly spread: all with `--module`. \
             deb runs in a chroot with the real dpkg and apt; container with mocks of an engine and systemd.\n\
             - **failing calls**: the same calls, each with ENOSPC and with EIO, alone and with all later ones: what \
             needs space, or with EROFS any change; and the calls that read the device, each with EIO.\n\
             - **unsynced writes lost**: different states of the device after a power loss that has lost the writes which \
             were not synced, or whose sync has failed; those that a kill leaves too are not counted.\n\
             - **previous**, **new**: attempts that ended, after all calls of the client that follow, with exactly the \
             version that they have to. **inconsistent**: all others; in brackets, how many of them \
             end in the same way without an interruption. `not tested`: the sample has no fault for the sequence.\n\n\
             | module | sequence | crash points | failing calls | unsynced writes lost | previous | new | inconsistent |\n\
             |---|---|--:|--:|--:|--:|--:|--:|\n"
        );
        for (name, whose, reports) in &self.modules {
            let mut total = Report::new("**all**");
            for report in reports {
                text += &row(name, *whose, report);
                total += report;
            }
            text += &row(name, *whose, &total);
        }
        for (name, whose, reports) in &self.modules {
            for report in reports.iter().filter(|report| !report.violations.is_empty()) {
                let _ = writeln!(text, "\n## Inconsistent: {name} ({}), {}\n", whose.word(), report.sequence);
                for violation in &report.violations {
                    let _ = writeln!(text, "- {}", violation.to_string().replace('\n', " "));
                }
            }
        }
        text
    }
}

fn row(name: &str, whose: Whose, report: &Report) -> String {
    let Report { sequence, crash_points, failing_calls, lost_writes, previous, new, violations, .. } = report;
    let same = report.without_interruption;
    let same = if same > 0 { format!(" ({same})") } else { String::new() };
    let bad = if report.is_untested() { "not tested".to_owned() } else { format!("{}{same}", violations.len()) };
    let whose = whose.word();
    format!(
        "| {name} ({whose}) | {sequence} | {crash_points} | {failing_calls} | {lost_writes} | {previous} | {new} | {bad} |\n"
    )
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::fault_injection::Violation;

    use super::*;

    #[test]
    fn every_sequence_and_every_inconsistent_outcome_is_reported() {
        let mut results = Results::default();
        let mut report = Report::new("update: Download");
        let violation = Violation { attempt: "killed before call 2".to_owned(), end: "neither".to_owned() };
        (report.crash_points, report.previous, report.violations) = (3, 2, vec![violation]);
        results.add("web-file", Whose::Ours, vec![report.clone(), report.clone()]);
        results.add("web-file", Whose::Ours, vec![Report::new("update: Cleanup")]);
        report.without_interruption = 1;
        results.add("directory", Whose::Upstream, vec![report]);
        let text = results.markdown(100);
        for part in [
            "| web-file (ours) | update: Download | 3 | 0 | 0 | 2 | 0 | 1 |\n",
            "| web-file (ours) | **all** | 6 | 0 | 0 | 4 | 0 | 2 |\n",
            "| web-file (ours) | update: Cleanup | 0 | 0 | 0 | 0 | 0 | not tested |\n",
            "| directory (upstream) | update: Download | 3 | 0 | 0 | 2 | 0 | 1 (1) |\n",
            "## Inconsistent: directory (upstream), update: Download\n\n- killed before call 2: neither\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(results.total(Whose::Ours).crash_points, 6);
    }
}
