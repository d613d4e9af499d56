//! `kmb`: the node, the client and the administration tool in one program.
use std::process::ExitCode;

fn main() -> ExitCode {
    kmb::main()
}
