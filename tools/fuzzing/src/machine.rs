//! Real nodes under an arbitrary order of events.
//!
//! The bytes decide who hears what and when: which disk answers, which message arrives, is lost, doubled, mutated or said
//! again much later, what strangers send to both ports, how time passes and whose process dies. The contract of
//! the waist is kept: asks are answered once, acknowledged writes survive, only holders of a link's key make frames
//! that verify. What must hold: no panic, the limits of the waist, and one committed op for each number, ever.

use kimberlite_io::{CloseReason, Event, Frame, Packet};
use kimberlite_types::ReplicaId;
use kimberlite_types::limits::{FRAME_HEADER_SIZE, SECTOR_SIZE};

use crate::cluster::{Cluster, Flying};
use crate::script::Script;

/// Steps of one execution at most.
const STEPS_MAX: usize = 600;

/// Inputs that a node's journal has taken and not answered: two pipelines of prepares, and fetches for peers and
/// queries.
const PENDING_MAX: usize = 4_096;

/// Runs the script.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let replicas = [3, 1, 2][script.below(3)];
    let mut cluster = Cluster::new(replicas, 7);
    let mut steps = 0;
    while !script.is_over() && steps < STEPS_MAX {
        step(&mut cluster, &mut script);
        steps += 1;
        for seat in &cluster.seats {
            let pending = seat.node.storage().pending();
            assert!(pending <= PENDING_MAX, "{pending} inputs wait in a journal");
        }
    }
    // Whatever happened, what is left of it is handled.
    for _ in 0..4 {
        cluster.fair_round();
        cluster.advance(600_000_000);
    }
}

fn step(cluster: &mut Cluster, script: &mut Script<'_>) {
    let seat = |cluster: &Cluster, script: &mut Script<'_>| script.below(cluster.seats.len());
    match script.below(20) {
        0 | 1 => cluster.fair_round(),
        2 => {
            // From a microsecond to about eight seconds.
            let nanos = 1_000 << script.below(24);
            cluster.advance(nanos);
        }
        3 | 4 => {
            let leader = cluster.leader();
            let conn = cluster.conn(leader);
            let frame = cluster.next_request(64 * script.below(128));
            cluster.say(leader, conn, &frame);
        }
        5 => {
            let index = seat(cluster, script);
            if !cluster.seats[index].asks.is_empty() {
                let ask = script.below(cluster.seats[index].asks.len());
                cluster.answer(index, ask);
            }
        }
        6 => {
            if let Some(flying) = take_off(cluster, script) {
                cluster.deliver(flying);
            }
        }
        7 => drop(take_off(cluster, script)),
        8 => {
            if !cluster.flying.is_empty() {
                let again = cluster.flying[script.below(cluster.flying.len())].clone();
                cluster.deliver(again);
            }
        }
        9 => {
            if !cluster.seen.is_empty() {
                let old = cluster.seen[script.below(cluster.seen.len())].clone();
                cluster.deliver(old);
            }
        }
        10 => mutated(cluster, script),
        11 => forged(cluster, script),
        12 => {
            let index = seat(cluster, script);
            let mut luck = script.word();
            cluster.restart(index, || {
                luck = luck.rotate_left(1);
                luck & 1 == 1
            });
        }
        13 => {
            let index = seat(cluster, script);
            let conn = cluster.conn(index);
            let frame = cluster.next_query(script.below(3), script.magnitude());
            cluster.say(index, conn, &frame);
        }
        14 => {
            let index = seat(cluster, script);
            let conn = cluster.conn(index);
            cluster.say(index, conn, script.bytes(300));
        }
        15 => cut_request(cluster, script),
        16 => {
            let index = seat(cluster, script);
            cluster.seats[index].open_stream(cluster.now);
            cluster.collect(index);
        }
        17 => {
            let index = seat(cluster, script);
            let conn = cluster.conn(index);
            let reason = [CloseReason::Ended, CloseReason::Broken][script.below(2)];
            cluster.seats[index].close_stream(cluster.now, conn, reason);
            cluster.collect(index);
        }
        18 => {
            let index = seat(cluster, script);
            let conn = cluster.conn(index);
            cluster.seats[index].drain(cluster.now, conn);
            cluster.collect(index);
        }
        _ => {
            let index = seat(cluster, script);
            if !cluster.seats[index].asks.is_empty() {
                let ask = script.below(cluster.seats[index].asks.len());
                let no_space = script.below(8) != 0;
                cluster.seats[index].refuse(cluster.now, ask, no_space);
                cluster.collect(index);
            }
        }
    }
}

fn take_off(cluster: &mut Cluster, script: &mut Script<'_>) -> Option<Flying> {
    if cluster.flying.is_empty() {
        return None;
    }
    let index = script.below(cluster.flying.len());
    Some(cluster.flying.remove(index))
}

/// A message that was altered on its way, or whose sender lies about who it is.
fn mutated(cluster: &mut Cluster, script: &mut Script<'_>) {
    if cluster.seen.is_empty() {
        return;
    }
    let mut flying = cluster.seen[script.below(cluster.seen.len())].clone();
    match script.below(4) {
        0 => flying.packet.head[script.below(FRAME_HEADER_SIZE)] ^= 1 << script.below(8),
        1 => {
            let mut body = flying.packet.body.to_vec();
            if !body.is_empty() {
                let at = script.below(body.len());
                body[at] ^= 1 << script.below(8);
            }
            flying.packet.body = Frame::copy_from(&body);
        }
        2 => {
            let body = flying.packet.body.to_vec();
            flying.packet.body = Frame::copy_from(&body[..script.below(body.len() + 1)]);
        }
        _ => flying.from = ReplicaId(script.byte()),
    }
    cluster.deliver(flying);
}

/// A message that a stranger wrote.
fn forged(cluster: &mut Cluster, script: &mut Script<'_>) {
    let to = ReplicaId(script.below(cluster.seats.len()) as u8);
    let from = ReplicaId(script.byte());
    let mut head = [0; FRAME_HEADER_SIZE];
    let bytes = script.bytes(FRAME_HEADER_SIZE);
    head[..bytes.len()].copy_from_slice(bytes);
    if script.flag() {
        crate::mend::frame_head(&mut head);
    }
    let body = Frame::copy_from(script.bytes(SECTOR_SIZE));
    cluster.deliver(Flying { from, to, packet: Packet { head, body } });
}

/// A client's request that comes in pieces, with one byte of it altered now and then.
fn cut_request(cluster: &mut Cluster, script: &mut Script<'_>) {
    let index = script.below(cluster.seats.len());
    let conn = cluster.conn(index);
    let mut bytes = cluster.next_request(64 * script.below(64)).to_vec();
    if script.flag() {
        let at = script.below(bytes.len());
        bytes[at] ^= 1 << script.below(8);
        if script.flag() {
            crate::mend::client_frame(&mut bytes);
        }
    }
    let cut = script.below(bytes.len() + 1);
    cluster.say(index, conn, &bytes[..cut]);
    if script.flag() {
        cluster.hear(index, Event::Wake);
    }
    cluster.say(index, conn, &bytes[cut..]);
}
