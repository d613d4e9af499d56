//! The rules, one module each. `check` appends what it finds; order does not matter.

pub mod core_crates;
pub mod debt;
pub mod dependencies;
pub mod length;
pub mod lints;
pub mod machine_paths;
pub mod probes;
pub mod reasons;
pub mod tree;
pub mod unsafe_code;
