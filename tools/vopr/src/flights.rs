//! Recordings of production nodes: lived again, and told.

use std::io::Read;
use std::time::{Duration, Instant};

use kimberlite_sim::{Ended, Identity, ReadError, Reader, Relived, Tail, relive};
use serde_json::{Value, json};

use crate::arguments::{Replay, Show};
use crate::bundles::print_build;
use crate::{Complaint, Verdict, told};

/// Lives a recording again and compares.
pub(crate) fn replay(arguments: &Replay, file: impl Read) -> Result<Verdict, Complaint> {
    let path = &arguments.file;
    let reader = Reader::open(file).map_err(|error| Complaint::io("use", path, &error))?;
    let began = Instant::now();
    let (lived, result) = relive(reader);
    let seconds = began.elapsed().as_secs_f64();
    if arguments.json {
        let mut value = json_of(&lived);
        value["file"] = json!(path);
        value["seconds"] = json!(seconds);
        value["error"] = json!(result.as_ref().err().map(ToString::to_string));
        println!("{value}");
    } else {
        print(&lived);
        println!("{:<12} {seconds:.3} s", "effort");
        print_comparison(&lived);
    }
    result.map_err(|error| Complaint::io("read all of", path, &error))?;
    Ok(if lived.is_exact() { Verdict::Passed } else { Verdict::Failed })
}

/// Tells what is in a recording. It is lived again for that: the notes of a node are not in it, its events are.
pub(crate) fn show(arguments: &Show, file: impl Read) -> Result<Verdict, Complaint> {
    let path = &arguments.file;
    let reader = Reader::open(file).map_err(|error| Complaint::io("use", path, &error))?;
    let (lived, result): (Relived, Result<(), ReadError>) = relive(reader);
    if arguments.json {
        println!("{}", json_of(&lived));
    } else {
        print_build(&lived.opening.identity);
        print(&lived);
        if !lived.is_exact() {
            println!("{:<12} this program does not live it again exactly; see `vopr replay`", "note");
        }
    }
    result.map_err(|error| Complaint::io("read all of", path, &error))?;
    Ok(Verdict::Passed)
}

fn tail_in_words(tail: Option<Tail>) -> String {
    match tail {
        None => "was not read to its end".to_owned(),
        Some(Tail::Ended(why)) => why.name().to_owned(),
        Some(Tail::Abrupt) => "abruptly: the process ended at once".to_owned(),
        Some(Tail::Torn(bytes)) => {
            format!("abruptly, in the middle of an entry: {bytes} bytes at the end were cut off")
        }
    }
}

fn life(lived: &Relived) -> Duration {
    lived.until.monotonic.since(lived.from.monotonic)
}

fn json_of(lived: &Relived) -> Value {
    let opening = &lived.opening;
    let (end, torn) = match lived.tail {
        None => (Value::Null, 0),
        Some(Tail::Ended(Ended::Stopped)) => (json!("stopped"), 0),
        Some(Tail::Ended(Ended::Halted)) => (json!("halted"), 0),
        Some(Tail::Ended(Ended::Limit)) => (json!("limit"), 0),
        Some(Tail::Abrupt) => (json!("abrupt"), 0),
        Some(Tail::Torn(bytes)) => (json!("torn"), bytes),
    };
    let parting = lived.parting.as_ref().map(|parting| {
        json!({
            "event": parting.event,
            "replica": opening.config.replica,
            "wall_ns": parting.at.wall.0,
            "heard": parting.heard,
            "what": parting.what,
            "asked": parting.asked,
        })
    });
    let panic = lived.panic.as_ref().map(|panic| {
        json!({ "event": panic.event, "seen": panic.seen, "fingerprint": panic.fingerprint().to_string() })
    });
    json!({
        "kind": "recording",
        "build": opening.identity,
        "same_build": opening.identity.is_same_build(&Identity::current()),
        "config": opening.config,
        "cluster": opening.config.cluster.to_string(),
        "replica": opening.config.replica,
        "seed": opening.seed,
        "opened_wall_ns": opening.at.wall.0,
        "events": lived.events,
        "confirmed": lived.confirmed,
        "states_confirmed": lived.states_confirmed,
        "events_by_kind": lived.kinds,
        "life_seconds": life(lived).as_secs_f64(),
        "bytes": lived.bytes,
        "end": end,
        "torn_bytes": torn,
        "commit": lived.commit,
        "state": told::hex(&lived.state),
        "asks": format!("{:?}", lived.asks),
        "halted": lived.halted,
        "exact": lived.is_exact(),
        "parting": parting,
        "panic": panic,
    })
}

fn print(lived: &Relived) {
    let config = &lived.opening.config;
    println!("{:<12} a recording of a node", "kind");
    println!(
        "{:<12} replica {} of {}, cluster {}, seed {}",
        "node", config.replica, config.replicas, config.cluster, lived.opening.seed
    );
    println!("{:<12} {:?}", "opened", lived.opening.at.wall);
    let kinds: Vec<String> = lived.kinds.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("{:<12} {}: {}", "events", lived.events, kinds.join(", "));
    println!("{:<12} {:.3} s, {} KiB", "life", life(lived).as_secs_f64(), lived.bytes >> 10);
    println!("{:<12} {}", "ended", tail_in_words(lived.tail));
    if let Some(reason) = &lived.halted {
        println!("{:<12} {reason}", "halted");
    }
    println!("{:<12} op {}, state {}", "committed", lived.commit, told::hex(&lived.state));
    println!("{:<12} {:?}", "asks", lived.asks);
}

fn print_comparison(lived: &Relived) {
    for (what, there, here) in lived.opening.identity.differences(&Identity::current()) {
        println!("{:<12} {what}: {there} there, {here} here", "build");
    }
    println!(
        "{:<12} the asks of {} of {} events, the state {} times",
        "confirmed", lived.confirmed, lived.events, lived.states_confirmed
    );
    if let Some(parting) = &lived.parting {
        println!(
            "{:<12} at event {}, replica {}, {:?}, having heard {}: {}",
            "diverged",
            parting.event,
            lived.opening.config.replica,
            parting.at.wall,
            parting.heard,
            parting.what
        );
        for ask in &parting.asked {
            println!("{:<12} {ask}", "now asks");
        }
    }
    if let Some(panic) = &lived.panic {
        println!("{:<12} at event {}: {}", "panicked", panic.event, panic.seen);
        println!("{:<12} {}", "fingerprint", panic.fingerprint());
    }
    let verdict = if lived.is_exact() {
        "exact"
    } else if lived.panic.is_some() {
        "the node panics"
    } else if lived.opening.identity.is_same_build(&Identity::current()) {
        "NOT EXACT although the build is the same: the node is not deterministic, or the recording is not honest"
    } else {
        "the lives part; the build is another"
    };
    println!("{:<12} {verdict}", "replay");
}
