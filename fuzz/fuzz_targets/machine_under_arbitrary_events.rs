#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::Target::named("machine_under_arbitrary_events").expect("listed").run(bytes));
