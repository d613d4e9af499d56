//! What the disk promises.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{GEOMETRY, SECTOR, event, format, open, read, reopen, sectors, temporary, write};
use kimberlite_io::{Buf, Disk, Event, Frame, Place, ReadFault, Token, WriteFault, Zone};
use kimberlite_io_real::{DataDirectory, DriverNote, Geometry, OpenError, Options};

fn grid(offset: u64) -> Place {
    Place { zone: Zone::Grid, offset }
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let parent = temporary();
    let places = [Place::superblock(SECTOR), Place::headers(0), Place::log(2 * SECTOR), grid(5 * SECTOR)];
    let mut driver = format(&parent);
    for (tag, at) in (0..).zip(places) {
        assert_eq!(write(&mut driver, at, sectors(2, tag)), Ok(()));
        assert_eq!(read(&mut driver, at, 2 * SECTOR), Ok(sectors(2, tag).to_vec()));
    }
    drop(driver);
    let mut driver = reopen(&parent);
    for (tag, at) in (0..).zip(places) {
        assert_eq!(read(&mut driver, at, 2 * SECTOR), Ok(sectors(2, tag).to_vec()), "{at}");
    }
}

#[test]
fn a_fresh_directory_holds_zeros_where_it_is_formatted_and_nothing_elsewhere() {
    let parent = temporary();
    let mut driver = format(&parent);
    let zeros = vec![0; SECTOR as usize];
    assert_eq!(read(&mut driver, Place::superblock(15 * SECTOR), SECTOR), Ok(zeros.clone()));
    assert_eq!(read(&mut driver, Place::headers(0), SECTOR), Ok(zeros.clone()));
    assert_eq!(read(&mut driver, Place::log(3 * SECTOR), SECTOR), Ok(zeros));
    for nothing in [
        Place::superblock(16 * SECTOR),
        Place::headers(8 * SECTOR),
        Place::log(4 * SECTOR),
        Place::log(1 << 40),
        grid(0),
        grid(1 << 40),
    ] {
        assert_eq!(read(&mut driver, nothing, SECTOR), Err(ReadFault::Absent), "{nothing}");
    }
    // Half of it is there: still nothing to look at.
    assert_eq!(read(&mut driver, Place::headers(7 * SECTOR), 2 * SECTOR), Err(ReadFault::Absent));
    assert_eq!(write(&mut driver, grid(0), sectors(1, 0)), Ok(()));
    assert_eq!(read(&mut driver, grid(SECTOR), SECTOR), Err(ReadFault::Absent));
}

#[test]
fn the_log_rolls_over_into_new_segments() {
    let parent = temporary();
    let mut driver = format(&parent);
    for index in 0..40 {
        assert_eq!(write(&mut driver, Place::log(index * SECTOR), sectors(1, index as u8)), Ok(()));
    }
    // One write and one read across the border of two segments, and a segment far ahead.
    assert_eq!(write(&mut driver, Place::log(42 * SECTOR), sectors(6, 99)), Ok(()));
    assert_eq!(read(&mut driver, Place::log(42 * SECTOR), 6 * SECTOR), Ok(sectors(6, 99).to_vec()));
    assert_eq!(write(&mut driver, Place::log(4000 * SECTOR), sectors(1, 5)), Ok(()));
    assert_eq!(read(&mut driver, Place::log(2000 * SECTOR), SECTOR), Err(ReadFault::Absent));
    drop(driver);

    let mut driver = reopen(&parent);
    for index in 0..40 {
        let there = read(&mut driver, Place::log(index * SECTOR), SECTOR);
        assert_eq!(there, Ok(sectors(1, index as u8).to_vec()));
    }
    assert_eq!(read(&mut driver, Place::log(4000 * SECTOR), SECTOR), Ok(sectors(1, 5).to_vec()));
}

#[test]
fn more_segments_than_may_be_open_are_all_readable() {
    let parent = temporary();
    let mut driver = format(&parent);
    for index in 0..80 {
        assert_eq!(write(&mut driver, Place::log(4 * index * SECTOR), sectors(1, index as u8)), Ok(()));
    }
    for index in 0..80 {
        let there = read(&mut driver, Place::log(4 * index * SECTOR), SECTOR);
        assert_eq!(there, Ok(sectors(1, index as u8).to_vec()));
    }
    let open = fs::read_dir("/proc/self/fd").expect("our descriptors").filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        target.starts_with(parent.path()).then_some(target)
    });
    let open = open.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).count();
    assert!((1..=65).contains(&open), "{open} segments are open");
}

#[test]
fn a_segment_that_is_made_ahead_does_not_exist_for_reads_until_it_is_written_to() {
    let parent = temporary();
    let mut driver = format(&parent);
    // The first quarter of a segment orders no other.
    assert_eq!(write(&mut driver, Place::log(0), sectors(1, 1)), Ok(()));
    assert_eq!(fs::read_dir(parent.path().join("data/log")).expect("listed").count(), 1);
    assert_eq!(write(&mut driver, Place::log(SECTOR), sectors(1, 1)), Ok(()));
    let ahead = parent.path().join("data/log/00000001.segment");
    while !ahead.exists() {
        std::thread::yield_now();
    }
    assert_eq!(read(&mut driver, Place::log(4 * SECTOR), SECTOR), Err(ReadFault::Absent));
    assert_eq!(write(&mut driver, Place::log(4 * SECTOR), sectors(1, 2)), Ok(()));
    assert_eq!(read(&mut driver, Place::log(5 * SECTOR), SECTOR), Ok(vec![0; SECTOR as usize]));
}

#[test]
fn many_writes_at_once_share_one_sync_and_a_lone_one_needs_none() {
    let parent = temporary();
    let mut driver = format(&parent);
    assert_eq!(write(&mut driver, grid(0), sectors(1, 0)), Ok(()));
    assert_eq!(driver.stats().syncs, 0);
    for index in 0..50 {
        driver.write(Token(index), grid(index * 3 * SECTOR), sectors(3, index as u8));
    }
    let mut answered = BTreeMap::new();
    for _ in 0..50 {
        match event(&mut driver) {
            Event::Written { token, result } => assert_eq!(answered.insert(token, result), None),
            other => panic!("{other:?}"),
        }
    }
    assert!(answered.values().all(Result::is_ok));
    assert_eq!(driver.stats().syncs, 1);
    assert_eq!(driver.stats().writes, 51);
    for index in 0..50 {
        let there = read(&mut driver, grid(index * 3 * SECTOR), 3 * SECTOR);
        assert_eq!(there, Ok(sectors(3, index as u8).to_vec()));
    }
}

#[test]
fn a_padded_frame_is_written_with_its_zeros() {
    let parent = temporary();
    let mut driver = format(&parent);
    assert_eq!(write(&mut driver, Place::log(0), Frame::copy_from(b"prepare").padded()), Ok(()));
    let there = read(&mut driver, Place::log(0), SECTOR).expect("it is there");
    assert_eq!(&there[..7], b"prepare");
    assert!(there[7..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_was_trimmed_is_zeros_or_absent() {
    let parent = temporary();
    let mut driver = format(&parent);
    assert_eq!(write(&mut driver, Place::log(0), sectors(12, 3)), Ok(()));
    driver.trim(Token(1), Place::log(2 * SECTOR), 1000 * SECTOR);
    assert_eq!(event(&mut driver), Event::Trimmed { token: Token(1), result: Ok(()) });
    assert_eq!(read(&mut driver, Place::log(0), 2 * SECTOR), Ok(sectors(2, 3).to_vec()));
    for index in 2..12 {
        match read(&mut driver, Place::log(index * SECTOR), SECTOR) {
            Ok(bytes) => assert!(bytes.iter().all(|byte| *byte == 0)),
            Err(fault) => assert_eq!(fault, ReadFault::Absent),
        }
    }
    assert_eq!(write(&mut driver, Place::log(2 * SECTOR), sectors(1, 4)), Ok(()));
}

#[test]
fn through_the_page_cache_everything_is_the_same() {
    let parent = temporary();
    let path = parent.path().join("data");
    let data = DataDirectory::create(&path, GEOMETRY).expect("formatted").without_direct_io();
    let mut driver = open(Options { data: Some(data), ..Options::default() });
    for index in 0..10 {
        driver.write(Token(index), Place::log(index * 3 * SECTOR), sectors(3, index as u8));
    }
    for _ in 0..10 {
        assert!(matches!(event(&mut driver), Event::Written { result: Ok(()), .. }));
    }
    drop(driver);
    let mut driver = reopen(&parent);
    for index in 0..10 {
        let there = read(&mut driver, Place::log(index * 3 * SECTOR), 3 * SECTOR);
        assert_eq!(there, Ok(sectors(3, index as u8).to_vec()));
    }
}

#[test]
fn a_full_disk_is_no_space_and_the_driver_goes_on() {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        return; // No file system in memory on this machine.
    };
    let path = memory.path().join("data");
    let huge = Geometry { segment_size: 1 << 45, ..GEOMETRY };
    let error = DataDirectory::create(&path, huge).expect_err("32 TiB of memory are too many");
    assert!(matches!(error, OpenError::DiskFull { .. }), "{error}");
    fs::remove_dir_all(&path).expect("removed");

    let data = DataDirectory::create(&path, GEOMETRY).expect("formatted");
    let mut driver = open(Options { data: Some(data), ..Options::default() });
    assert_eq!(write(&mut driver, grid(1 << 45), sectors(1, 1)), Err(WriteFault::NoSpace));
    assert_eq!(driver.stats().disk_faults, 1);
    assert_eq!(write(&mut driver, grid(0), sectors(1, 1)), Ok(()));
}

#[test]
fn a_segment_that_cannot_be_made_fails_only_the_writes_into_it() {
    let parent = temporary();
    let mut driver = format(&parent);
    // A directory in the way of the file.
    let obstacle = parent.path().join("data/log/00000001.segment.preparing");
    fs::create_dir(&obstacle).expect("created");
    assert_eq!(write(&mut driver, Place::log(0), sectors(1, 1)), Ok(()));
    assert_eq!(write(&mut driver, Place::log(4 * SECTOR), sectors(1, 2)), Err(WriteFault::Failed));
    assert_eq!(write(&mut driver, Place::log(SECTOR), sectors(1, 3)), Ok(()));
    let noted = |note: &DriverNote| matches!(note, DriverNote::SegmentFailed { segment: 1, .. });
    assert!(driver.take_notes().iter().any(noted));
    fs::remove_dir(&obstacle).expect("removed");
    assert_eq!(write(&mut driver, Place::log(4 * SECTOR), sectors(1, 4)), Ok(()));
}

#[test]
fn where_direct_io_is_refused_that_is_noted() {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        return; // No file system in memory on this machine.
    };
    let data = DataDirectory::create(memory.path().join("data"), GEOMETRY).expect("formatted");
    let mut driver = open(Options { data: Some(data), ..Options::default() });
    let noted = driver.take_notes().iter().any(|note| matches!(note, DriverNote::DirectIoUnavailable { .. }));
    // Newer kernels take direct I/O on file systems in memory, too.
    let refused = fs::OpenOptions::new();
    let refused = {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = refused;
        options.read(true).custom_flags(0o40000);
        options.open(memory.path().join("data/superblock")).is_err()
    };
    assert_eq!(noted, refused);
    for (tag, at) in (0..).zip([Place::superblock(0), Place::log(10 * SECTOR), grid(SECTOR)]) {
        assert_eq!(write(&mut driver, at, sectors(3, tag)), Ok(()));
        assert_eq!(read(&mut driver, at, 3 * SECTOR), Ok(sectors(3, tag).to_vec()));
    }
}

#[test]
fn dropping_a_driver_with_everything_in_flight_is_harmless() {
    let parent = temporary();
    let mut driver = format(&parent);
    for index in 0..20 {
        driver.write(Token(index), Place::log(index * 3 * SECTOR), sectors(3, 1));
        driver.read(Token(100 + index), Place::headers(0), Buf::zeroed(SECTOR as usize));
    }
    // One turn hands them to the kernel; most are still there when the driver goes.
    let _ = driver.next(None).expect("the ring works");
    drop(driver);
    drop(reopen(&parent));
}

#[test]
fn a_driver_may_move_to_another_thread_before_it_is_used() {
    let parent = temporary();
    let mut driver = format(&parent);
    driver.write(Token(1), Place::log(0), sectors(1, 1));
    let answer = std::thread::spawn(move || event(&mut driver)).join().expect("no panic");
    assert_eq!(answer, Event::Written { token: Token(1), result: Ok(()) });
}

#[test]
fn a_driver_in_use_refuses_another_thread() {
    let parent = temporary();
    let mut driver = format(&parent);
    assert_eq!(write(&mut driver, Place::log(0), sectors(1, 1)), Ok(()));
    driver.write(Token(1), Place::log(0), sectors(1, 2));
    let refused = std::thread::spawn(move || driver.next(None).map_err(|error| error.to_string()));
    let refused = refused.join().expect("an error, not a panic");
    assert!(refused.is_err_and(|text| text.contains("used on two threads")));
    // The driver was dropped over there, which gave the lock back.
    drop(reopen(&parent));
}

#[test]
#[should_panic(expected = "no write overlaps one in flight")]
fn overlapping_writes_in_flight_are_a_bug() {
    let parent = temporary();
    let mut driver = format(&parent);
    driver.write(Token(1), Place::log(0), sectors(2, 0));
    driver.write(Token(2), Place::log(SECTOR), sectors(1, 0));
}

#[test]
#[should_panic(expected = "no write overlaps one in flight")]
fn a_trim_over_a_write_in_flight_is_a_bug() {
    let parent = temporary();
    let mut driver = format(&parent);
    driver.write(Token(1), Place::log(2 * SECTOR), sectors(2, 0));
    driver.trim(Token(2), Place::log(0), 3 * SECTOR);
}

#[test]
fn neighbouring_writes_do_not_overlap() {
    let parent = temporary();
    let mut driver = format(&parent);
    for (token, index) in [1, 0, 2].into_iter().enumerate() {
        driver.write(Token(token as u64), Place::log(index * SECTOR), sectors(1, 0));
    }
    // The same offsets in another zone are another place.
    driver.write(Token(9), Place::headers(SECTOR), sectors(1, 0));
    for _ in 0..4 {
        assert!(matches!(event(&mut driver), Event::Written { result: Ok(()), .. }));
    }
}

#[test]
#[should_panic(expected = "a token names one ask in flight")]
fn a_token_used_twice_is_a_bug() {
    let parent = temporary();
    let mut driver = format(&parent);
    driver.write(Token(1), Place::log(0), sectors(1, 0));
    driver.write(Token(1), Place::log(SECTOR), sectors(1, 0));
}

#[test]
#[should_panic(expected = "asks are whole sectors")]
fn an_unaligned_ask_is_a_bug() {
    let parent = temporary();
    format(&parent).read(Token(1), Place::log(512), Buf::zeroed(SECTOR as usize));
}

#[test]
#[should_panic(expected = "not written past its end")]
fn a_write_past_a_fixed_zone_is_a_bug() {
    let parent = temporary();
    format(&parent).write(Token(1), Place::headers(8 * SECTOR), sectors(1, 0));
}

#[test]
fn a_directory_in_use_is_refused_to_a_second_one() {
    let parent = temporary();
    let driver = format(&parent);
    let path = parent.path().join("data");
    let error = DataDirectory::open(&path).expect_err("it is locked");
    assert!(matches!(&error, OpenError::InUse { path: named } if *named == path), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(driver);
    drop(reopen(&parent));
}

#[test]
fn what_is_no_data_directory_is_refused_by_name() {
    let parent = temporary();
    let path = parent.path().join("data");
    assert!(matches!(DataDirectory::open(&path), Err(OpenError::Missing { .. })));
    let nested = DataDirectory::create(path.join("nested"), GEOMETRY);
    assert!(matches!(nested, Err(OpenError::ParentMissing { path: missing }) if missing == path));
    fs::create_dir(&path).expect("created");
    assert!(matches!(DataDirectory::open(&path), Err(OpenError::NotADirectory { .. })));
    fs::write(path.join("letter"), "dear").expect("written");
    assert!(matches!(DataDirectory::create(&path, GEOMETRY), Err(OpenError::NotEmpty { .. })));
    fs::write(path.join("kimberlite.dir"), "something else\n").expect("written");
    assert!(matches!(DataDirectory::open(&path), Err(OpenError::NotADirectory { .. })));
    fs::write(path.join("kimberlite.dir"), "kimberlite data directory\nversion 7\n").expect("written");
    let error = DataDirectory::open(&path).expect_err("another version");
    assert!(matches!(error, OpenError::OtherVersion { found: 7, .. }), "{error}");
    fs::write(path.join("kimberlite.dir"), "kimberlite data directory\nversion 1\nsuperblock_size x\n")
        .expect("written");
    assert!(matches!(DataDirectory::open(&path), Err(OpenError::Damaged { .. })));
    fs::write(path.join("kimberlite.dir"), [0xFF; 10_000]).expect("written");
    assert!(matches!(DataDirectory::open(&path), Err(OpenError::NotADirectory { .. })));
}

#[test]
fn an_interrupted_format_is_refused_as_such() {
    let parent = temporary();
    drop(format(&parent));
    let path = parent.path().join("data");
    fs::rename(path.join("kimberlite.dir"), path.join("kimberlite.dir.unfinished")).expect("renamed");
    assert!(matches!(DataDirectory::open(&path), Err(OpenError::Unfinished { .. })));
    assert!(matches!(DataDirectory::create(&path, GEOMETRY), Err(OpenError::Unfinished { .. })));
}

#[test]
fn an_interrupted_segment_is_made_anew() {
    let parent = temporary();
    drop(format(&parent));
    let leftover = parent.path().join("data/log/00000001.segment.preparing");
    fs::write(&leftover, "torn").expect("written");
    let mut driver = reopen(&parent);
    assert!(!leftover.exists());
    assert_eq!(read(&mut driver, Place::log(4 * SECTOR), SECTOR), Err(ReadFault::Absent));
    assert_eq!(write(&mut driver, Place::log(4 * SECTOR), sectors(1, 1)), Ok(()));
}

#[test]
fn a_file_of_the_wrong_size_is_damage() {
    for (name, size) in [("superblock", 2), ("headers", 2), ("log/00000000.segment", 5)] {
        let parent = temporary();
        drop(format(&parent));
        let path = parent.path().join("data").join(name);
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("opened")
            .set_len(size * SECTOR)
            .expect("resized");
        let data = DataDirectory::open(parent.path().join("data")).expect("the identity is whole");
        let error = kimberlite_io_real::Driver::open(Options { data: Some(data), ..Options::default() });
        match error {
            Err(OpenError::Damaged { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_segment_that_was_cut_short_is_filled_with_zeros_and_told() {
    let parent = temporary();
    drop(format(&parent));
    let mut driver = reopen(&parent);
    assert_eq!(write(&mut driver, Place::log(0), sectors(4, 7)), Ok(()));
    drop(driver);
    let path = parent.path().join("data/log/00000000.segment");
    fs::OpenOptions::new().write(true).open(&path).expect("opened").set_len(SECTOR + 100).expect("cut");
    let mut driver = reopen(&parent);
    let cut = DriverNote::SegmentCut { segment: 0, size: SECTOR + 100 };
    assert!(driver.take_notes().contains(&cut));
    let bytes = read(&mut driver, Place::log(0), 4 * SECTOR).expect("readable");
    let left = (SECTOR + 100) as usize;
    assert_eq!(bytes[..left], sectors(4, 7)[..left], "what was left is kept");
    assert!(bytes[left..].iter().all(|byte| *byte == 0), "what was cut is zero");
}

#[test]
fn the_geometry_is_kept() {
    let parent = temporary();
    let geometry = Geometry { superblock_size: SECTOR, headers_size: 3 * SECTOR, segment_size: 256 * SECTOR };
    let path = parent.path().join("data");
    drop(DataDirectory::create(&path, geometry).expect("formatted"));
    assert_eq!(DataDirectory::open(&path).expect("opened").geometry(), geometry);
}
