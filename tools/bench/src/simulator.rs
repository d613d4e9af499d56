//! What a simulated run costs: seeds of the default swarm, one after the other, in this process.

use std::time::Duration;

use kimberlite_sim::{Luck, Outcome, Scenario, draw, rules, run};
use kmb::Failure;

use crate::arguments::Sim;
use crate::figures::{Aim, Report, Series};
use crate::setting::{Setting, own_time};

/// Runs the command.
pub(crate) fn measure(setting: &Setting, sim: &Sim) -> Result<Vec<Report>, Failure> {
    let none = Series::default;
    let (mut requests, mut ops, mut speed, mut median, mut seed_seconds, mut slowest, mut memory) =
        (none(), none(), none(), none(), none(), none(), none());
    let mut failed = 0;
    let rounds = setting.repetitions;
    // A repetition is a share of the seeds, so that all of them together are as many as were asked for.
    let share = sim.seeds.div_ceil(u64::from(rounds));
    for round in 0..rounds {
        let mut sum = Sum::default();
        for index in 0..share {
            setting.step(&format!("sim: seed {} of {share}, {} of {rounds}", index + 1, round + 1))?;
            let seed = sim.start.wrapping_add(u64::from(round) * share + index);
            sum.take(seed);
        }
        requests.push(sum.requests / sum.seconds);
        ops.push(sum.ops / sum.seconds);
        speed.push(sum.simulated / sum.seconds);
        median.push(sum.each_speed.median());
        seed_seconds.push(sum.each_seconds.median());
        slowest.push(sum.each_seconds.max());
        memory.push(sum.memory);
        failed += sum.failed;
    }
    let mut report = Report::new(format!(
        "sim: seeds {} to {} of the default swarm, {rounds} times {share}",
        sim.start,
        sim.start.wrapping_add(u64::from(rounds) * share - 1)
    ));
    report.aimed("committed client requests a CPU-second", "/s", requests, Aim::AtLeast(3500.0));
    report.row("committed ops a CPU-second", "/s", ops);
    report.aimed("simulated seconds a CPU-second, all", "", speed, Aim::AtLeast(2600.0));
    report.aimed("simulated seconds a CPU-second, median seed", "", median, Aim::AtLeast(2400.0));
    report.aimed("CPU-seconds a seed, median", "s", seed_seconds, Aim::AtMost(0.05));
    report.row("CPU-seconds a seed, slowest", "s", slowest);
    report.aimed("memory of the largest world", "MiB", memory, Aim::AtMost(32.0));
    if failed > 0 {
        report.note(format!("{failed} seeds failed; `vopr swarm` tells how"));
    }
    Ok(vec![report])
}

/// What some seeds took and did.
#[derive(Default)]
struct Sum {
    seconds: f64,
    simulated: f64,
    requests: f64,
    ops: f64,
    memory: f64,
    failed: u32,
    each_seconds: Series,
    each_speed: Series,
}

impl Sum {
    fn take(&mut self, seed: u64) {
        let config = draw(Scenario::Default, seed);
        let begun = own_time();
        let (report, _) = run(&config, seed, Luck::Free, rules);
        let seconds = own_time().saturating_sub(begun).as_secs_f64();
        let simulated = Duration::from_nanos(report.at.0).as_secs_f64();
        self.seconds += seconds;
        self.simulated += simulated;
        self.requests += count(report.counts.requests_done);
        self.ops += count(report.counts.ops_committed);
        self.memory = self.memory.max(count(report.memory) / f64::from(1 << 20));
        self.failed += u32::from(matches!(report.outcome, Outcome::Failed(_)));
        self.each_seconds.push(seconds);
        self.each_speed.push(simulated / seconds);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn count(count: u64) -> f64 {
    count as f64
}
