//! The journal alone, on a disk that answers everything.

use std::collections::VecDeque;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Ask, Asked, Machine, Ordered};
use kimberlite_storage::{
    FetchError, HaltReason, Input, Output, Recovered, Storage, Verifier, VerifyInput, VerifyOutput,
};
use kimberlite_types::{Config, Op};
use kimberlite_wire::Prepare;

use crate::platter::Platter;
use crate::seat::at;

/// Answers of the disk until a journal must be open.
const ANSWERS_MAX: usize = 20_000;

/// A data directory and the machine that opens it.
pub(crate) struct Desk {
    pub(crate) platter: Platter,
    storage: Storage,
    rules: Ordered,
    asks: Vec<Ask>,
    out: Vec<Output>,
}

impl Desk {
    pub(crate) fn new(config: Config, platter: Platter) -> Self {
        Self {
            platter,
            storage: Storage::new(config),
            rules: Ordered::new(),
            asks: Vec::new(),
            out: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        if let Input::Event(event) = &input {
            self.rules.heard(event);
        }
        let mut asked = Asked::new();
        self.storage.on(at(1), input, &mut self.rules.wrap(&mut asked), &mut self.out);
        self.asks.extend(asked.take());
    }

    /// Answers all asks; `pick` chooses among so many.
    fn run(&mut self, pick: &mut dyn FnMut(usize) -> usize) {
        let mut answers = 0;
        while !self.asks.is_empty() {
            let ask = self.asks.remove(pick(self.asks.len()));
            let event = self.platter.answer(ask);
            self.input(Input::Event(event));
            answers += 1;
            assert!(answers < ANSWERS_MAX, "a journal is open after so many answers");
        }
    }

    /// Opens the data directory. It is open or refused when the disk has answered everything.
    pub(crate) fn open(&mut self, pick: &mut dyn FnMut(usize) -> usize) -> Result<Recovered, HaltReason> {
        self.input(Input::Start);
        self.run(pick);
        let mut opened = None;
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Opened(recovered) => opened = Some(Ok(*recovered)),
                Output::Halted(reason) => opened = Some(Err(reason)),
                _ => {}
            }
        }
        opened.expect("a data directory is opened or refused")
    }

    /// Reads a prepare back.
    pub(crate) fn fetch(&mut self, op: u64, checksum: Option<Checksum>) -> Result<Prepare, FetchError> {
        self.input(Input::Fetch { op: Op(op), checksum });
        self.run(&mut |_| 0);
        let found = self.out.drain(..).find_map(|output| match output {
            Output::Fetched { op: of, checksum: by, result } if (of, by) == (Op(op), checksum) => {
                Some(result)
            }
            _ => None,
        });
        found.expect("every fetch is answered")
    }
}

/// Verifies a data directory, as `kmb verify` does.
pub(crate) fn verify(config: Config, mut platter: Platter) -> VerifyOutput {
    let mut verifier = Verifier::new(config);
    let mut rules = Ordered::new();
    let mut out = Vec::new();
    let mut asks = VecDeque::new();
    let mut input = Some(VerifyInput::Start);
    while let Some(next) = input {
        if let VerifyInput::Event(event) = &next {
            rules.heard(event);
        }
        let mut asked = Asked::new();
        verifier.on(at(1), next, &mut rules.wrap(&mut asked), &mut out);
        asks.extend(asked.take());
        input = asks.pop_front().map(|ask| {
            assert!(matches!(ask, Ask::Read { .. }), "who verifies changes nothing");
            VerifyInput::Event(platter.answer(ask))
        });
    }
    out.pop().expect("the last word is a verdict")
}
