//! A directory opened for reading is read, and left as it is.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use common::{SECTOR, event_within, format, open, read, reopen, sectors, temporary, write};
use kimberlite_io::{Disk, Place, ReadFault, Token, Zone};
use kimberlite_io_real::{DataDirectory, Driver, DriverNote, OpenError, Options};
use tempfile::TempDir;

const GRID: Place = Place { zone: Zone::Grid, offset: 0 };

fn open_read_only(parent: &TempDir) -> Driver {
    let data = DataDirectory::open_read_only(parent.path().join("data"));
    let data = data.unwrap_or_else(|error| panic!("the directory is opened: {error}"));
    open(Options { data: Some(data), ..Options::default() })
}

/// A stopped node's directory: something in each zone, a log of three segments and one made ahead.
fn stopped() -> TempDir {
    let parent = temporary();
    let mut driver = format(&parent);
    for (tag, at) in (0..).zip([Place::superblock(0), Place::headers(0), GRID]) {
        assert_eq!(write(&mut driver, at, sectors(2, tag)), Ok(()));
    }
    assert_eq!(write(&mut driver, Place::log(0), sectors(12, 7)), Ok(()));
    parent
}

fn cut(parent: &TempDir, segment: u64, size: u64) {
    let path = parent.path().join(format!("data/log/{segment:08}.segment"));
    OpenOptions::new().write(true).open(path).expect("opened").set_len(size).expect("cut");
}

/// What can be seen of a file or directory: mode, length, both times of change, bytes.
type Look = (u32, u64, [i64; 4], Vec<u8>);

/// Everything below `path`, itself included.
fn looks(path: &Path, into: &mut BTreeMap<PathBuf, Look>) {
    let found = fs::metadata(path).expect("looked at");
    let bytes = if found.is_dir() {
        for entry in fs::read_dir(path).expect("listed") {
            looks(&entry.expect("listed").path(), into);
        }
        Vec::new()
    } else {
        fs::read(path).expect("read")
    };
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    into.insert(path.to_path_buf(), (found.mode(), found.len(), times, bytes));
}

fn snapshot(parent: &TempDir) -> BTreeMap<PathBuf, Look> {
    let mut all = BTreeMap::new();
    looks(&parent.path().join("data"), &mut all);
    all
}

#[test]
fn nothing_changes_whatever_state_the_directory_is_in() {
    let parent = stopped();
    cut(&parent, 1, SECTOR + 100);
    cut(&parent, 2, 0);
    fs::write(parent.path().join("data/log/00000009.segment.preparing"), "torn").expect("written");
    let before = snapshot(&parent);
    let mut driver = open_read_only(&parent);
    for at in [Place::superblock(0), Place::headers(0), Place::log(0), GRID] {
        assert!(read(&mut driver, at, SECTOR).is_ok());
    }
    assert!(read(&mut driver, Place::log(0), 12 * SECTOR).is_ok());
    assert_eq!(event_within(&mut driver, std::time::Duration::from_millis(50)), None);
    drop(driver);
    let after = snapshot(&parent);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (path, look) in &before {
        assert!(after[path] == *look, "{} changed", path.display());
    }
}

#[test]
fn what_was_written_is_read() {
    let parent = stopped();
    let mut driver = open_read_only(&parent);
    for (tag, at) in (0..).zip([Place::superblock(0), Place::headers(0), GRID]) {
        assert_eq!(read(&mut driver, at, 2 * SECTOR), Ok(sectors(2, tag).to_vec()), "{at}");
    }
    assert_eq!(read(&mut driver, Place::log(0), 12 * SECTOR), Ok(sectors(12, 7).to_vec()));
    assert_eq!(read(&mut driver, Place::log(1 << 30), SECTOR), Err(ReadFault::Absent));
}

#[test]
fn a_cut_segment_is_told_and_reads_as_zeros_from_the_cut_to_its_end() {
    for left in [0, 100, SECTOR, SECTOR + 100, 4 * SECTOR - 1] {
        let parent = stopped();
        cut(&parent, 1, left);
        for direct in [true, false] {
            let mut data = DataDirectory::open_read_only(parent.path().join("data")).expect("opened");
            if !direct {
                data = data.without_direct_io();
            }
            let mut driver = open(Options { data: Some(data), ..Options::default() });
            assert!(driver.take_notes().contains(&DriverNote::SegmentCut { segment: 1, size: left }));
            let mut wanted = sectors(12, 7).to_vec();
            wanted[(4 * SECTOR + left) as usize..8 * SECTOR as usize].fill(0);
            // In one read across all three segments, and sector by sector.
            assert_eq!(read(&mut driver, Place::log(0), 12 * SECTOR), Ok(wanted.clone()));
            for (index, sector) in (0..).zip(wanted.chunks(SECTOR as usize)) {
                assert_eq!(read(&mut driver, Place::log(index * SECTOR), SECTOR), Ok(sector.to_vec()));
            }
            assert!(driver.take_notes().is_empty(), "no read failed on the way");
        }
    }
}

#[test]
fn no_file_is_open_for_writing() {
    let parent = stopped();
    // Shuts out every writer but the superuser.
    let data = parent.path().join("data");
    let mut all: Vec<_> = snapshot(&parent).into_keys().collect();
    all.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in &all {
        let mode = if path.is_dir() { 0o555 } else { 0o444 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its owner may");
    }
    let mut driver = open_read_only(&parent);
    assert!(read(&mut driver, Place::log(0), 12 * SECTOR).is_ok());
    let mut open = 0;
    for entry in fs::read_dir("/proc/self/fd").expect("our descriptors") {
        let entry = entry.expect("listed");
        if !fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(&data)) {
            continue;
        }
        let name = entry.file_name().into_string().expect("a number");
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).expect("its flags");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags");
        let flags = u32::from_str_radix(flags.trim(), 8).expect("octal");
        assert_eq!(flags & 0b11, 0, "read only: {info}");
        open += 1;
    }
    assert_eq!(open, 1 + 3 + 3, "identity, zones, segments");
    for path in all.iter().rev().filter(|path| path.is_dir()) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its owner may");
    }
}

#[test]
fn a_directory_in_use_is_refused_to_readers_and_one_being_read_to_writers() {
    let parent = stopped();
    let path = parent.path().join("data");
    let writer = reopen(&parent);
    let error = DataDirectory::open_read_only(&path).expect_err("it is locked");
    assert!(matches!(&error, OpenError::InUse { path: named } if *named == path), "{error}");
    drop(writer);
    let readers = [open_read_only(&parent), open_read_only(&parent)];
    assert!(matches!(DataDirectory::open(&path), Err(OpenError::InUse { .. })));
    drop(readers);
    drop(reopen(&parent));
}

#[test]
fn what_is_no_data_directory_is_refused_to_readers_by_name() {
    let parent = temporary();
    let path = parent.path().join("data");
    assert!(matches!(DataDirectory::open_read_only(&path), Err(OpenError::Missing { .. })));
    fs::create_dir(&path).expect("created");
    assert!(matches!(DataDirectory::open_read_only(&path), Err(OpenError::NotADirectory { .. })));
}

#[test]
#[should_panic(expected = "opened for reading is not written to")]
fn a_write_is_a_bug() {
    open_read_only(&stopped()).write(Token(1), Place::log(0), sectors(1, 0));
}

#[test]
#[should_panic(expected = "opened for reading is not written to")]
fn a_trim_is_a_bug() {
    open_read_only(&stopped()).trim(Token(1), Place::log(0), SECTOR);
}
