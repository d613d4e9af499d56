//! Why a command did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use kimberlite_client::ClientError;
use kimberlite_io_real::{DriverError, OpenError};

/// The exit codes. 0 is success and 2 is also what the argument parser ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The thing itself failed, or damage was found.
    Failed = 1,
    /// The command line asks for what makes no sense.
    Usage = 2,
    /// No node could be reached, or none answered in time.
    Unreachable = 3,
    /// A file or a terminal failed.
    Io = 5,
}

/// A command's end, with what to tell the person who gave it.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The thing itself failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The command line asks for what makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// An error on a file.
    pub fn on(path: &Path, error: &io::Error) -> Self {
        Self::new(Kind::Io, format!("{}: {error}", path.display()))
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Missing { .. }
            | OpenError::ParentMissing { .. }
            | OpenError::NotEmpty { .. }
            | OpenError::NotADirectory { .. }
            | OpenError::Unfinished { .. }
            | OpenError::OtherVersion { .. }
            | OpenError::Damaged { .. }
            | OpenError::InUse { .. }
            | OpenError::PortInUse { .. }
            | OpenError::Listen { .. } => Kind::Failed,
            OpenError::DiskFull { .. }
            | OpenError::FileSystem { .. }
            | OpenError::PermissionDenied { .. }
            | OpenError::Disk { .. }
            | OpenError::Uring(_)
            | OpenError::Resources { .. } => Kind::Io,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        Self::new(Kind::Io, error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let kind = match error {
            ClientError::GaveUp { .. } => Kind::Unreachable,
            ClientError::QueueFull
            | ClientError::TooLarge
            | ClientError::Evicted
            | ClientError::WrongReplica => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}
