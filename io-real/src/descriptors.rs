//! How many descriptors the process may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to `wanted`, as far as the hard limit allows. Answers the limit if it stays below.
/// Many systems give a process 1,024 for the sake of `select`, which nobody here uses.
pub(crate) fn ask_for(wanted: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // No limit is spelled `None`.
    let soft = limit.current?;
    if soft >= wanted {
        return None;
    }
    let raised = limit.maximum.map_or(wanted, |hard| hard.min(wanted)).max(soft);
    let granted = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
    let limit = if granted.is_ok() { raised } else { soft };
    (limit < wanted).then_some(limit)
}
