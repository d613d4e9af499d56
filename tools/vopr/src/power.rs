//! The power to find bugs, measured: campaigns against planted ones, beside a clean baseline.

use kimberlite_probe::Mutant;
use serde_json::json;

use crate::arguments::Power;
use crate::{Complaint, Verdict};

/// Measures, or lists what could be measured.
pub(crate) fn power(arguments: &Power) -> Result<Verdict, Complaint> {
    if arguments.list {
        for mutant in Mutant::ALL {
            let (name, site, story) = (mutant.name(), mutant.site(), mutant.story());
            if arguments.json {
                println!("{}", json!({ "mutant": name, "site": site, "story": story }));
            } else {
                println!("{name:<26} {story}\n{:<26} {site}", "");
            }
        }
        return Ok(Verdict::Passed);
    }
    measure(arguments)
}

#[cfg(not(feature = "mutants"))]
fn measure(_: &Power) -> Result<Verdict, Complaint> {
    Err(Complaint {
        verdict: Verdict::Usage,
        text: "this build holds no planted bugs; run one that does:\n  \
               cargo run --release -p vopr --features mutants -- power"
            .to_owned(),
    })
}

#[cfg(feature = "mutants")]
use measured::measure;

#[cfg(feature = "mutants")]
mod measured {
    use std::collections::BTreeMap;
    use std::io::IsTerminal as _;
    use std::sync::Mutex;
    use std::thread;

    use indicatif::{ProgressBar, ProgressStyle};
    use kimberlite_probe::Mutant;
    use kimberlite_sim::Failure;
    use serde_json::{Value, json};

    use crate::arguments::Power;
    use crate::campaign::{Baseline, Campaign, Plan, baseline, hunt, side_by_side};
    use crate::{Complaint, Verdict};

    #[expect(clippy::unnecessary_wraps, reason = "a build without planted bugs complains")]
    pub(super) fn measure(arguments: &Power) -> Result<Verdict, Complaint> {
        let Power { seeds, campaigns, start, scenario, json, .. } = *arguments;
        let jobs =
            arguments.jobs.map_or_else(|| thread::available_parallelism().map_or(1, Into::into), usize::from);
        let mutants = if arguments.mutants.is_empty() { Mutant::ALL } else { &arguments.mutants };
        let plans: Vec<Plan> = mutants
            .iter()
            .flat_map(|mutant| (0..campaigns).map(|number| (*mutant, start.wrapping_add(number * seeds))))
            .map(|(mutant, start)| Plan { scenario, mutant, start, seeds })
            .collect();
        let bar = bar(plans.len() as u64, "campaigns");
        let told = Mutex::new(Told { mutants, campaigns, json, ..Told::default() });
        told.lock().expect("nobody else has it yet").head();
        side_by_side(jobs, &plans, |plan| {
            let campaign = hunt(*plan);
            bar.inc(1);
            let mut told = told.lock().expect("no worker panics");
            bar.suspend(|| told.take(campaign));
            let missed = told.done.values().filter(|campaign| campaign.found.is_none()).count();
            bar.set_message(format!("{missed} missed, {} last", plan.mutant.name()));
        });
        bar.finish_and_clear();
        let done = told.into_inner().expect("no worker panics").done;
        let scores: Vec<Score<'_>> = mutants.iter().map(|mutant| Score::of(*mutant, &done)).collect();
        let clean = clean(arguments, &done, jobs);
        let missed = scores.iter().filter(|score| score.missed() > 0).count();
        let passed = missed == 0 && clean.alarms.is_empty();
        let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
        if json {
            println!("{}", json_of(&clean, missed, verdict));
        } else {
            print_clean(&clean, missed, scores.len());
        }
        Ok(verdict)
    }

    /// What is done, and how much of it was told: planted bugs are told in order, each when its last campaign ends.
    #[derive(Default)]
    struct Told<'a> {
        mutants: &'a [Mutant],
        campaigns: u64,
        json: bool,
        next: usize,
        done: BTreeMap<(Mutant, u64), Campaign>,
    }

    impl Told<'_> {
        fn head(&self) {
            if !self.json {
                print_head();
            }
        }

        fn take(&mut self, campaign: Campaign) {
            self.done.insert((campaign.plan.mutant, campaign.plan.start), campaign);
            while let Some(mutant) = self.mutants.get(self.next) {
                let score = Score::of(*mutant, &self.done);
                if (score.campaigns.len() as u64) < self.campaigns {
                    break;
                }
                if self.json {
                    println!("{}", score.json());
                } else {
                    score.print();
                }
                self.next += 1;
            }
        }
    }

    /// The same seeds without a planted bug, as far as the campaign that went furthest into each range.
    fn clean(arguments: &Power, done: &BTreeMap<(Mutant, u64), Campaign>, jobs: usize) -> Baseline {
        let mut furthest: BTreeMap<u64, u64> = BTreeMap::new();
        for ((_, start), campaign) in done {
            let seeds = furthest.entry(*start).or_default();
            *seeds = campaign.effort.seeds.max(*seeds);
        }
        let seeds: Vec<u64> = furthest
            .into_iter()
            .flat_map(|(start, seeds)| (0..seeds).map(move |index| start.wrapping_add(index)))
            .collect();
        let bar = bar(seeds.len() as u64, "seeds of the clean baseline");
        let clean = baseline(arguments.scenario, &seeds, jobs, &bar);
        bar.finish_and_clear();
        clean
    }

    /// A progress bar on standard error, if somebody looks.
    fn bar(len: u64, what: &str) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(&format!(
            "{{bar:40}} {{pos}}/{{len}} {what}, {{eta}} left  {{msg}}"
        ));
        ProgressBar::new(len).with_style(style.expect("the template is well formed"))
    }

    /// All campaigns against one planted bug.
    struct Score<'a> {
        mutant: Mutant,
        campaigns: Vec<&'a Campaign>,
    }

    impl<'a> Score<'a> {
        fn of(mutant: Mutant, done: &'a BTreeMap<(Mutant, u64), Campaign>) -> Self {
            let campaigns = done.values().filter(|campaign| campaign.plan.mutant == mutant).collect();
            Self { mutant, campaigns }
        }

        fn missed(&self) -> usize {
            self.campaigns.iter().filter(|campaign| campaign.found.is_none()).count()
        }

        fn sum(&self, of: impl Fn(&Campaign) -> u64) -> u64 {
            self.campaigns.iter().map(|campaign| of(campaign)).sum()
        }

        /// The median over campaigns; none when half of them or more missed. A miss counts as later than any find.
        fn median(&self, of: impl Fn(&Campaign) -> f64) -> Option<f64> {
            let mut found: Vec<f64> = self
                .campaigns
                .iter()
                .map(|campaign| if campaign.found.is_some() { of(campaign) } else { f64::INFINITY })
                .collect();
            found.sort_by(f64::total_cmp);
            let middle = found.len() / 2;
            let median = if found.len() % 2 == 1 {
                found[middle]
            } else {
                f64::midpoint(found[middle - 1], found[middle])
            };
            median.is_finite().then_some(median)
        }

        fn failures(&self) -> impl Iterator<Item = (u64, &'a Failure)> + '_ {
            self.campaigns
                .iter()
                .filter_map(|campaign| campaign.found.as_ref())
                .map(|(seed, what)| (*seed, what))
        }

        /// Who detected it, most often first.
        fn detectors(&self) -> String {
            let mut by: BTreeMap<String, usize> = BTreeMap::new();
            for (_, failure) in self.failures() {
                *by.entry(detector(failure)).or_default() += 1;
            }
            let mut by: Vec<(String, usize)> = by.into_iter().collect();
            by.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            by.into_iter().map(|(who, _)| who).collect::<Vec<_>>().join(", ")
        }

        /// A row of the table.
        fn print(&self) {
            let seeds = self.sum(|campaign| campaign.effort.seeds).max(1);
            let share = |of: u64| format!("{of} of {seeds}");
            let number = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "missed".to_owned(), |value| format!("{value:.digits$}"))
            };
            let all = self.campaigns.len();
            let first = self.failures().next().map_or_else(String::new, |(seed, _)| seed.to_string());
            println!(
                "| {:<24} | {:>13} | {:>15} | {:>11} | {:>6} | {:>7} | {:>7} | {first:>6} | {} |",
                self.mutant.name(),
                share(self.sum(|campaign| campaign.reached)),
                share(self.sum(|campaign| campaign.triggered)),
                format!("{} of {all}", all - self.missed()),
                number(
                    self.median(|campaign| f64::from(
                        u32::try_from(campaign.effort.seeds).unwrap_or(u32::MAX)
                    )),
                    0
                ),
                number(self.median(|campaign| campaign.effort.cpu_seconds), 2),
                number(self.median(|campaign| campaign.effort.virtual_seconds), 0),
                self.detectors(),
            );
        }

        fn json(&self) -> Value {
            let campaigns: Vec<Value> = self
                .campaigns
                .iter()
                .map(|campaign| {
                    let found = campaign.found.as_ref().map(|(seed, failure)| {
                        json!({
                            "seed": seed,
                            "kind": failure.kind.name(),
                            "place": failure.place,
                            "rule": failure.rule,
                            "seen": failure.seen,
                            "fingerprint": failure.fingerprint().to_string(),
                        })
                    });
                    json!({
                        "start": campaign.plan.start,
                        "seeds": campaign.effort.seeds,
                        "cpu_seconds": campaign.effort.cpu_seconds,
                        "virtual_seconds": campaign.effort.virtual_seconds,
                        "seeds_reached": campaign.reached,
                        "seeds_triggered": campaign.triggered,
                        "seeds_void": campaign.void,
                        "found": found,
                    })
                })
                .collect();
            json!({
                "mutant": self.mutant.name(),
                "site": self.mutant.site(),
                "story": self.mutant.story(),
                "missed": self.missed(),
                "seeds_median": self.median(|campaign| f64::from(u32::try_from(campaign.effort.seeds).unwrap_or(u32::MAX))),
                "cpu_seconds_median": self.median(|campaign| campaign.effort.cpu_seconds),
                "virtual_seconds_median": self.median(|campaign| campaign.effort.virtual_seconds),
                "campaigns": campaigns,
            })
        }
    }

    /// The checker, or where a panic was, or how it stood still.
    fn detector(failure: &Failure) -> String {
        match failure.kind {
            kimberlite_sim::FailureKind::Violation => failure.place.clone(),
            kind => format!("{} {}", kind.name(), failure.place),
        }
    }

    /// The head of a table that is Markdown, too.
    fn print_head() {
        println!(
            "| {:<24} | {:>13} | {:>15} | {:>11} | {:>6} | {:>7} | {:>7} | {:>6} | detected by |",
            "mutant", "seeds reached", "seeds triggered", "found", "seeds", "CPU s", "sim s", "seed"
        );
        println!(
            "|:{:-<24}-|-{:-<13}:|-{:-<15}:|-{:-<11}:|-{:-<6}:|-{:-<7}:|-{:-<7}:|-{:-<6}:|:------------|",
            "", "", "", "", "", "", "", ""
        );
    }

    fn print_clean(clean: &Baseline, missed: usize, all: usize) {
        let Baseline { effort, alarms } = clean;
        println!(
            "\n{} of {all} planted bugs found in every campaign. Without any: {} seeds, {:.1} CPU s, {:.0} s \
             simulated, {} alarms",
            all - missed,
            effort.seeds,
            effort.cpu_seconds,
            effort.virtual_seconds,
            alarms.len()
        );
        for (seed, failure) in alarms {
            println!("  seed {seed}: {failure}");
        }
    }

    fn json_of(clean: &Baseline, missed: usize, verdict: Verdict) -> Value {
        let alarms: Vec<Value> = clean
            .alarms
            .iter()
            .map(|(seed, failure)| json!({ "seed": seed, "failure": failure.to_string() }))
            .collect();
        json!({
            "baseline": {
                "seeds": clean.effort.seeds,
                "cpu_seconds": clean.effort.cpu_seconds,
                "virtual_seconds": clean.effort.virtual_seconds,
                "alarms": alarms,
            },
            "mutants_missed": missed,
            "exit_code": verdict as u8,
        })
    }
}
