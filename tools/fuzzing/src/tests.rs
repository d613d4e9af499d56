//! The bodies notice what they are there to notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kimberlite_crypto::Checksum;
use kimberlite_io::Zone;

use crate::cluster::Cluster;
use crate::images::{Image, Images, images};
use crate::journal;
use crate::script::Script;

fn panics(what: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(what)).is_err()
}

/// The last whole image of a lone node or of a replica of three.
fn last(all: &Images, replicas: u8) -> &Image {
    all.moments.iter().rfind(|image| image.config.replicas == replicas).expect("there are histories of both")
}

fn copy_of(image: &Image) -> Image {
    let Image { config, platter, promised, history } = image;
    Image { config: *config, platter: platter.clone(), promised: promised.clone(), history: *history }
}

#[test]
fn an_undamaged_data_directory_keeps_every_promise() {
    let all = images();
    for image in &all.moments {
        journal::check(image, all, image.platter.clone(), journal::Done::default(), 0);
    }
}

#[test]
fn a_promise_that_is_not_kept_is_noticed() {
    let all = images();
    for replicas in [1, 3] {
        let mut image = copy_of(last(all, replicas));
        image.promised.push((image.top() + 1, Checksum::ZERO));
        let check =
            |image: &Image| journal::check(image, all, image.platter.clone(), journal::Done::default(), 0);
        assert!(panics(|| check(&image)), "an op more was promised than is there");
        image.promised.pop();
        image.promised[3].1 = Checksum::ZERO;
        assert!(panics(|| check(&image)), "another op was promised than is there");
    }
}

#[test]
fn an_op_that_nobody_wrote_is_noticed() {
    let all = images();
    let image = last(all, 3);
    let mut strange = Images { moments: Vec::new(), written: all.written.clone(), superblocks: Vec::new() };
    let (_, checksum) = image.promised[image.promised.len() - 1];
    strange.written[image.history].remove(&checksum);
    let done = journal::Done::default();
    assert!(panics(|| journal::check(image, &strange, image.platter.clone(), done, 0)));
}

#[test]
fn a_lost_log_of_a_lone_node_is_refused() {
    let all = images();
    let image = last(all, 1);
    let mut platter = image.platter.clone();
    platter.written(Zone::Log).into_iter().for_each(|sector| platter.spoil(sector));
    journal::check(image, all, platter, journal::Done::default(), 0);
}

#[test]
fn two_words_on_one_op_are_noticed() {
    let mut cluster = Cluster::new(3, 1);
    cluster.settle();
    cluster.do_one(10);
    let next = cluster.ledger.keys().last().map_or(1, |last| last + 1);
    cluster.ledger.insert(next, Checksum::ZERO);
    assert!(panics(|| cluster.do_one(10)));
}

#[test]
fn a_cluster_under_the_script_serves_its_client() {
    let mut cluster = Cluster::new(3, 1);
    cluster.settle();
    (0..8).for_each(|_| cluster.do_one(100));
    assert!(cluster.ledger.len() >= 8 && cluster.heard.len() >= 8);
    assert!(cluster.durable.iter().all(|durable| durable.len() >= 7), "all three hold what was done");
}

#[test]
fn a_script_that_is_over_chooses_the_first() {
    let mut script = Script::new(&[7, 1, 0xff]);
    assert_eq!((script.below(5), script.below(2), script.bytes(9)), (2, 1, &[][..]));
    assert!(script.is_over());
    assert_eq!((script.below(5), script.word(), script.flag()), (0, 0, false));
}
