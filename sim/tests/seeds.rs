//! Seeds that once failed pass.

use kimberlite_sim::{Luck, Outcome, Scenario, draw, rules, run};

/// Runs all seeds of a list, which holds so many at least.
fn pass(scenario: Scenario, list: &str, least: usize) {
    let seeds: Vec<u64> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().next().expect("a seed").parse().expect("a number"))
        .collect();
    assert!(seeds.len() >= least, "the list is read");
    for seed in seeds {
        let config = draw(scenario, seed);
        let (report, _) = run(&config, seed, Luck::Free, rules);
        assert!(!matches!(report.outcome, Outcome::Failed(_)), "seed {seed}: {:?}", report.outcome);
        assert!(report.counts.ops_committed > 0, "seed {seed}: nothing happened");
    }
}

#[test]
fn every_seed_that_once_failed_passes() {
    pass(Scenario::Default, include_str!("../../seeds/default.txt"), 20);
    pass(Scenario::Sql, include_str!("../../seeds/sql.txt"), 2);
}
