//! What is too deep, too long or too much ends in an error with its SQLSTATE, never in a crash.

use std::fmt::Write as _;
use std::process::Command;

#[test]
fn deep_long_and_large_statements_are_refused_by_name() {
    let mut file = String::new();
    let mut refused =
        |sql: &str, state: &str| writeln!(file, "statement error {state}\n{sql}\n").expect("text grows");
    refused(&format!("SELECT {}1", "1+".repeat(100_000)), "54001");
    refused(&format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000)), "54001");
    refused(&format!("SELECT {}1", "- ".repeat(5000)), "54001");
    refused(&format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(3000)), "54001");
    refused("SELECT repeat('x', 1000000000)", "54000");
    writeln!(file, "query I\nSELECT {}1\n----\n901\n", "1+".repeat(900)).expect("text grows");
    let list: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    writeln!(file, "query I\nSELECT 1 IN ({})\n----\n1\n", list.join(",")).expect("text grows");
    let path = std::env::temp_dir().join(format!("limits-{}.slt", std::process::id()));
    std::fs::write(&path, file).expect("the folder can be written");
    let output =
        Command::new(env!("CARGO_BIN_EXE_slt")).arg("--verbose").arg(&path).output().expect("it starts");
    std::fs::remove_file(&path).expect("it was there");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", shown.chars().take(2000).collect::<String>());
}
