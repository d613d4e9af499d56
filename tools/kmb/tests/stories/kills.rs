//! `kill -9` under load. The long form is `kmb torture --kills 50`; what it checks is checked in turn by the
//! tests of `load`.

use crate::world::kmb;

#[test]
fn nothing_acknowledged_is_lost_when_nodes_of_three_are_killed() {
    let said =
        kmb(&["torture", "--kills", "5", "--nodes", "3", "--clients", "2", "--small", "--seed", "11"]).ok();
    assert_eq!(said.matches("\nkill ").count(), 5, "{said}");
    assert!(said.contains(", the primary"), "{said}");
    let hashes: Vec<&str> = said.lines().filter_map(|line| line.split("head hash ").nth(1)).collect();
    assert_eq!(hashes.len(), 3, "{said}");
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{said}");
}

#[test]
fn nothing_acknowledged_is_lost_when_a_lone_node_is_killed() {
    let said =
        kmb(&["torture", "--kills", "5", "--nodes", "1", "--clients", "4", "--small", "--seed", "12"]).ok();
    assert_eq!(said.matches("\nkill ").count(), 5, "{said}");
    assert!(said.contains("all that was acknowledged among them"), "{said}");
}
