#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::Target::named("journal_recovery").expect("listed").run(bytes));
