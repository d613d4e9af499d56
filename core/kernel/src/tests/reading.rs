//! Finding the records of a stream again.

use super::*;
use crate::{Extent, records_of};
use kimberlite_wire::Malformed;

/// Three ops: in the second, accepted batches stand between a duplicate, a refusal and another stream's.
fn busy_log() -> Log {
    let (mut log, writer) = Log::with_stream();
    let other = StreamId(2);
    let batch =
        |number, stream, expected, records: &[&[u8]]| ask(writer, number, append(stream, expected, records));
    log.commit(&[ask(writer, 3, create_stream(other)), batch(4, VISITS, None, &[b"0", b"1"])]);
    log.commit(&[
        batch(4, VISITS, None, &[b"a duplicate"]),
        batch(5, VISITS, None, &[b"2"]),
        batch(6, other, None, &[b"another stream's"]),
        batch(7, VISITS, Some(0), &[b"refused"]),
        batch(8, VISITS, None, &[b"3", b"4", b"5"]),
    ]);
    log.commit(&[batch(9, VISITS, None, &[b"6"])]);
    log
}

#[test]
fn a_stream_is_read_from_any_offset_without_duplicates_and_refusals() {
    let log = busy_log();
    let all: Vec<Vec<u8>> = (b'0'..=b'6').map(|digit| vec![digit]).collect();
    for from in 0..=8 {
        assert_eq!(log.read(VISITS, from as u64), all[from.min(7)..], "from {from}");
    }
}

#[test]
fn an_extent_names_op_and_entry_of_each_accepted_batch() {
    let log = busy_log();
    let located = log.kernel.locate(CLINIC, VISITS, Offset(2)).unwrap();
    let extent = |first, op, entry, count| Extent { first: Offset(first), op: Op(op), entry, count };
    assert_eq!(located.extents, [extent(2, 4, 1, 1), extent(3, 4, 4, 3), extent(6, 5, 0, 1)]);
    assert_eq!(located.end, Offset(7));
    assert_eq!(log.kernel.locate(CLINIC, VISITS, Offset(7)).unwrap().extents, []);
    assert_eq!(size_of::<Extent>(), 24);
}

#[test]
fn extents_of_another_prepare_are_an_error_and_not_a_panic() {
    let log = busy_log();
    let extents = log.kernel.locate(CLINIC, VISITS, Offset(2)).unwrap().extents;
    let read = |op: usize, extents: &[Extent]| -> Vec<core::result::Result<Offset, Malformed>> {
        records_of(&log.prepares[op - 1], extents, Offset(0))
            .map(|record| record.map(|(offset, _)| offset))
            .collect()
    };
    assert_eq!(read(4, extents).len(), 4);
    assert_eq!(read(3, extents), [], "extents of later ops are left alone");
    assert_eq!(read(5, extents), [Err(Malformed::Unknown)]);
    let past_the_end = Extent { entry: 5, ..extents[0] };
    assert_eq!(read(4, &[past_the_end]), [Err(Malformed::Short)]);
    let wrong_count = Extent { count: 2, ..extents[0] };
    assert_eq!(read(4, &[wrong_count]), [Err(Malformed::Unknown)]);
}
