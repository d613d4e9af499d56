//! `kmb sql`: statements in, rows out.

mod copy;
mod embedded;
mod prompt;
mod show;
mod split;

use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use kimberlite_query::copy::CopyIn;
use kimberlite_types::ClusterId;
use kimberlite_wire::client::{SqlAnswer, SqlFailure, SqlRows, Statement};
use kimberlite_wire::command::{Command, Refusal};

use crate::Failure;
use crate::address::{Cluster, Name, name};
use crate::connection::{Connection, Options};
use crate::output::print;
use crate::signals::{Stop, on_signal};
use embedded::Embedded;
use show::Format;
use split::{is_blank, is_command, split};

/// What `kmb sql` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb sql --create-tenant -c 'CREATE TABLE patient (id INT PRIMARY KEY, name TEXT NOT NULL)'
  kmb sql -c \"INSERT INTO patient VALUES (1, 'Ada')\" -c 'SELECT * FROM patient'
  kmb sql -f schema.sql --format json
  kmb sql -c '\\copy patient FROM patients.csv CSV HEADER'
  kmb sql --data ./data                          a stopped lone node's data, run inside this command

All statements of one call are run in one session, one after the other, and each is a transaction of its own
unless BEGIN and COMMIT stand around it. A line of -c, -f or standard input may also be a command of the prompt, as \\d or \\timing. What COMMIT or a single statement answered is durable on a majority of
the nodes. Ctrl-C cancels the statement under way; given twice it ends the command. When the connection is lost before an answer, it is not known whether a write was done, and it is not
sent again. Without -c and -f, statements are read from standard input; if that is a terminal there is a prompt,
where \\? lists its own commands. Data of COPY … FROM STDIN stand behind it in a script, up to a line \\., or
come from standard input; many rows are stored in parts, each a transaction of its own outside of a block. Exit codes: 0 all done, 1 a statement
failed and those behind it were not run, 2 wrong usage, 3 no answer in time or the connection was lost, 5 I/O error.")]
pub(crate) struct Sql {
    #[command(flatten)]
    cluster: Cluster,
    /// Open the data directory of a lone node that does not run, in this process, instead of asking nodes
    #[arg(long, value_name = "DIR", conflicts_with = "id")]
    data: Option<PathBuf>,
    /// The tenant: a name or a number
    #[arg(long, value_name = "TENANT", value_parser = name, default_value = "default")]
    tenant: Name,
    /// Make the tenant if it does not exist
    #[arg(long)]
    create_tenant: bool,
    /// Run these statements; may be given several times
    #[arg(short = 'c', long = "command", value_name = "TEXT")]
    commands: Vec<String>,
    /// Run the statements of this file, after those of -c
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How answers are written to standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Runs the command.
pub(crate) fn run(args: &Sql) -> Result<(), Failure> {
    let Some(data) = &args.data else { return talk(args, &args.cluster.nodes) };
    let embedded = Embedded::start(data)?;
    let result = talk(args, &[embedded.address]);
    // A node that halted says more than a client that was not answered.
    embedded.stop().and(result)
}

fn talk(args: &Sql, nodes: &[SocketAddr]) -> Result<(), Failure> {
    let prompt = args.commands.is_empty() && args.file.is_none() && io::stdin().is_terminal();
    let texts = if prompt { Vec::new() } else { texts(args)? };
    let connection = Connection::open(
        nodes,
        Options {
            cluster: args.cluster.id.unwrap_or(ClusterId::UNNAMED),
            sessions: 1,
            give_up_after: Some(args.cluster.timeout),
        },
    )?;
    let interrupt = Stop::default();
    on_signal(&interrupt, [connection.waker()])?;
    let mut talk = Talk::new(connection, interrupt, args);
    if args.create_tenant {
        talk.create_tenant()?;
    }
    if prompt {
        return prompt::run(&mut talk);
    }
    for text in &texts {
        let (statements, rest) = split(text);
        for statement in statements.into_iter().chain([rest]) {
            if !is_blank(statement) && !talk.take(statement)? {
                return Ok(());
            }
        }
    }
    if talk.in_block {
        eprintln!("WARNING: the last transaction was not committed, and nothing of it is done");
    }
    Ok(())
}

/// What is to be run.
fn texts(args: &Sql) -> Result<Vec<String>, Failure> {
    let mut texts = args.commands.clone();
    if let Some(path) = &args.file {
        texts.push(fs::read_to_string(path).map_err(|error| Failure::on(path, &error))?);
    }
    if args.commands.is_empty() && args.file.is_none() {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new(crate::failure::Kind::Io, format!("standard input: {error}")))?;
        texts.push(text);
    }
    Ok(texts)
}

/// A session, and how its answers are shown.
struct Talk {
    connection: Connection,
    tenant: Name,
    format: Format,
    /// Asked by Ctrl-C, which ends the statement under way.
    interrupt: Stop,
    /// Whether a cell has a line of its own.
    expanded: bool,
    /// Whether it is told how long each statement took.
    timing: bool,
    /// Whether a transaction block is open.
    in_block: bool,
}

impl Talk {
    fn new(connection: Connection, interrupt: Stop, args: &Sql) -> Self {
        let Sql { tenant, format, .. } = args;
        let (tenant, format) = (tenant.clone(), *format);
        Self { connection, tenant, format, interrupt, expanded: false, timing: false, in_block: false }
    }

    fn create_tenant(&mut self) -> Result<(), Failure> {
        let command = Command::CreateTenant { name: &self.tenant.text };
        match self.connection.submit(self.tenant.tenant(), &command)?.result {
            Ok(_) | Err(Refusal::TenantExists) => Ok(()),
            Err(refusal) => Err(Failure::failed(refusal.to_string())),
        }
    }

    /// Takes a statement, or a command that begins with a backslash. Answers false when that was the last.
    fn take(&mut self, text: &str) -> Result<bool, Failure> {
        let command = text.trim();
        if is_command(command) && !command.starts_with("\\copy") {
            return prompt::command(self, command);
        }
        let begun = Instant::now();
        let goes_on = self.run(text)?;
        if self.timing && goes_on {
            return print(format!("Time: {:.3} ms\n", begun.elapsed().as_secs_f64() * 1e3).as_bytes());
        }
        Ok(goes_on)
    }

    /// Runs a statement, or `\\copy`, and shows its answer. Answers false when nobody reads what is shown.
    fn run(&mut self, text: &str) -> Result<bool, Failure> {
        let text = text.trim();
        if let Some(command) =
            text.strip_prefix("\\copy").filter(|rest| rest.starts_with(char::is_whitespace))
        {
            return self.copy_file(command);
        }
        if copy::takes_data(text)
            && let Some(copy) = CopyIn::of(text)
        {
            return self.copy_in(&copy, text);
        }
        let rows = self.answered(text)?;
        if let Some(lines) = copy::lines(&rows) {
            return print(lines.as_bytes());
        }
        print(show::rows(&rows, self.format, self.expanded).as_bytes())
    }

    /// The answer to a statement; its notices are shown.
    fn answered(&mut self, text: &str) -> Result<SqlRows, Failure> {
        let rows = match self.ask(text)?.result {
            Ok(rows) => rows,
            Err(failure) => return Err(self.failed(&failure, text)),
        };
        for notice in &rows.notices {
            eprintln!("NOTICE: {notice}");
        }
        Ok(rows)
    }

    /// Shows the tag of a statement that gives no rows.
    fn say(&self, tag: &str) -> Result<bool, Failure> {
        let rows = SqlRows { tag: tag.to_owned(), ..SqlRows::default() };
        print(show::rows(&rows, self.format, self.expanded).as_bytes())
    }

    /// A refusal, as it is shown.
    fn failed(&self, failure: &SqlFailure, text: &str) -> Failure {
        let mut shown = match self.format {
            Format::Json => show::failure_json(failure).to_string(),
            Format::Table | Format::Csv => show::failure(failure, text),
        };
        if failure.code.as_str() == Refusal::NoTenant.sqlstate() && self.format != Format::Json {
            let tenant = &self.tenant.text;
            shown = format!("{shown}\nHINT: `kmb sql --create-tenant` makes tenant `{tenant}`.");
        }
        Failure::failed(shown)
    }

    fn ask(&mut self, text: &str) -> Result<SqlAnswer, Failure> {
        let statement =
            Statement { tenant: self.tenant.tenant(), in_block: self.in_block, text: text.to_owned() };
        let asked = self.connection.statement_until(statement, &self.interrupt);
        // A block does not outlive its connection.
        self.in_block = asked.as_ref().is_ok_and(|answer| answer.in_block);
        asked
    }
}
