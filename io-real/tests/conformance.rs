//! The real driver passes the conformance suite.

mod common;

use std::time::Duration;

use common::bench::RealBench;
use kimberlite_io::conformance::{self, Bench, Geometry, MachineFactory, Verdict, watched};

/// The real driver, with the rules of the waist asserted around every machine.
struct Strict(RealBench);

impl Bench for Strict {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict> {
        self.0.phase(machines.into_iter().map(watched).collect(), limit)
    }
}

#[test]
fn every_case_passes() {
    for case in conformance::cases() {
        assert_eq!(case.run(&mut Strict(RealBench::new())), Ok(()), "{}", case.name);
    }
}
