//! Bundles of simulated failures: run again, told, made smaller.

use std::fs::{self, File};
use std::io::{BufReader, IsTerminal as _, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use kimberlite_sim::{
    Bundle, FormatError, Head, Identity, Kind, Replayed, Seen, Size, minimize as shrink, rules,
};
use serde_json::{Value, json};

use crate::arguments::{Minimize, Replay, Show};
use crate::one::verdict_of;
use crate::{Complaint, Verdict, flights, told};

/// A bundle of either kind.
enum Opened {
    Failure(Box<Bundle>),
    Recording(BufReader<File>),
}

/// Opens a bundle, whatever it holds.
fn open(path: &Path) -> Result<Opened, Complaint> {
    let unusable = |error: FormatError| Complaint::io("use", path, &error);
    let mut file = File::open(path).map_err(|error| Complaint::io("read", path, &error))?;
    let mut head = Vec::new();
    let begun = file
        .by_ref()
        .take(kimberlite_sim::HEAD_SIZE as u64)
        .read_to_end(&mut head)
        .and_then(|_| file.rewind());
    begun.map_err(|error| Complaint::io("read", path, &error))?;
    match Head::read(&head).map_err(unusable)?.kind {
        Kind::Recording => Ok(Opened::Recording(BufReader::new(file))),
        Kind::Failure => {
            let mut bytes = Vec::new();
            // A larger file is refused by its size; it need not be read for that.
            let limit = kimberlite_sim::FILE_SIZE_MAX as u64 + 1;
            file.take(limit).read_to_end(&mut bytes).map_err(|error| Complaint::io("read", path, &error))?;
            Ok(Opened::Failure(Box::new(Bundle::decode(&bytes).map_err(unusable)?)))
        }
    }
}

/// Runs a bundle again.
pub(crate) fn replay(arguments: &Replay) -> Result<Verdict, Complaint> {
    let path = &arguments.file;
    match open(path)? {
        Opened::Recording(file) => flights::replay(arguments, file),
        Opened::Failure(bundle) => Ok(replay_failure(arguments, &bundle)),
    }
}

fn replay_failure(arguments: &Replay, bundle: &Bundle) -> Verdict {
    let began = Instant::now();
    let replayed = bundle.replay(rules);
    let seconds = began.elapsed().as_secs_f64();
    let Replayed { report, identity, same_build, parting, first_difference, divergence, .. } = &replayed;
    if arguments.json {
        let file = arguments.file.to_str();
        let mut value = told::json_of(&bundle.scenario, bundle.seed, &bundle.config, report, seconds, file);
        value["replay"] = json!({
            "exact": replayed.exact,
            "same_build": same_build,
            "same_failure": replayed.same_failure,
            "fingerprint": bundle.failure.fingerprint().to_string(),
            "identity_differs": identity,
            "parting": parting,
            "first_difference": first_difference.map(|checkpoint| checkpoint.event),
            "decision": divergence.map(|divergence| format!("{divergence:?}")),
            "recorded_failure": bundle.failure.to_string(),
        });
        println!("{value}");
        return verdict(&replayed);
    }
    print!("{}", told::text_of(&bundle.scenario, bundle.seed, &bundle.config, report, seconds));
    println!("{:<12} {}", "recorded", bundle.failure);
    for (what, there, here) in identity {
        println!("{:<12} {what}: {there} there, {here} here", "build");
    }
    if let Some(parting) = parting {
        let node = parting.node.map_or_else(|| "no node".to_owned(), |node| format!("node {node}"));
        println!("{:<12} at event {}, {node}: {}", "diverged", parting.event, parting.what);
    } else if let Some(checkpoint) = first_difference {
        println!("{:<12} before event {}, {:?}", "diverged", checkpoint.event, checkpoint.at);
    }
    if let Some(divergence) = divergence {
        println!("{:<12} the record has no answer to {divergence:?}", "decision");
    }
    println!("{:<12} {}", "replay", in_words(&replayed));
    verdict(&replayed)
}

/// What became of the run; but one that is not the same twice on one build has failed, whatever became of it.
const fn verdict(replayed: &Replayed) -> Verdict {
    if replayed.same_build && !replayed.exact {
        Verdict::Failed
    } else {
        verdict_of(&replayed.report.outcome)
    }
}

fn in_words(replayed: &Replayed) -> &'static str {
    match (replayed.exact, replayed.same_failure, replayed.same_build) {
        (true, ..) => "exact",
        (false, true, false) => "another way to the same failure; the build is another",
        (false, false, false) => "the recorded failure did not happen; the build is another",
        (false, _, true) => {
            "NOT EXACT although the build is the same: the simulation is not deterministic, or its rules are others"
        }
    }
}

/// Tells what is in a bundle.
pub(crate) fn show(arguments: &Show) -> Result<Verdict, Complaint> {
    match open(&arguments.file)? {
        Opened::Recording(file) => flights::show(arguments, file),
        Opened::Failure(bundle) => {
            if arguments.json {
                println!("{}", json_of(&bundle));
            } else {
                print_failure(&bundle, arguments.faults);
            }
            Ok(Verdict::Passed)
        }
    }
}

fn decisions(bundle: &Bundle) -> impl Iterator<Item = (&'static str, usize)> {
    bundle.decisions.by_concern().into_iter().map(|(concern, count)| (concern.name(), count))
}

fn json_of(bundle: &Bundle) -> Value {
    let failure = &bundle.failure;
    json!({
        "kind": "failure",
        "build": bundle.identity,
        "same_build": bundle.identity.is_same_build(&Identity::current()),
        "scenario": bundle.scenario,
        "seed": bundle.seed,
        "config": bundle.config,
        "decisions": decisions(bundle).collect::<std::collections::BTreeMap<_, _>>(),
        "events": bundle.events,
        "digest": told::hex(&bundle.digest),
        "faults": bundle.faults,
        "planted": bundle.planted,
        "minimized_from": bundle.origin,
        "failure": {
            "kind": failure.kind.name(),
            "place": failure.place,
            "rule": failure.rule,
            "seen": failure.seen,
            "replica": failure.replica,
            "event": failure.event,
            "at_ns": failure.at.0,
            "fingerprint": failure.fingerprint().to_string(),
        },
    })
}

pub(crate) fn print_build(identity: &Identity) {
    for (name, value) in identity.fields() {
        println!("{:<12} {name} {value}", "build");
    }
    for (what, there, here) in identity.differences(&Identity::current()) {
        println!("{:<12} {what}: {there} there, {here} here", "differs");
    }
}

fn print_failure(bundle: &Bundle, faults_max: usize) {
    println!("{:<12} a simulated failure", "kind");
    print_build(&bundle.identity);
    println!("{:<12} {}, seed {}", "run", bundle.scenario, bundle.seed);
    if let Some(planted) = &bundle.planted {
        println!("{:<12} {planted}", "planted");
    }
    if let Some(origin) = &bundle.origin {
        println!("{:<12} {origin}", "was");
    }
    let config = &bundle.config;
    println!(
        "{:<12} {} replicas, {} clients, {} requests, pipeline {}, {} sessions",
        "cluster",
        config.replicas,
        config.work.clients,
        config.work.requests,
        config.pipeline_max,
        config.sessions_max
    );
    println!("{:<12} {:?}", "layout", config.layout);
    if let Some(sql) = told::spoken(config) {
        println!("{:<12} {sql}", "sql");
    }
    let families: Vec<&str> = config.faults.families.keys().map(|family| family.name()).collect();
    println!(
        "{:<12} {}",
        "families",
        if families.is_empty() { "none".to_owned() } else { families.join(", ") }
    );
    let decisions: Vec<String> =
        decisions(bundle).map(|(concern, count)| format!("{concern} {count}")).collect();
    println!("{:<12} {}", "decisions", decisions.join(", "));
    println!("{:<12} {}, digest {}", "events", bundle.events, told::hex(&bundle.digest));
    let untold = bundle.faults.len().saturating_sub(faults_max);
    println!("{:<12} {}", "faults", bundle.faults.len());
    if untold > 0 {
        println!("{:<12} {untold} earlier ones; --faults tells more", "…");
    }
    for Seen { event, at_ns, node, peer, what } in &bundle.faults[untold..] {
        let peer = peer.map(|peer| format!(" from node {peer}")).unwrap_or_default();
        let seconds = Duration::from_nanos(*at_ns).as_secs_f64();
        println!("{event:>12} {seconds:>14.6} s  node {node}{peer}: {what}");
    }
    println!("{:<12} {}", "failure", bundle.failure);
    println!("{:<12} {}", "fingerprint", bundle.failure.fingerprint());
}

/// Makes a failure smaller.
pub(crate) fn minimize(arguments: &Minimize) -> Result<Verdict, Complaint> {
    let path = &arguments.file;
    let bundle = match open(path)? {
        Opened::Failure(bundle) => bundle,
        Opened::Recording(_) => {
            let text = format!(
                "{} is a recording of a node; only a simulated failure can be minimized",
                path.display()
            );
            return Err(Complaint { verdict: Verdict::Usage, text });
        }
    };
    let out = arguments.output.clone().unwrap_or_else(|| beside(path));
    let began = Instant::now();
    let bar = if arguments.json || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new_spinner()
    };
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("a template of ours"));
    let mut go_on = |size: &Size| {
        bar.set_message(size.to_string());
        bar.tick();
        began.elapsed() < arguments.limit
    };
    let smaller = shrink(&bundle, rules, &mut go_on).map_err(|report| Complaint {
        verdict: Verdict::Failed,
        text: format!(
            "{} does not fail under its fingerprint here, it {}; `vopr replay` tells where it differs",
            path.display(),
            told::word(&report.outcome)
        ),
    })?;
    bar.finish_and_clear();
    fs::write(&out, smaller.bundle.encode()).map_err(|error| Complaint::io("write", &out, &error))?;
    let exact = smaller.bundle.replay(rules).exact;
    let seconds = began.elapsed().as_secs_f64();
    if arguments.json {
        let value = json!({
            "bundle": out, "before": smaller.before, "after": smaller.after, "tried": smaller.tried,
            "kept": smaller.kept, "complete": smaller.complete, "exact": exact, "seconds": seconds,
            "fingerprint": bundle.failure.fingerprint().to_string(),
        });
        println!("{value}");
    } else {
        println!("{:<12} {}", "before", smaller.before);
        println!("{:<12} {}", "after", smaller.after);
        let end =
            if smaller.complete { "nothing more can go" } else { "time was up; run it again on the result" };
        println!("{:<12} {} runs, {} kept, {seconds:.1} s; {end}", "effort", smaller.tried, smaller.kept);
        println!("{:<12} {}", "fingerprint", bundle.failure.fingerprint());
        println!("{:<12} {}", "bundle", out.display());
        println!(
            "{:<12} {}",
            "replay",
            if exact { "exact" } else { "NOT EXACT: the simulation is not deterministic" }
        );
    }
    Ok(if exact { Verdict::Passed } else { Verdict::Failed })
}

/// `a.kmb` becomes `a.min.kmb`.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("min.kmb")
}
