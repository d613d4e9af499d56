//! Stories of small clusters: shipped nodes, shipped clients, a simulated world.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Appender, Cluster};
use kimberlite_types::Offset;
use kimberlite_wire::client::Answer;

const MINUTE: Duration = Duration::from_mins(1);

fn assert_dense(cluster: &Cluster, clients: u16, total: u64) {
    let acknowledged = || (0..clients).flat_map(|c| &cluster.client(c).acknowledged);
    let offsets: BTreeSet<u64> = acknowledged().map(|(first, _)| first.0).collect();
    assert_eq!(acknowledged().count() as u64, total, "every append is acknowledged");
    assert!(offsets.iter().copied().eq(0..total), "every append has one offset of its own");
}

#[test]
fn a_lone_node_appends_and_reads_back() {
    let mut cluster = Cluster::new(1, 1, 1, 0);
    cluster.add_client(0, Appender::new(1, 1, true, 100, 200));
    cluster.run_until(MINUTE, |cluster| cluster.client(0).is_done());
    assert_dense(&cluster, 1, 100);
    let Answer::Events { from, end, records } = &cluster.client(0).answers[0] else { panic!("events") };
    assert_eq!((*from, *end, records.count()), (Offset(0), Offset(100), 100));
}

#[test]
fn three_nodes_agree_on_what_eight_clients_append() {
    let mut cluster = Cluster::new(2, 3, 8, 0);
    for client in 0..8 {
        cluster.add_client(client, Appender::new(u64::from(client), 3, true, 50, 300));
    }
    cluster.run_until(MINUTE, |cluster| (0..8).all(|c| cluster.client(c).is_done()));
    cluster.run_until(MINUTE, Cluster::is_settled);
    assert_dense(&cluster, 8, 400);
    cluster.assert_agreement();
}

#[test]
fn a_killed_primary_is_replaced_and_nothing_acknowledged_is_lost() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(100 + seed, 3, 4, 0);
        for client in 0..4 {
            cluster.add_client(client, Appender::new(u64::from(client), 3, true, 100, 300));
        }
        for _ in 0..6 {
            cluster.run_for(Duration::from_millis(800 + 100 * seed));
            if let Some(primary) = cluster.primary() {
                cluster.crash(primary);
                cluster.run_for(Duration::from_millis(300 * (seed + 1)));
                cluster.start(primary);
            }
        }
        cluster.run_until(MINUTE, |cluster| (0..4).all(|c| cluster.client(c).is_done()));
        cluster.run_until(MINUTE, Cluster::is_settled);
        assert_dense(&cluster, 4, 400);
        cluster.assert_agreement();
        assert!(cluster.node(0).replica().view().0 > 0, "the primary was replaced");
    }
}

#[test]
fn a_lone_node_survives_kills_under_load() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(200 + seed, 1, 4, 0);
        for client in 0..4 {
            cluster.add_client(client, Appender::new(u64::from(client), 1, true, 100, 300));
        }
        for _ in 0..10 {
            cluster.run_for(Duration::from_millis(37 + 11 * seed));
            cluster.crash(0);
            cluster.run_for(Duration::from_millis(50));
            cluster.start(0);
        }
        cluster.run_until(MINUTE, |cluster| (0..4).all(|c| cluster.client(c).is_done()));
        assert_dense(&cluster, 4, 400);
        cluster.assert_agreement();
    }
}

#[test]
fn a_replica_that_was_away_for_many_segments_catches_up() {
    let mut cluster = Cluster::new(300, 3, 2, 0);
    cluster.crash(2);
    for client in 0..2 {
        cluster.add_client(client, Appender::new(u64::from(client), 3, true, 300, 3_000));
    }
    cluster.run_until(MINUTE * 5, |cluster| (0..2).all(|c| cluster.client(c).is_done()));
    cluster.start(2);
    cluster.run_until(MINUTE, Cluster::is_settled);
    assert_dense(&cluster, 2, 600);
    cluster.assert_agreement();
}

#[test]
fn a_cluster_that_lost_power_as_a_whole_comes_back() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(400 + seed, 3, 3, 0);
        for client in 0..3 {
            cluster.add_client(client, Appender::new(u64::from(client), 3, true, 80, 300));
        }
        for _ in 0..4 {
            cluster.run_for(Duration::from_millis(700 + 90 * seed));
            (0..3).for_each(|r| cluster.crash(r));
            cluster.run_for(Duration::from_millis(200));
            (0..3).for_each(|r| cluster.start(r));
        }
        cluster.run_until(MINUTE, |cluster| (0..3).all(|c| cluster.client(c).is_done()));
        cluster.run_until(MINUTE, Cluster::is_settled);
        assert_dense(&cluster, 3, 240);
        cluster.assert_agreement();
    }
}
