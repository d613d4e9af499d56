//! What there is: scenarios and rules.

use kimberlite_sim::{Scenario, draw, rules};
use serde_json::json;

use crate::arguments::List;
use crate::{Complaint, Verdict};

/// Lists the scenarios.
pub(crate) fn scenarios(list: &List) -> Result<Verdict, Complaint> {
    for scenario in Scenario::ALL {
        let (name, summary, minimum) = (scenario.name(), scenario.summary(), scenario.minimum());
        if list.json {
            println!("{}", json!({ "name": name, "summary": summary, "minimum": minimum }));
        } else {
            println!("{name:<10} {summary}\n{:<10} must show: {}", "", minimum.join(", "));
        }
    }
    Ok(Verdict::Passed)
}

/// Lists the rules by checker.
pub(crate) fn invariants(list: &List) -> Result<Verdict, Complaint> {
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
    Ok(Verdict::Passed)
}
