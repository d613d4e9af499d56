//! Pages are these bytes.

use kimberlite_types::{ObjectId, TenantId};

use super::model::at;
use crate::{Page, PageRef, Pages, Shape, Store, WriteBatch, object_key};

struct Nothing;

impl Pages for Nothing {
    fn page(&self, at: PageRef) -> Result<&Page, crate::Miss> {
        Err(crate::Miss::of(at))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[test]
#[expect(clippy::too_many_lines, reason = "bytes, one field after another")]
fn a_leaf_of_each_tree_and_a_directory_are_these_bytes() {
    let mut store = Store::new(Shape::new(4096).expect("a size of pages"));
    for (op, value) in [(1, b"one".as_slice()), (2, b"two")] {
        let mut batch = WriteBatch::new(store.shape(), TenantId(2), at(op));
        batch.put(&object_key(ObjectId(1), b"ka"), value).expect("within limits");
        if op == 1 {
            batch.put(&object_key(ObjectId(1), b"kbc"), b"").expect("within limits");
        }
        let draft = store.plan(&batch, &Nothing).expect("all dirty");
        store.install(draft);
    }
    let checkpoint = store.checkpoint();
    let [current, history, directory] = &checkpoint.pages[..] else { panic!("three pages") };
    let used = |page: &Page| hex(&page.bytes()[80..80 + page.used()]);

    assert_eq!(
        hex(&current.page.bytes()[..72]),
        [
            "6b627067",
            "01",
            "01",
            "00",
            "00",
            "00000000",
            "0200",
            "0500",
            "0200000000000000",
            "000000000000000000000000000000000000000000000000",
            "00000000000000000000000000000000",
            "2f000000",
            "00000000",
        ]
        .concat()
    );
    assert_eq!(
        used(&current.page),
        [
            "000000016b",
            "5900",
            "6d00",
            "0100",
            "0300",
            "020000000000000002000000",
            "61",
            "74776f",
            "0200",
            "0000",
            "010000000000000001000000",
            "6263",
        ]
        .concat()
    );
    assert_eq!(
        used(&history.page),
        [
            "000000016b61",
            "5800",
            "0000",
            "0300",
            "010000000000000001000000",
            "020000000000000002000000",
            "6f6e65",
        ]
        .concat()
    );
    assert_eq!(
        used(&directory.page),
        [
            "0100000000000000",
            "0300000000000000",
            "01000000",
            "00000000",
            &"00".repeat(48),
            "0200000000000000",
            "000000000000000000000000",
            "020000000000000002000000",
            "00",
            "00000000000000",
            "0000000000000000",
            &hex(current.at.digest.as_bytes()),
            "020000000000000002000000",
            "0200000000000000",
            "00",
            "00000000000000",
            "0100000000000000",
            &hex(history.at.digest.as_bytes()),
            "020000000000000002000000",
            "0100000000000000",
            "0000000000000000",
        ]
        .concat()
    );
    assert_eq!(
        hex(&checkpoint.root.encode()),
        [
            "6b626370",
            "02",
            "00",
            "0000",
            "00100000",
            "f8000000",
            "0100000000000000",
            "0200000000000000",
            &hex(directory.at.digest.as_bytes()),
        ]
        .concat()
    );
}
