//! Attempts in which unsynced writes are lost: at a power loss in a state, at a sync that fails, and in the call that
//! follows an interrupted install.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use crate::MockClient;
use crate::fault_injection::drive::{finish, prepared};
use crate::fault_injection::image::{Image, Kind};
use crate::fault_injection::lost::{self, Losses, State};
use crate::fault_injection::operation::{Call, Recording};
use crate::fault_injection::report::{Attempt, Report};
use crate::fault_injection::scope::FaultKind;
use crate::fault_injection::sequence::{End, Expected, SEQUENCES, SecondInterruption, Sequence};
use crate::fault_injection::{Fault, Injection, Scope, crash_points};

/// The states with unsynced writes lost of one sequence are divided into at most so many parts, which run in parallel.
const PARTS: usize = 4;

/// The smallest size of a part: each part makes a recording of its own.
const PART: usize = 16;

/// Whether the state had ended, what was lost, and the outcome.
type Loss = (bool, String, Result<End>);

impl Injection<'_> {
    /// The losses of unsynced writes in every sequence.
    pub fn lost_writes(&self, scope: Scope, reports: &mut [Report]) -> Result<()> {
        let count = scope.sample.div_ceil(PART).min(PARTS);
        let sequences = (0..SEQUENCES.len()).filter(|index| scope.has(FaultKind::LostWrites, *index));
        let parts: Vec<_> = sequences.flat_map(|index| (0..count).map(move |part| (index, part))).collect();
        let lost = |&(index, part): &(usize, usize)| self.lost_in(&SEQUENCES[index], scope, part, count);
        let lost: Vec<_> = parts.par_iter().map(lost).collect();
        let mut recorded = vec![None; SEQUENCES.len()];
        for ((index, _), lost) in parts.into_iter().zip(lost) {
            let (sequence, (calls, ends)) = (&SEQUENCES[index], lost?);
            // Each part has its own recording, and the parts cover every state only if all recordings are the same.
            if let Some(difference) = difference(recorded[index].get_or_insert_with(|| calls.clone()), &calls) {
                let name = sequence.name;
                bail!(
                    "losing unsynced writes failed: {name:?}: the module makes different calls each time: {difference}"
                );
            }
            for (complete, shown, end) in ends {
                let (_, expected) = if complete { sequence.after_success } else { sequence.after_power_loss };
                reports[index].add(Attempt::LostWrites, expected, shown, end);
            }
        }
        Ok(())
    }

    /// The calls of `sequence`, and the outcomes of losses of unsynced writes in one of `of` parts. All of a part are
    /// laid out on the device on which they were recorded, because a journal contains paths.
    fn lost_in(&self, sequence: &Sequence, scope: Scope, part: usize, of: usize) -> Result<(Vec<String>, Vec<Loss>)> {
        let mut device = self.subject.device()?;
        device.set_generation(sequence.client);
        // What an earlier state has not synced may still be lost in this one.
        let mut recording: Option<Recording> = None;
        let mut first = 1;
        for state in sequence.before.iter().chain([&sequence.interrupted]) {
            let next = self.tracer.record(self.subject, &mut device, state)?;
            first = recording.as_ref().map_or(1, |earlier| earlier.calls.len() + 1);
            recording = Some(match recording {
                Some(earlier) => earlier.followed_by(next),
                None => next,
            });
        }
        let recording = recording.context("a sequence without states")?;
        let client = ClientFiles::of(&recording, &device)?;
        let losses = Losses::new(&recording, first, &data(&device));
        let end = |state: &State| {
            let device = LaidOut::new(&state.image, &device)?;
            if state.complete || !sequence.before.is_empty() {
                client.write()?;
            }
            let (states, _) = if state.complete { sequence.after_success } else { sequence.after_power_loss };
            device.finish(self, states)
        };
        let own = losses.states(scope.groups_of(losses.all())).skip(part).step_by(of);
        let ends = own.map(|state| (state.complete, state.shown.clone(), end(&state))).collect();
        Ok((recording.calls.iter().skip(first - 1).map(|call| call.shown.clone()).collect(), ends))
    }

    /// Lets each sync of every sequence fail, and loses what it had to make durable.
    pub fn failed_syncs(&self, scope: Scope, reports: &mut [Report]) -> Result<()> {
        let of_sequence = |(index, sequence): (usize, &Sequence)| -> Result<Vec<_>> {
            if !scope.has(FaultKind::FailedSyncs, index) {
                return Ok(Vec::new());
            }
            let mut device = prepared(self.subject, sequence)?;
            let calls = self.tracer.record(self.subject, &mut device, sequence.interrupted)?.calls;
            let own = |call: &Call| call.is_sync && self.subject.is_sync_of_module(&call.shown);
            let syncs: Vec<_> = (1..).zip(&calls).filter(|(_, call)| own(call)).collect();
            let end = |(number, call): (usize, &Call)| self.failed_sync(sequence, number, &call.shown);
            let ends: Vec<_> = scope.of_recordings().of(syncs).into_par_iter().map(end).collect();
            Ok(ends.into_iter().flatten().collect())
        };
        let ends: Vec<_> = SEQUENCES.par_iter().enumerate().map(of_sequence).collect();
        for (ends, report) in ends.into_iter().zip(reports) {
            for (expected, shown, end) in ends? {
                report.add(Attempt::LostWrites, expected, shown, end);
            }
        }
        Ok(())
    }

    /// Lets the sync that is call number `failing` fail, and loses what it had to make durable; once with everything
    /// else kept, and once with all other unsynced writes lost.
    fn failed_sync(&self, sequence: &Sequence, failing: usize, call: &str) -> Vec<(Expected, String, Result<End>)> {
        let record = || -> Result<_> {
            let mut device = prepared(self.subject, sequence)?;
            let data = data(&device);
            let (recording, success) =
                self.tracer.record_failing(self.subject, &mut device, sequence.interrupted, failing, &data)?;
            Ok((device, recording, success))
        };
        let shown = format!("call {failing} ({call}) failed and lost its data");
        let (device, recording, success) = match record() {
            Ok(recorded) => recorded,
            Err(error) => return vec![(sequence.after_power_loss.1, shown, Err(error))],
        };
        let (states, expected) = if success { sequence.after_success } else { sequence.after_power_loss };
        let client = match ClientFiles::of(&recording, &device) {
            Ok(client) => client,
            Err(error) => return vec![(expected, shown, Err(error))],
        };
        let reported = if success { "success" } else { "failure" };
        let end = |image: Image| {
            let device = LaidOut::new(&image, &device)?;
            client.write()?;
            device.finish(self, states)
        };
        let images = lost::after_failed_sync(&recording, &data(&device)).into_iter();
        images.map(|image| (expected, format!("{shown}, {reported} was reported"), end(image))).collect()
    }

    /// Interrupts the first state of `second`, and loses unsynced writes in the state that follows.
    pub fn lost_in_second(&self, second: &SecondInterruption, scope: Scope) -> Result<Report> {
        let SecondInterruption { first: earlier, state, .. } = second;
        let scope = scope.of_recordings().of_each();
        let firsts = scope.of(crash_points(&self.tracer.list(self.subject, &mut self.before(second)?, earlier)?));
        let ends: Vec<_> = firsts.par_iter().map(|first| self.lost_after(second, *first, scope)).collect();
        let mut report = Report::new(format!(
            "{}: {earlier} interrupted, and then unsynced writes of {state} lost",
            self.subject.name()
        ));
        for lost in ends {
            for (shown, end) in lost? {
                report.add(Attempt::LostWrites, Expected::Only(End::Previous), shown, end);
            }
        }
        Ok(report)
    }

    /// Interrupts the first state of `second` with `fault`, and loses unsynced writes in the state that follows; also
    /// those of the first state, if only the module was killed.
    fn lost_after(
        &self,
        second: &SecondInterruption,
        fault: Fault,
        scope: Scope,
    ) -> Result<Vec<(String, Result<End>)>> {
        let SecondInterruption { first: earlier, state, .. } = second;
        let mut device = self.before(second)?;
        let (killed, after_success) = match (second.after_success, fault) {
            (Some(states), Fault::KillBefore(point)) => {
                (Some(self.tracer.record_killed(self.subject, &mut device, earlier, point)?), Some(states))
            }
            _ => {
                self.tracer.inject(self.subject, &mut device, earlier, fault)?;
                (None, None)
            }
        };
        // dpkg removes an empty /opt, and the rollback makes it again: without it, nothing in it can be recorded.
        if self.subject.recorded().iter().any(|top| !device.device().join(top).is_dir()) {
            return Ok(Vec::new());
        }
        let later = self.tracer.record(self.subject, &mut device, state)?;
        let begin = killed.as_ref().map_or(1, |killed| killed.calls.len() + 1);
        let recording = match killed {
            Some(killed) => killed.followed_by(later),
            None => later,
        };
        let losses = Losses::new(&recording, begin, &data(&device));
        // What the state alone has reported as done is tested in the sequences.
        let all = losses.all().into_iter().filter(|loss| !loss.complete || after_success.is_some()).collect();
        let end = |lost: &State| {
            let states = after_success.filter(|_| lost.complete).unwrap_or(second.after_power_loss);
            LaidOut::new(&lost.image, &device)?.finish(self, states)
        };
        let states = losses.states(scope.groups_of(all));
        Ok(states.map(|lost| (format!("{earlier} {fault}, {state}: {}", lost.shown), end(&lost))).collect())
    }
}

/// The path of the client's data, relative to `device`.
fn data(device: &MockClient) -> PathBuf {
    device.datastore().strip_prefix(device.device()).map(Path::to_owned).unwrap_or_default()
}

/// A device after a power loss, with a file that has the inode number of a lost one.
struct LaidOut<'a> {
    device: &'a MockClient,
    other: PathBuf,
}

impl<'a> LaidOut<'a> {
    /// Replaces the content of `device` with `image`.
    fn new(image: &Image, device: &'a MockClient) -> Result<Self> {
        // The content of a device is replaced, but not a Debian system's temporary directory. In the end the file is in
        // a directory that no module changes and no comparison includes.
        let (before, after) = match device.system() {
            Some(_) => (device.device().join("tmp"), device.device().join("tmp")),
            None => (device.device().parent().unwrap_or(Path::new("/")).to_owned(), device.settings()),
        };
        let outside = tempfile::NamedTempFile::new_in(before).context("making a file of another program failed")?;
        let reused = outside.as_file().metadata().context("reading a file of another program failed")?.ino();
        image.write_to(device.device(), reused).context("laying out the durable writes failed")?;
        fs::create_dir_all(&after).context("making a directory of another program failed")?;
        let other = after.join("of another program");
        outside.persist(&other).context("moving a file to the device failed")?;
        Ok(Self { device, other })
    }

    /// Calls `states` and returns the outcome.
    fn finish(&self, injection: &Injection, states: &[&str]) -> Result<End> {
        let end = finish(injection.subject, self.device, states, &injection.versions)?;
        ensure!(self.other.exists(), "a file of another program was removed, which had the inode number of a lost one");
        Ok(end)
    }
}

/// What the client has written to the work tree after the module's calls: a recording does not have it.
struct ClientFiles(Vec<(PathBuf, Vec<u8>)>);

impl ClientFiles {
    /// Compares `device`, on which `recording` was made, with the recording.
    ///
    /// # Errors
    /// When something outside the work tree is not explained by the recording.
    fn of(recording: &Recording, device: &MockClient) -> Result<Self> {
        let recorded = lost::complete(recording).listing();
        let found = Image::of(device.device(), recording.before.tops.keys())?.listing();
        let mut files = Vec::new();
        for path in recorded.keys().chain(found.keys()).filter(|path| recorded.get(*path) != found.get(*path)) {
            let absolute = device.device().join(path);
            if !absolute.starts_with(device.tree()) && !device.tree().starts_with(&absolute) {
                bail!("recording failed: {}: changed by a call that the tracer does not know", path.display());
            }
            if let (None, Some(Kind::File(content))) = (recorded.get(path), found.get(path).map(|inode| &inode.kind)) {
                files.push((absolute, content.clone()));
            }
        }
        Ok(Self(files))
    }

    /// Writes the files again.
    fn write(&self) -> Result<()> {
        for (path, content) in &self.0 {
            let writing = || format!("writing {} failed", path.display());
            let directory = path.parent().with_context(writing)?;
            fs::create_dir_all(directory).and_then(|()| fs::write(path, content)).with_context(writing)?;
        }
        Ok(())
    }
}

/// The first call in which two recordings of the same state differ. Names may differ: a module may make random ones.
fn difference(first: &[String], second: &[String]) -> Option<String> {
    let what =
        |calls: &[String], call| calls.get(call).and_then(|call: &String| call.split(' ').next().map(str::to_owned));
    let call = (0..first.len().max(second.len())).find(|&call| what(first, call) != what(second, call))?;
    let [first, second] = [first, second].map(|calls| calls.get(call).map_or("nothing", String::as_str));
    Some(format!("call {} is {first} or {second}", call + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_differ_in_calls_and_not_in_names() {
        let calls = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(difference(&calls(&["make a", "write a"]), &calls(&["make b", "write b"])), None);
        let longer = difference(&calls(&["make a"]), &calls(&["make b", "write b"])).unwrap();
        assert_eq!(longer, "call 2 is nothing or write b");
        let other = difference(&calls(&["make a"]), &calls(&["remove a"])).unwrap();
        assert_eq!(other, "call 1 is make a or remove a");
    }
}
