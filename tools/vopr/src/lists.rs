//! What there is: scenarios and rules.

use kimberlite_sim::{Scenario, draw, rules};
use serde_json::json;

use crate::Verdict;
use crate::arguments::List;

/// Lists the scenarios.
pub(crate) fn scenarios(list: &List) -> Verdict {
    for scenario in Scenario::ALL {
        let (name, summary, minimum) = (scenario.name(), scenario.summary(), scenario.minimum());
        if list.json {
            println!("{}", json!({ "name": name, "summary": summary, "minimum": minimum }));
        } else {
            println!("{name:<10} {summary}\n{:<10} must show: {}", "", minimum.join(", "));
        }
    }
    Verdict::Passed
}

/// Lists the rules by checker.
pub(crate) fn invariants(list: &List) -> Verdict {
    for checker in rules(&draw(Scenario::Default, 0)) {
        let (name, rules) = (checker.name(), checker.rules());
        if list.json {
            println!("{}", json!({ "checker": name, "rules": rules }));
        } else {
            println!("{name}");
            for rule in rules {
                println!("  {rule}");
            }
        }
    }
    Verdict::Passed
}
