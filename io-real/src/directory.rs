//! The data directory: which files there are, how they come into being, who may open them.
//!
//! ```text
//! kimberlite.dir              identity: magic, version of this layout, geometry; locked while open, shared among readers
//! superblock, headers         fixed size, written with zeros when formatted
//! log/00000000.segment, ...   each `segment_size` bytes of the log, written with zeros before use
//! grid                        grows
//! ```
//!
//! Every file is complete and durable under a temporary name before it gets its own. Formatting gives the
//! identity file its name last, so a directory either has all its files or is refused.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kimberlite_io::Buf;
use kimberlite_types::limits::SECTOR_SIZE;
use rustix::fs::{FallocateFlags, fallocate};

use crate::error::OpenError;
use crate::sockets::patiently;

/// The version of the directory's layout. Its number changes when a file is added, renamed or resized.
pub const DIRECTORY_VERSION: u32 = 1;

const MAGIC: &str = "kimberlite data directory";
const IDENTITY: &str = "kimberlite.dir";
const IDENTITY_UNFINISHED: &str = "kimberlite.dir.unfinished";
const LOG: &str = "log";

/// Bytes of an identity file that are looked at.
const IDENTITY_SIZE_MAX: u64 = 4096;

/// Bytes written at once while a file is filled with zeros.
const ZEROS_AT_ONCE: usize = 1 << 20;

/// The sizes of the zones, fixed when a directory is formatted. In bytes, whole sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The superblock zone.
    pub superblock_size: u64,
    /// The header ring.
    pub headers_size: u64,
    /// One file of the log zone.
    pub segment_size: u64,
}

impl Geometry {
    fn is_valid(&self) -> bool {
        [self.superblock_size, self.headers_size, self.segment_size]
            .iter()
            .all(|size| *size > 0 && size.is_multiple_of(SECTOR_SIZE as u64))
    }
}

/// What a directory is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// For reading alone, next to others that do the same.
    Read,
    /// For reading and writing, by nobody else.
    Write,
}

/// A data directory, open and locked. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    geometry: Geometry,
    access: Access,
    /// Whether direct I/O may be used where the file system offers it.
    direct: bool,
    /// Held for its lock.
    _identity: File,
}

impl DataDirectory {
    /// Formats a new directory at `path`, which must not exist or be empty, and opens it. All of it is
    /// durable when this returns. Takes as long as writing all fixed zones and one segment.
    pub fn create(path: impl AsRef<Path>, geometry: Geometry) -> Result<Self, OpenError> {
        let path = path.as_ref();
        assert!(geometry.is_valid(), "zone sizes are whole sectors");
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_occupied(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::ParentMissing { path: parent(path).to_path_buf() });
            }
            Err(error) => return Err(OpenError::on(path, error)),
        }
        let unfinished = path.join(IDENTITY_UNFINISHED);
        let identity = on(&unfinished, write_identity(&unfinished, geometry))?;
        lock(path, &identity, Access::Write)?;
        sync_directory(path)?;

        let log = path.join(LOG);
        on(&log, fs::create_dir(&log))?;
        for (name, size) in
            [("superblock", geometry.superblock_size), ("headers", geometry.headers_size), ("grid", 0)]
        {
            let file = path.join(name);
            on(&file, write_zeros(&file, size, false, || false))?;
        }
        let first = segment_path(path, 0);
        on(&first, write_zeros(&first, geometry.segment_size, false, || false))?;
        sync_directory(&log)?;
        // The name that makes it a data directory must not become durable before the others are.
        sync_directory(path)?;
        on(path, fs::rename(&unfinished, path.join(IDENTITY)))?;
        sync_directory(path)?;
        sync_directory(parent(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            geometry,
            access: Access::Write,
            direct: true,
            _identity: identity,
        })
    }

    /// Opens and locks the directory at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_for(path.as_ref(), Access::Write)
    }

    /// Opens the directory at `path` for reading alone. No file in it is changed, made or removed, by this or by
    /// a driver on it; to write or trim through such a driver is a bug. Neither ownership nor a writable file
    /// system is needed.
    ///
    /// Several may have it open like this at once. It is refused while it is open for writing, and cannot be
    /// opened for writing until this is dropped.
    ///
    /// A segment that was cut short is told like by [`DataDirectory::open`], and stays as it is: up to the
    /// segment's end it reads as zeros.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_for(path.as_ref(), Access::Read)
    }

    fn open_for(path: &Path, access: Access) -> Result<Self, OpenError> {
        let name = path.join(IDENTITY);
        let identity = match open_file(&name, false, access) {
            Ok(identity) => identity,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = path.to_path_buf();
                return Err(if !path.exists() {
                    OpenError::Missing { path }
                } else if path.join(IDENTITY_UNFINISHED).exists() {
                    OpenError::Unfinished { path }
                } else {
                    OpenError::NotADirectory { path }
                });
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
                return Err(OpenError::NotADirectory { path: path.to_path_buf() });
            }
            Err(error) => return Err(OpenError::on(&name, error)),
        };
        let geometry = read_identity(path, &name, &identity)?;
        lock(path, &identity, access)?;
        Ok(Self { path: path.to_path_buf(), geometry, access, direct: true, _identity: identity })
    }

    /// Goes through the page cache even if the file system offers direct I/O. Durability is the same;
    /// memory is used twice. For file systems whose direct I/O is not to be trusted.
    #[must_use]
    pub fn without_direct_io(mut self) -> Self {
        self.direct = false;
        self
    }

    /// The sizes of the zones.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was opened for.
    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// Whether direct I/O may be used, if the file system takes it.
    pub(crate) fn wants_direct_io(&self) -> bool {
        self.direct
    }

    /// Whether the file system takes direct I/O on this directory's files.
    pub(crate) fn takes_direct_io(&self) -> Result<bool, OpenError> {
        let name = self.path.join("superblock");
        let file = match open_file(&name, true, self.access) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(OpenError::on(&name, error)),
        };
        // Some file systems take the flag and refuse the first transfer.
        match file.read_exact_at(&mut Buf::zeroed(SECTOR_SIZE), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(OpenError::Damaged { path: name, what: "it is shorter than its zone" })
            }
            Err(error) => Err(OpenError::on(&name, error)),
        }
    }

    /// Opens the file of a fixed zone and checks its size.
    pub(crate) fn open_zone(&self, name: &str, size: u64, direct: bool) -> Result<File, OpenError> {
        let path = self.path.join(name);
        let file = on(&path, open_file(&path, direct, self.access))?;
        if on(&path, file.metadata())?.len() != size {
            return Err(OpenError::Damaged { path, what: "its size differs from its zone's" });
        }
        Ok(file)
    }

    /// Opens the grid. Also tells its length.
    pub(crate) fn open_grid(&self, direct: bool) -> Result<(File, u64), OpenError> {
        let path = self.path.join("grid");
        let file = on(&path, open_file(&path, direct, self.access))?;
        let len = on(&path, file.metadata())?.len();
        Ok((file, len))
    }

    /// Opens a segment that is known to exist.
    pub(crate) fn open_segment(&self, segment: u64, direct: bool) -> io::Result<File> {
        open_file(&segment_path(&self.path, segment), direct, self.access)
    }

    /// The numbers of all segments and the bytes that are there of each: of one that was cut short, less than a
    /// segment. Removes what an interrupted preparation left behind.
    ///
    /// A segment that was cut short is told to `cut` and filled up with zeros, durably: what stood there is
    /// lost all the same, and the journal, which knows what should stand there, finds it damaged and has
    /// it repaired or refuses. A directory opened for reading is left as it is.
    pub(crate) fn segments(&self, mut cut: impl FnMut(u64, u64)) -> Result<Vec<(u64, u64)>, OpenError> {
        let log = self.path.join(LOG);
        let mut segments = Vec::new();
        for entry in on(&log, fs::read_dir(&log))? {
            let entry = on(&log, entry)?;
            let (name, path) = (entry.file_name(), entry.path());
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(PREPARING) {
                if self.access == Access::Write {
                    on(&path, fs::remove_file(&path))?;
                }
            } else if let Some(number) = name.strip_suffix(".segment").and_then(|name| name.parse().ok()) {
                let mut size = on(&path, entry.metadata())?.len();
                if size > self.geometry.segment_size {
                    return Err(OpenError::Damaged { path, what: "it is longer than a segment" });
                }
                if size < self.geometry.segment_size {
                    cut(number, size);
                    if self.access == Access::Write {
                        on(&path, fill_with_zeros(&path, size, self.geometry.segment_size))?;
                        size = self.geometry.segment_size;
                    }
                }
                segments.push((number, size));
            }
        }
        Ok(segments)
    }
}

/// What a segment's name ends with until it is complete.
const PREPARING: &str = ".preparing";

fn segment_path(path: &Path, segment: u64) -> PathBuf {
    path.join(LOG).join(format!("{segment:08}.segment"))
}

/// Creates one segment, complete and durable under its final name. Ends early, with an error, when `stop` says so.
pub(crate) fn prepare_segment(
    path: &Path,
    segment: u64,
    size: u64,
    direct: bool,
    stop: impl Fn() -> bool,
) -> io::Result<()> {
    let name = segment_path(path, segment);
    let mut preparing = name.clone().into_os_string();
    preparing.push(PREPARING);
    let made = write_zeros(Path::new(&preparing), size, direct, stop)
        .and_then(|()| fs::rename(&preparing, &name))
        .and_then(|()| File::open(path.join(LOG))?.sync_all());
    if made.is_err() {
        // A full disk must not stay full because of the attempt. If this fails too, the next opening cleans up.
        let _ = fs::remove_file(&preparing);
    }
    made
}

/// Creates a file of `size` zeros, allocated and written, and makes it durable. The zeros are written, not
/// only allocated, so that a later write changes no metadata.
fn write_zeros(path: &Path, size: u64, direct: bool, stop: impl Fn() -> bool) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(if direct { libc::O_DIRECT } else { 0 })
        .open(path)?;
    if size > 0 {
        fallocate(&file, FallocateFlags::empty(), 0, size)?;
        fallocate(
            &file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            0,
            size.min(SECTOR_SIZE as u64),
        )?;
    }
    let zeros = Buf::zeroed(ZEROS_AT_ONCE);
    let mut written = 0;
    while written < size {
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = (size - written).min(ZEROS_AT_ONCE as u64);
        file.write_all_at(&zeros[..len as usize], written)?;
        written += len;
    }
    file.sync_all()
}

/// Extends a file with written zeros, durably.
fn fill_with_zeros(path: &Path, from: u64, to: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let zeros = vec![0; ZEROS_AT_ONCE];
    let mut written = from;
    while written < to {
        let len = (to - written).min(ZEROS_AT_ONCE as u64);
        file.write_all_at(&zeros[..len as usize], written)?;
        written += len;
    }
    file.sync_all()
}

fn open_file(path: &Path, direct: bool, access: Access) -> io::Result<File> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().read(true).write(access == Access::Write).custom_flags(flags).open(path)
}

fn write_identity(path: &Path, geometry: Geometry) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    write!(
        file,
        "{MAGIC}\nversion {DIRECTORY_VERSION}\nsuperblock_size {}\nheaders_size {}\nsegment_size {}\n",
        geometry.superblock_size, geometry.headers_size, geometry.segment_size
    )?;
    file.sync_all()?;
    Ok(file)
}

fn read_identity(path: &Path, name: &Path, identity: &File) -> Result<Geometry, OpenError> {
    let damaged = |what| OpenError::Damaged { path: name.to_path_buf(), what };
    let len = on(name, identity.metadata())?.len().min(IDENTITY_SIZE_MAX);
    let mut bytes = vec![0; len as usize];
    on(name, identity.read_exact_at(&mut bytes, 0))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(OpenError::NotADirectory { path: path.to_path_buf() });
    }
    let mut field =
        |key: &str| -> Option<u64> { lines.next()?.strip_prefix(key)?.strip_prefix(' ')?.parse().ok() };
    let version = field("version").ok_or_else(|| damaged("it names no version"))?;
    if version != u64::from(DIRECTORY_VERSION) {
        let found = u32::try_from(version).unwrap_or(u32::MAX);
        return Err(OpenError::OtherVersion { path: path.to_path_buf(), found });
    }
    let geometry = (|| {
        Some(Geometry {
            superblock_size: field("superblock_size")?,
            headers_size: field("headers_size")?,
            segment_size: field("segment_size")?,
        })
    })();
    geometry.filter(Geometry::is_valid).ok_or_else(|| damaged("its geometry cannot be read"))
}

/// Takes the lock: shared among readers, exclusive for a writer. A shared lock asks for no write access, on no
/// file system.
fn lock(path: &Path, identity: &File, access: Access) -> Result<(), OpenError> {
    let take = || match access {
        Access::Read => identity.try_lock_shared(),
        Access::Write => identity.try_lock(),
    };
    match patiently(take, |taken| matches!(taken, Err(TryLockError::WouldBlock))) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(OpenError::on(path, error)),
    }
}

fn refuse_occupied(path: &Path) -> Result<(), OpenError> {
    if path.join(IDENTITY_UNFINISHED).exists() {
        return Err(OpenError::Unfinished { path: path.to_path_buf() });
    }
    if on(path, fs::read_dir(path))?.next().is_some() {
        return Err(OpenError::NotEmpty { path: path.to_path_buf() });
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), OpenError> {
    on(path, File::open(path).and_then(|directory| directory.sync_all()))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn on<T>(path: &Path, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|error| OpenError::on(path, error))
}
