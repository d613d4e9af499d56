//! Seeds that once failed pass.

use kimberlite_sim::{Luck, Outcome, Scenario, draw, rules, run};

#[test]
fn every_seed_that_once_failed_passes() {
    let list = include_str!("../../seeds/default.txt");
    let seeds: Vec<u64> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().next().expect("a seed").parse().expect("a number"))
        .collect();
    assert!(seeds.len() >= 20, "the list is read");
    for seed in seeds {
        let config = draw(Scenario::Default, seed);
        let (report, _) = run(&config, seed, Luck::Free, rules);
        assert!(!matches!(report.outcome, Outcome::Failed(_)), "seed {seed}: {:?}", report.outcome);
        assert!(report.counts.ops_committed > 0, "seed {seed}: nothing happened");
    }
}
