//! What goes wrong at the server, and when.

/// A report of the client about a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The status that is reported.
    pub status: &'static str,
    /// Which report of this status it is in its deployment, counted from 1.
    pub number: usize,
}

/// A fault. Each happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection of the next download is closed after this number of bytes of the artifact.
    ConnectionCloses(usize),
    /// The server aborts the deployment when it gets this report, which it refuses as every later one.
    Abort(Moment),
    /// The server is absent from this report on, which it does not answer, until `Server::come_back`.
    AbsentFrom(Moment),
    /// The server is absent after it has answered this report, until `Server::come_back`.
    AbsentAfter(Moment),
}

impl Fault {
    /// The report at which the fault happens.
    fn moment(self) -> Option<Moment> {
        match self {
            Self::ConnectionCloses(_) => None,
            Self::Abort(moment) | Self::AbsentFrom(moment) | Self::AbsentAfter(moment) => Some(moment),
        }
    }
}

/// The faults that have not happened yet.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Takes the faults that happen at the report number `number` of `status`.
    pub(crate) fn at(&mut self, status: &str, number: usize) -> Vec<Fault> {
        let is_now = |fault: &Fault| fault.moment().is_some_and(|at| at.status == status && at.number == number);
        let (now, later) = self.0.iter().copied().partition(is_now);
        self.0 = later;
        now
    }

    /// Takes the number of bytes after which the next download ends.
    pub(crate) fn closed_after(&mut self) -> Option<usize> {
        let first = self.0.iter().position(|fault| fault.moment().is_none())?;
        match self.0.remove(first) {
            Fault::ConnectionCloses(bytes) => Some(bytes),
            _ => None,
        }
    }
}
