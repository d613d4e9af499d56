//! Numbers that everybody adds to: each addition counts once, and what is read lies between what must count and what may.

use std::collections::BTreeMap;

use kimberlite_types::{Instant, TenantId};

use super::hold;
use super::transactions::{Act, Fate, Transactions};
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "counters";
const BETWEEN: &str =
    "a number is the sum of what was added to it before, and of some of what was added meanwhile";
const APART: &str = "no two additions come out at the same number";

/// Gathers additions, and judges them at the end.
#[derive(Default)]
pub struct Counters {
    transactions: Transactions,
    compared: u64,
}

/// What one transaction added to a number.
struct Added {
    by: i64,
    began: u64,
    ended: Option<u64>,
    fate: Fate,
    transaction: usize,
}

impl Counters {
    fn judge(&mut self) -> Result<(), Violation> {
        let mut added: BTreeMap<(TenantId, u64), Vec<Added>> = BTreeMap::new();
        for (number, transaction) in self.transactions.all.iter().enumerate() {
            for act in &transaction.acts {
                if let Act::Add(tenant, counter, by, _) = act {
                    let (began, ended, fate) = (transaction.began, transaction.ended, transaction.fate);
                    let one = Added { by: *by, began, ended, fate, transaction: number };
                    added.entry((*tenant, *counter)).or_default().push(one);
                }
            }
        }
        // Where each addition of which it is known came out: from what, to what.
        let mut steps: BTreeMap<(TenantId, u64), Vec<(i64, i64)>> = BTreeMap::new();
        for (number, transaction) in self.transactions.all.iter().enumerate() {
            if transaction.fate != Fate::Committed {
                continue;
            }
            let mut own: BTreeMap<u64, i64> = BTreeMap::new();
            for act in &transaction.acts {
                let shown: Vec<(TenantId, u64, i64)> = match act {
                    Act::Add(tenant, counter, by, came_out) => {
                        *own.entry(*counter).or_default() += by;
                        let Some(came_out) = came_out else { continue };
                        steps.entry((*tenant, *counter)).or_default().push((came_out - by, *came_out));
                        vec![(*tenant, *counter, *came_out)]
                    }
                    Act::Numbers(tenant, numbers) => {
                        numbers.iter().map(|(counter, value)| (*tenant, *counter, *value)).collect()
                    }
                    _ => continue,
                };
                // What is read behind a place that was gone back to may count what is gone.
                if !transaction.taken_back.is_empty() {
                    continue;
                }
                for (tenant, counter, value) in shown {
                    let outside = value - own.get(&counter).copied().unwrap_or(0);
                    let others = || {
                        added
                            .get(&(tenant, counter))
                            .into_iter()
                            .flatten()
                            .filter(|one| one.transaction != number)
                    };
                    let before = |one: &&Added| {
                        one.fate == Fate::Committed
                            && one.ended.is_some_and(|ended| ended < transaction.began)
                    };
                    let perhaps = |one: &&Added| {
                        one.fate != Fate::Aborted && transaction.ended.is_none_or(|ended| one.began < ended)
                    };
                    let least: i64 = others().filter(before).map(|one| one.by).sum();
                    let most: i64 = others().filter(perhaps).map(|one| one.by).sum();
                    self.compared += 1;
                    hold!(
                        (least..=most).contains(&outside),
                        BETWEEN,
                        None,
                        None,
                        "client {} reads {value} in number {counter} of {tenant}, {outside} of it by others; due is {least} to {most}",
                        transaction.client
                    );
                }
            }
        }
        for ((tenant, counter), mut steps) in steps {
            steps.sort_unstable();
            for pair in steps.windows(2) {
                self.compared += 1;
                hold!(
                    pair[0].1 <= pair[1].0,
                    APART,
                    None,
                    None,
                    "number {counter} of {tenant} went from {} to {} and from {} to {}",
                    pair[0].0,
                    pair[0].1,
                    pair[1].0,
                    pair[1].1
                );
            }
        }
        Ok(())
    }
}

impl Checker for Counters {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[BETWEEN, APART]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.transactions.observe(seen);
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
        self.judge()
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use crate::sql::{Deed, Look, When};

    const ALL: Deed = Deed::Look(Look::Counters, When::Now);

    fn add(by: u64) -> Deed {
        Deed::Add { counter: 0, by, returning: true }
    }

    fn judged(story: impl FnOnce(&mut Speech<'_>)) -> Result<(), Violation> {
        let mut checker = Counters::default();
        story(&mut Speech(&mut checker));
        finish_on(&mut checker, &History::new(3), |_| {})
    }

    #[test]
    fn sums_with_unknown_outcomes_lie_between() {
        for (sum, holds) in [("4", false), ("5", true), ("7", true), ("8", false)] {
            let result = judged(|says| {
                says.done(0, &add(1), "UPDATE 1", &[&["1"]]);
                says.lost(1, &add(2));
                says.refused(1, &add(1), "40001");
                says.begin(0);
                says.in_block(0, &add(4), "UPDATE 1", &[]);
                says.end(0, "COMMIT");
                says.done(2, &ALL, "SELECT 1", &[&["0", sum]]);
            });
            if holds {
                result.unwrap();
            } else {
                assert_broken(&checker_rules(&Counters::default()), result, BETWEEN);
            }
        }
    }

    #[test]
    fn two_additions_to_the_same_number_are_noticed() {
        let result = judged(|says| {
            says.lost(0, &add(2));
            says.done(1, &add(1), "UPDATE 1", &[&["3"]]);
            says.lost(0, &add(1));
            says.done(2, &add(1), "UPDATE 1", &[&["3"]]);
        });
        assert_broken(&checker_rules(&Counters::default()), result, APART);
    }
}
