//! Why a driver cannot be opened or cannot go on. Every message says what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::directory::DIRECTORY_VERSION;

/// Why a data directory could not be created or a driver could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The data directory does not exist.
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to format in does not exist.
    ParentMissing {
        /// The directory that should be there.
        path: PathBuf,
    },
    /// The directory to be formatted already holds something.
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// There is no identity file, so this is no data directory.
    NotADirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Formatting was interrupted.
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// Written by another release with another layout.
    OtherVersion {
        /// The directory.
        path: PathBuf,
        /// The version it has.
        found: u32,
    },
    /// A file is missing, has the wrong size, or cannot be understood.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Another process has the directory open.
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There is not enough room to format.
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
    },
    /// The file system cannot preallocate or punch holes.
    FileSystem {
        /// The file it was tried on.
        path: PathBuf,
    },
    /// The user may not open a file.
    PermissionDenied {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    Disk {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another process listens there.
    PortInUse {
        /// Where this driver wanted to listen.
        address: SocketAddr,
        /// What for: `replica` or `client`.
        port: &'static str,
    },
    /// The address cannot be listened on, for instance because it is not one of this machine.
    Listen {
        /// Where this driver wanted to listen.
        address: SocketAddr,
        /// What for: `replica` or `client`.
        port: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// io_uring is not to be had.
    Uring(UringRefusal),
    /// Some other resource of the process ran out, such as descriptors.
    Resources {
        /// What the kernel said.
        error: io::Error,
    },
}

/// Why io_uring is not to be had.
#[derive(Debug)]
pub enum UringRefusal {
    /// The kernel was built without it, or a sandbox hides it (`ENOSYS`).
    Absent,
    /// Forbidden to this process (`EPERM`): a sysctl or a seccomp profile.
    Forbidden,
    /// Forbidden by a security module (`EACCES`).
    Denied,
    /// The kernel lacks operations.
    TooOld {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// Not enough locked memory for the queues (`ENOMEM`).
    Memory,
    /// Anything else.
    Other(io::Error),
}

impl UringRefusal {
    pub(crate) fn from_setup(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Absent,
            Some(libc::EPERM) => Self::Forbidden,
            Some(libc::EACCES) => Self::Denied,
            Some(libc::ENOMEM) => Self::Memory,
            Some(libc::EINVAL) => Self::TooOld { missing: vec!["R_DISABLED"] },
            Some(code) => Self::Other(io::Error::from_raw_os_error(code)),
            None => Self::Other(io::Error::other(error.to_string())),
        }
    }
}

impl OpenError {
    /// What an error on a file means.
    pub(crate) fn on(path: &Path, error: io::Error) -> Self {
        let path = path.to_path_buf();
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::Damaged { path, what: "it is missing" },
            Some(libc::ENOSPC | libc::EDQUOT) => Self::DiskFull { path },
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Self::PermissionDenied { path },
            Some(libc::EOPNOTSUPP) => Self::FileSystem { path },
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Self::Resources { error },
            _ => Self::Disk { path, error },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => {
                write!(f, "data directory {} does not exist; format it first", path.display())
            }
            Self::ParentMissing { path } => {
                write!(f, "{} does not exist; create it, then format inside it", path.display())
            }
            Self::NotEmpty { path } => write!(
                f,
                "{} is not empty; format only an empty or new directory, so that nothing is overwritten",
                path.display()
            ),
            Self::NotADirectory { path } => write!(
                f,
                "{} is not a Kimberlite data directory; check the path, or format a new one",
                path.display()
            ),
            Self::Unfinished { path } => write!(
                f,
                "formatting of {} was interrupted; nothing was stored there yet: delete it and format again",
                path.display()
            ),
            Self::OtherVersion { path, found } => write!(
                f,
                "{} has data directory version {found}, this release reads version {DIRECTORY_VERSION}; \
                 run the release that wrote it, or migrate",
                path.display()
            ),
            Self::Damaged { path, what } => write!(
                f,
                "{} is damaged: {what}; restore it, or format a fresh directory and let the cluster refill it",
                path.display()
            ),
            Self::InUse { path } => write!(
                f,
                "data directory {} is in use by another process; stop that one first",
                path.display()
            ),
            Self::DiskFull { path } => {
                write!(f, "no room on the disk for {}; free some space and try again", path.display())
            }
            Self::FileSystem { path } => write!(
                f,
                "the file system of {} cannot preallocate files or punch holes; use ext4, XFS or btrfs",
                path.display()
            ),
            Self::PermissionDenied { path } => {
                write!(f, "no permission to open {}; run as its owner or change its mode", path.display())
            }
            Self::Disk { path, error } => {
                write!(f, "I/O error on {}: {error}; check the disk and the kernel log", path.display())
            }
            Self::PortInUse { address, port } => write!(
                f,
                "the {port} address {address} is in use by another process; stop it or choose another port"
            ),
            Self::Listen { address, port, error } => {
                write!(f, "cannot listen on the {port} address {address}: {error}; choose another address")
            }
            Self::Uring(refusal) => refusal.fmt(f),
            Self::Resources { error } => {
                write!(f, "the process ran out of a resource: {error}; raise its limits (ulimit -n)")
            }
        }
    }
}

impl fmt::Display for UringRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "io_uring is not available (ENOSYS): the kernel lacks it or a sandbox such as gVisor hides it; \
                 run on a Linux kernel 5.11 or later",
            ),
            Self::Forbidden => f.write_str(
                "io_uring is forbidden (EPERM): check `sysctl kernel.io_uring_disabled` (0 allows it), and in \
                 Docker allow it with `--security-opt seccomp=<profile with io_uring>` or `seccomp=unconfined`",
            ),
            Self::Denied => f.write_str(
                "io_uring is denied by a security module (EACCES): allow it in the SELinux or AppArmor policy, \
                 or in the container's seccomp profile",
            ),
            Self::TooOld { missing } => write!(
                f,
                "the kernel's io_uring is too old: it lacks {}; use Linux 5.11 or later",
                missing.join(", ")
            ),
            Self::Memory => f.write_str(
                "not enough locked memory for io_uring (ENOMEM): raise `ulimit -l` or use Linux 5.12 or later",
            ),
            Self::Other(error) => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// The ring itself failed; the driver cannot go on and the process should end.
#[derive(Debug)]
pub struct DriverError {
    pub(crate) error: io::Error,
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.error.raw_os_error() == Some(libc::EEXIST) {
            f.write_str("a driver was used on two threads; it belongs to the one that first waited on it")
        } else {
            write!(f, "io_uring failed: {}; restart the process", self.error)
        }
    }
}

impl std::error::Error for DriverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_io_uring_says_what_to_do() {
        for (code, advice) in [
            (libc::ENOSYS, "5.11 or later"),
            (libc::EPERM, "kernel.io_uring_disabled"),
            (libc::EPERM, "--security-opt seccomp"),
            (libc::EACCES, "SELinux"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EINVAL, "too old"),
        ] {
            let error = OpenError::Uring(UringRefusal::from_setup(&io::Error::from_raw_os_error(code)));
            assert!(error.to_string().contains(advice), "{error}");
        }
        let missing = UringRefusal::TooOld { missing: vec!["ACCEPT", "SENDMSG"] };
        assert!(missing.to_string().contains("ACCEPT, SENDMSG"));
    }

    #[test]
    fn an_error_on_a_file_names_the_file_and_its_kind() {
        let path = Path::new("/data/headers");
        for (code, word) in [
            (libc::ENOENT, "missing"),
            (libc::ENOSPC, "no room"),
            (libc::EDQUOT, "no room"),
            (libc::EACCES, "no permission"),
            (libc::EOPNOTSUPP, "cannot preallocate"),
            (libc::EMFILE, "ulimit -n"),
            (libc::EIO, "check the disk"),
        ] {
            let text = OpenError::on(path, io::Error::from_raw_os_error(code)).to_string();
            assert!(text.contains(word), "{text}");
            assert!(code == libc::EMFILE || text.contains("/data/headers"), "{text}");
        }
    }
}
