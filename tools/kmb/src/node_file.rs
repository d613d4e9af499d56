//! What a node must know about itself before it can open its data directory: two small files in it.
//!
//! ```text
//! node.json     cluster, replica, replicas, layout, sessions: what the directory was formatted for
//! link.secret   the cluster's link secret: 64 hexadecimal digits; for its owner alone (mode 0600)
//! ```
//!
//! Both are written when the directory is formatted, the first one last of all files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kimberlite_types::limits::PIPELINE_MAX;
use kimberlite_types::{ClusterId, Config, Layout, ReplicaId, Timing};
use kimberlite_wire::REPLAY_SECRET;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Failure, random};

/// The version of `node.json`.
const NODE_FILE_VERSION: u32 = 1;
const NODE_FILE: &str = "node.json";
const SECRET_FILE: &str = "link.secret";

/// Client sessions a cluster keeps: four for each connection that one node serves.
const SESSIONS_MAX: u32 = 4096;

/// The cluster's link secret, wiped from memory when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// The contents of `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeFile {
    version: u32,
    cluster: String,
    pub(crate) replica: u8,
    pub(crate) replicas: u8,
    layout: Layout,
    sessions_max: u32,
}

impl NodeFile {
    /// For a new directory.
    pub(crate) fn new(cluster: ClusterId, replica: u8, replicas: u8, layout: Layout) -> Self {
        Self {
            version: NODE_FILE_VERSION,
            cluster: cluster.to_string(),
            replica,
            replicas,
            layout,
            sessions_max: SESSIONS_MAX,
        }
    }

    /// The configuration of a node with this directory.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let config = Config {
            cluster: parse_cluster(&self.cluster).map_err(Failure::failed)?,
            replica: ReplicaId(self.replica),
            replicas: self.replicas,
            layout: self.layout,
            timing: Timing::PRODUCTION,
            pipeline_max: PIPELINE_MAX as u8,
            sessions_max: self.sessions_max,
        };
        config.check().map_err(|error| Failure::failed(format!("{NODE_FILE}: {error}")))?;
        Ok(config)
    }

    /// Reads the file of a directory.
    pub(crate) fn read(data: &Path) -> Result<Self, Failure> {
        let path = data.join(NODE_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_formatted(data)),
            Err(error) => return Err(Failure::on(&path, &error)),
        };
        let damaged = |why: String| {
            Failure::failed(format!("{} cannot be understood: {why}; restore it from a copy", path.display()))
        };
        let file: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if file.version != NODE_FILE_VERSION {
            let found = file.version;
            return Err(Failure::failed(format!(
                "{} has version {found}, this release reads {NODE_FILE_VERSION}; run the release that wrote it",
                path.display()
            )));
        }
        Ok(file)
    }

    /// Writes the file, durable when this returns.
    pub(crate) fn write(&self, data: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).expect("plain values are JSON");
        write_durably(&data.join(NODE_FILE), format!("{text}\n").as_bytes(), 0o644)
    }
}

fn not_formatted(data: &Path) -> Failure {
    let shown = data.display();
    Failure::failed(if !data.exists() {
        format!("data directory {shown} does not exist; run `kmb format --data {shown}` first")
    } else if data.join("kimberlite.dir").exists() || data.join("kimberlite.dir.unfinished").exists() {
        format!("formatting of {shown} was interrupted; nothing was stored yet: delete it and format again")
    } else {
        format!("{shown} is not a Kimberlite data directory; check the path, or run `kmb format`")
    })
}

/// A cluster id: 1 to 32 hexadecimal digits.
pub(crate) fn parse_cluster(text: &str) -> Result<ClusterId, String> {
    match u128::from_str_radix(text, 16) {
        Ok(0) => Err("a cluster's id is not zero".to_owned()),
        Ok(id) => Ok(ClusterId(id)),
        Err(_) => Err(format!("`{text}` is no cluster id: 1 to 32 hexadecimal digits")),
    }
}

/// The link secret of a data directory.
pub(crate) fn read_own_secret(data: &Path) -> Result<Secret, Failure> {
    read_secret(&data.join(SECRET_FILE))
}

/// Stores the link secret in a data directory.
pub(crate) fn write_own_secret(data: &Path, secret: &Secret) -> Result<(), Failure> {
    write_secret(&data.join(SECRET_FILE), secret)
}

/// The link secret in `path`, made there if the file does not exist.
pub(crate) fn shared_secret(path: &Path) -> Result<Secret, Failure> {
    if path.exists() {
        return read_secret(path);
    }
    let secret = random::bytes::<32>()?;
    write_secret(path, &secret)?;
    Ok(secret)
}

fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let mut file = File::open(path).map_err(|error| Failure::on(path, &error))?;
    let mode = file.metadata().map_err(|error| Failure::on(path, &error))?.mode();
    if mode & 0o077 != 0 {
        return Err(Failure::failed(format!(
            "{} may be read by others (mode {:03o}); run `chmod 600` on it, and consider the secret known",
            path.display(),
            mode & 0o777
        )));
    }
    let mut text = Zeroizing::new([0; 65]);
    let mut filled = 0;
    while filled < text.len() {
        match file.read(&mut text[filled..]).map_err(|error| Failure::on(path, &error))? {
            0 => break,
            count => filled += count,
        }
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut secret = Zeroizing::new([0; 32]);
    for (index, byte) in secret.iter_mut().enumerate() {
        let (Some(high), Some(low)) = (digit(text[2 * index]), digit(text[2 * index + 1])) else {
            return Err(Failure::failed(format!(
                "{} holds no link secret: 64 hexadecimal digits are expected",
                path.display()
            )));
        };
        *byte = high << 4 | low;
    }
    // Frames of recordings carry authenticators under this one, which everybody knows.
    if *secret == REPLAY_SECRET {
        return Err(Failure::failed(format!(
            "{} holds the secret that recordings are replayed with, which everybody knows; make another one",
            path.display()
        )));
    }
    Ok(secret)
}

fn write_secret(path: &Path, secret: &Secret) -> Result<(), Failure> {
    let mut text = Zeroizing::new([b'\n'; 65]);
    for (index, byte) in secret.iter().enumerate() {
        text[2 * index] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[2 * index + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    write_durably(path, text.as_slice(), 0o600)
}

/// Writes a new file under its name only when it is complete and durable.
fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path))
        .and_then(|()| File::open(parent)?.sync_all())
        .map_err(|error| Failure::on(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_node_file_survives_its_writing_and_another_version_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let file = NodeFile::new(ClusterId(0xabc), 2, 3, Layout::SMALL);
        file.write(data.path()).unwrap();
        assert_eq!(NodeFile::read(data.path()).unwrap(), file);
        assert_eq!(file.config().unwrap().cluster, ClusterId(0xabc));
        NodeFile { version: 9, ..file }.write(data.path()).unwrap();
        assert!(NodeFile::read(data.path()).unwrap_err().to_string().contains("version 9"));
    }

    #[test]
    fn a_secret_is_shared_by_all_who_name_its_file_and_by_nobody_else() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("secret");
        let secret = shared_secret(&path).unwrap();
        assert_eq!(shared_secret(&path).unwrap(), secret);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(shared_secret(&path).unwrap_err().to_string().contains("may be read by others"));
    }

    #[test]
    fn the_secret_of_recordings_is_never_that_of_a_cluster() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("secret");
        write_secret(&path, &Zeroizing::new(REPLAY_SECRET)).unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().contains("everybody knows"));
    }

    #[test]
    fn a_secret_that_is_too_short_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("secret");
        write_durably(&path, b"00ff\n", 0o600).unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().contains("64 hexadecimal digits"));
    }
}
