#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::Target::named("kmb_bundle").expect("listed").run(bytes));
