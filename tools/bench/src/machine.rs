//! What it is measured on.

use std::fs;
use std::path::{Path, PathBuf};

use kmb::Failure;

/// The machine, as it says itself.
pub(crate) struct Machine {
    lines: Vec<(String, String)>,
}

impl Machine {
    /// Looks at the machine, and at the file system that holds `dir`.
    pub(crate) fn look(dir: &Path) -> Result<Self, Failure> {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = field(&cpus, "model name").unwrap_or("unknown");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = field(&memory, "MemTotal").unwrap_or("unknown").to_owned();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<&str> = load.split(' ').take(3).collect();
        let dir = dir.canonicalize().map_err(|error| Failure::on(dir, &error))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let line = |name: &str, value: String| (name.to_owned(), value);
        Ok(Self {
            lines: vec![
                line("processor", format!("{model}, {threads} threads")),
                line("memory", memory),
                line("kernel", format!("Linux {}", kernel.trim())),
                line("file system", file_system(&dir, &mounts).unwrap_or_else(|| "unknown".to_owned())),
                line("load average", format!("{} at the start", load.join(" "))),
                line("version", env!("CARGO_PKG_VERSION").to_owned()),
            ],
        })
    }

    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        self.lines.clone()
    }
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// The kind and the device of the innermost mount that holds `dir`. A line of `mountinfo` is
/// `id parent major:minor root mount-point options [...] - kind device options` (proc_pid_mountinfo(5)).
fn file_system(dir: &Path, mounts: &str) -> Option<String> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let point = PathBuf::from(place.split(' ').nth(4)?);
        let mut kind = kind.split(' ');
        let text = format!("{} on {}", kind.next()?, kind.next()?);
        dir.starts_with(&point).then_some((point.components().count(), text))
    };
    // A later mount on the same point hides the earlier one.
    mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_holds_a_directory() {
        let mounts = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:26 / /dev/shm rw - tmpfs shm rw\n\
                      31 22 0:27 / /dev/sh rw - ext2 /dev/vdb rw\n";
        assert_eq!(file_system(Path::new("/dev/shm/x"), mounts).as_deref(), Some("tmpfs on shm"));
        assert_eq!(file_system(Path::new("/dev"), mounts).as_deref(), Some("ext4 on /dev/vda"));
        assert_eq!(file_system(Path::new("/dev"), ""), None);
    }

    #[test]
    fn a_field_is_what_follows_its_colon() {
        assert_eq!(field("a: 1\nmodel name\t: A Chip: fast\n", "model name"), Some("A Chip: fast"));
        assert_eq!(field("a: 1", "b"), None);
    }
}
