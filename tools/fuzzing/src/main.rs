//! `fuzzing`: the fuzz targets' bodies on the command line, without a fuzzer.
//!
//! Exit codes: 0 done, 1 an input breaks its target, 2 wrong usage, 5 a file could not be read or written.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fuzzing::{TARGETS, Target, bundle_of_world};

/// Runs fuzz targets without a fuzzer: to look at a crash, and to make the corpora anew.
#[derive(Parser)]
#[command(
    name = "fuzzing",
    after_help = "Example:\n  cargo run -p fuzzing -- run frame fuzz/artifacts/frame/crash-1c2e"
)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// List the targets.
    List,
    /// Hand files, or all files of folders, to a target, and say which of them break it.
    Run(RunArguments),
    /// Write the inputs that the corpora grow from, each below the folder of its target. Other files are left alone.
    Corpus {
        /// The folder of all corpora.
        #[arg(default_value = "seeds/corpus", value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Write the failure of an input of `world_decisions` as a bundle for `vopr replay`.
    Bundle {
        /// The input.
        input: PathBuf,
        /// The bundle.
        #[arg(value_name = "OUT.kmb")]
        output: PathBuf,
    },
}

#[derive(Args)]
struct RunArguments {
    /// The target.
    #[arg(value_parser = target_named)]
    target: &'static Target,
    /// Inputs, or folders of inputs.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
}

fn target_named(name: &str) -> Result<&'static Target, String> {
    Target::named(name).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("there is no such target; there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::List => {
            for target in &TARGETS {
                println!("{:32} {}", target.name, target.summary);
            }
            Ok(true)
        }
        Chore::Run(arguments) => run(&arguments),
        Chore::Corpus { folder } => corpus(&folder).map(|()| true),
        Chore::Bundle { input, output } => bundle(&input, &output),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("fuzzing: {error}");
            ExitCode::from(5)
        }
    }
}

/// An error that names its file.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn run(arguments: &RunArguments) -> io::Result<bool> {
    let mut files = Vec::new();
    for input in &arguments.inputs {
        if input.is_dir() {
            for entry in fs::read_dir(input).map_err(at(input))? {
                files.push(entry?.path());
            }
        } else {
            files.push(input.clone());
        }
    }
    files.sort();
    let mut broken = 0;
    for file in &files {
        let bytes = fs::read(file).map_err(at(file))?;
        if catch_unwind(AssertUnwindSafe(|| arguments.target.run(&bytes))).is_err() {
            println!("{} breaks {}", file.display(), arguments.target.name);
            broken += 1;
        }
    }
    println!("{}: {} inputs, {broken} break it", arguments.target.name, files.len());
    Ok(broken == 0)
}

fn corpus(folder: &Path) -> io::Result<()> {
    for target in &TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let seeds = target.seeds();
        let bytes: usize = seeds.iter().map(|seed| seed.bytes.len()).sum();
        for seed in &seeds {
            let file = folder.join(&seed.name);
            fs::write(&file, &seed.bytes).map_err(at(&file))?;
        }
        println!("{:32} {:3} inputs, {bytes} bytes", target.name, seeds.len());
    }
    Ok(())
}

fn bundle(input: &Path, output: &Path) -> io::Result<bool> {
    let bytes = fs::read(input).map_err(at(input))?;
    let Some(bundle) = bundle_of_world(&bytes) else {
        println!("{} does not fail: nothing to write", input.display());
        return Ok(false);
    };
    fs::write(output, bundle.encode()).map_err(at(output))?;
    println!("{}\nvopr replay {}", bundle.failure, output.display());
    Ok(true)
}
