#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::Target::named("plan_and_execute").expect("listed").run(bytes));
