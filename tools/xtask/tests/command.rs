//! The command line's promises: output and exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A workspace in a folder of its own, removed when the test ends.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, note: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("tools/a/src")).expect("folder");
        let write = |path: &str, text: &str| fs::write(root.join(path), text).expect("file");
        write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"tools/a\"]\n");
        write(
            "tools/a/Cargo.toml",
            "[package]\nname = \"a\"\nedition = \"2024\"\n\n[lints]\nworkspace = true\n",
        );
        write("tools/a/src/lib.rs", "//! Nothing.\n");
        write("README.md", note);
        let workspace_lints = "\n[workspace.lints.rust]\nunsafe_code = \"deny\"\n";
        let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("file") + workspace_lints;
        write("Cargo.toml", &manifest);
        Self(root)
    }

    fn tidy(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["tidy", "--root"])
            .arg(&self.0)
            .args(more)
            .output()
            .expect("starts")
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

#[test]
fn a_clean_tree_exits_with_0_and_says_so() {
    let output = Tree::new("clean", "# A\n").tidy(&["--report"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("clean\n"), "{text}");
    assert!(text.contains("0 files of more than 800 lines"), "{text}");
}

#[test]
fn a_violation_exits_with_1_and_names_file_and_line_for_people_and_for_scripts() {
    let tree = Tree::new("untidy", concat!("# A\nFIX", "ME\n"));
    let output = tree.tidy(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("README.md:2: [debt] "));

    let output = tree.tidy(&["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["clean"], false);
    assert_eq!(answer["violations"][0]["rule"], "debt");
    assert_eq!(answer["violations"][0]["line"], 2);
}

#[test]
fn wrong_usage_and_a_missing_tree_exit_with_2() {
    let xtask = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("starts");
        output.status.code()
    };
    assert_eq!(xtask(&["tidy", "--no-such-option"]), Some(2));
    assert_eq!(xtask(&[]), Some(2));
    assert_eq!(xtask(&["tidy", "--root", "/"]), Some(2));
}

#[test]
fn a_strange_fuzz_target_exits_with_2_and_the_near_ones_are_listed() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["fuzz", "fram"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no target `fram`; there are frame, "), "{said}");
}

#[test]
fn without_its_tools_fuzzing_says_how_to_install_them() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["fuzz", "frame"]).env("PATH", "").output().expect("starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("run `rustup toolchain install nightly"), "{said}");
}
