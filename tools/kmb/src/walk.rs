//! The log of a stopped node, prepare by prepare, as its files have it.
//!
//! Only reading: no repair, no judgement. Where a prepare is damaged the walk ends; `kmb verify` says whether
//! that is the end of the log.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kimberlite_crypto::Checksum;
use kimberlite_io::{Buf, Place, sectors};
use kimberlite_io_real::{DataDirectory, Geometry};
use kimberlite_kernel::{Applied, Kernel};
use kimberlite_types::limits::PREPARE_HEADER_SIZE;
use kimberlite_types::{Config, LogPosition, Op};
use kimberlite_wire::command::{Command, Outcome};
use kimberlite_wire::{Prepare, PrepareHeader};

use crate::address::Name;
use crate::node_file::NodeFile;
use crate::{Failure, files, format};

/// A data directory that no node has open, opened for reading. No node can open it as long as this lives.
pub(crate) struct Stopped {
    data: PathBuf,
    directory: DataDirectory,
    pub(crate) config: Config,
}

impl Stopped {
    /// Opens and locks the directory.
    pub(crate) fn open(data: &Path) -> Result<Self, Failure> {
        let config = NodeFile::read(data)?.config()?;
        let directory = DataDirectory::open_read_only(data)?;
        format::check_geometry(data, directory.geometry(), &config)?;
        Ok(Self { data: data.to_path_buf(), directory, config })
    }

    /// The sizes of the zones.
    pub(crate) fn geometry(&self) -> Geometry {
        self.directory.geometry()
    }

    /// Up to `len` bytes at a place; fewer where the file ends, none where it does not exist.
    pub(crate) fn read(&self, place: Place, len: usize) -> Result<Buf, Failure> {
        let at = files::locate(place, &self.directory.geometry());
        let path = self.data.join(&at.name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Buf::zeroed(0)),
            Err(error) => return Err(Failure::on(&path, &error)),
        };
        let size = file.metadata().map_err(|error| Failure::on(&path, &error))?.len();
        let len = (len as u64).min(size.saturating_sub(at.offset)) as usize;
        let mut buf = Buf::zeroed(len);
        file.read_exact_at(&mut buf, at.offset).map_err(|error| Failure::on(&path, &error))?;
        Ok(buf)
    }

    /// All prepares from the first one on.
    pub(crate) fn prepares(&self) -> Prepares<'_> {
        Prepares {
            stopped: self,
            parent: PrepareHeader::root(self.config.cluster).checksum,
            op: Op(1),
            place: 0,
        }
    }

    /// The prepare at `place`, if a whole one stands there.
    fn prepare(&self, place: u64) -> Result<Option<Prepare>, Failure> {
        let head = self.read(Place::log(place), PREPARE_HEADER_SIZE)?;
        if head.len() < PREPARE_HEADER_SIZE {
            return Ok(None);
        }
        let Ok(header) = PrepareHeader::decode(&head) else { return Ok(None) };
        if header.place != place || header.size > self.config.layout.prepare_size_max {
            return Ok(None);
        }
        let bytes = self.read(Place::log(place), sectors(u64::from(header.size)) as usize)?.freeze();
        Ok(Prepare::parse(&bytes).ok())
    }
}

/// Iterates over the prepares of a log.
pub(crate) struct Prepares<'a> {
    stopped: &'a Stopped,
    parent: Checksum,
    op: Op,
    place: u64,
}

impl Prepares<'_> {
    fn step(&mut self) -> Result<Option<Prepare>, Failure> {
        let segment_size = self.stopped.config.layout.segment_size;
        let fits = |prepare: &Prepare| prepare.header.op == self.op && prepare.header.parent == self.parent;
        let mut found = None;
        for place in [self.place, self.place.next_multiple_of(segment_size)] {
            found = self.stopped.prepare(place)?.filter(fits);
            if found.is_some() {
                break;
            }
        }
        if let Some(prepare) = &found {
            self.op = prepare.header.op.next();
            self.parent = prepare.header.checksum;
            self.place = prepare.header.end();
        }
        Ok(found)
    }
}

impl Iterator for Prepares<'_> {
    type Item = Result<Prepare, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Executes the log as a node does, to learn what became of each command.
pub(crate) struct Replay(Kernel);

impl Replay {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Kernel::new(config.sessions_max))
    }

    pub(crate) fn apply(&mut self, prepare: &Prepare) -> Result<Applied, Failure> {
        if prepare.verify_chain(&self.0.chain()).is_err() {
            return Err(Failure::failed(format!("the hash chain is broken in op {}", prepare.header.op)));
        }
        Ok(self.0.apply(prepare))
    }
}

/// The records of a stream by offset, as this replica alone holds them, and the last op that holds any of
/// what was read.
pub(crate) fn stream(data: &Path, tenant: &Name, stream: &Name) -> Result<(Vec<Vec<u8>>, Op), Failure> {
    let stopped = Stopped::open(data)?;
    let mut replay = Replay::new(&stopped.config);
    let mut records = Vec::new();
    let mut head = Op::ZERO;
    for prepare in stopped.prepares() {
        let prepare = prepare?;
        let applied = replay.apply(&prepare)?;
        for (index, entry) in prepare.entries().enumerate() {
            let position = LogPosition { op: prepare.header.op, index: index as u32 };
            let malformed = |why: kimberlite_wire::Malformed| {
                Failure::failed(format!("entry {position}: {}", why.reason()))
            };
            let entry = entry.map_err(malformed)?;
            let verdict = &applied.verdicts[index];
            if let Ok(Command::AppendBatch { stream: to, records: new, .. }) = Command::decode(entry.command)
                && let Ok(Outcome::Appended { first, .. }) = verdict.verdict.result
                && !verdict.duplicate
                && (entry.header.tenant, to) == (tenant.tenant(), stream.stream())
            {
                if first.0 != records.len() as u64 {
                    return Err(Failure::failed(format!(
                        "entry {position} appends at offset {first}, and the stream has {} records",
                        records.len()
                    )));
                }
                records.extend(new.iter().map(<[u8]>::to_vec));
            }
        }
        head = prepare.header.op;
    }
    Ok((records, head))
}
