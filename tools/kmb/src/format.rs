//! `kmb format`: makes a data directory for one replica.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kimberlite_io::Machine as _;
use kimberlite_io_real::{DataDirectory, Driver, Geometry, Options};
use kimberlite_storage::{FormatError, FormatInput, FormatOutput, Formatter};
use kimberlite_types::limits::{REPLICAS_MAX, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{ClusterId, Config, Layout};
use serde_json::json;

use crate::failure::Kind;
use crate::node_file::{self, NodeFile, Secret, parse_cluster};
use crate::output::say;
use crate::{Failure, random};

/// What `kmb format` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb format --data ./data
  kmb format --data ./data0 --replica 0 --replicas 3 --secret-file ./link.secret
  kmb format --data ./data1 --replica 1 --replicas 3 --secret-file ./link.secret --cluster-id <ID>

All replicas of a cluster are formatted with the same cluster id and the same link secret, with which they
authenticate what they send each other. The first one draws both; copy the secret's file to the machines of
the others. Exit codes: 0 formatted, 1 refused, 2 wrong usage, 5 I/O error.")]
pub(crate) struct Format {
    /// The directory; it must not exist or be empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    identity: Identity,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Which replica of which cluster a directory is for.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Identity {
    /// Which replica this is, counted from 0
    #[arg(long, value_name = "I")]
    replica: Option<u8>,
    /// How many replicas the cluster has, 1 to 6 [default: 1]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// The cluster's id [default: drawn at random]
    #[arg(long, value_name = "HEX", value_parser = parse_cluster)]
    cluster_id: Option<ClusterId>,
    /// The file with the cluster's link secret; made if it does not exist
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// How the files are laid out; `small` is for experiments
    #[arg(long, value_name = "LAYOUT", value_enum, hide = true)]
    layout: Option<LayoutName>,
}

/// The built-in layouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LayoutName {
    /// For real data.
    #[default]
    Production,
    /// Tiny segments, so that they seal after a few dozen ops.
    Small,
}

impl LayoutName {
    fn layout(self) -> Layout {
        match self {
            Self::Production => Layout::PRODUCTION,
            Self::Small => Layout::SMALL,
        }
    }
}

impl Identity {
    /// Replica `replica` of `replicas`, of a cluster made by this program.
    pub(crate) fn of(
        replica: u8,
        replicas: u8,
        cluster: ClusterId,
        secret: PathBuf,
        layout: LayoutName,
    ) -> Self {
        Self {
            replica: Some(replica),
            replicas: Some(replicas),
            cluster_id: Some(cluster),
            secret_file: Some(secret),
            layout: Some(layout),
        }
    }

    /// Refuses a directory that was formatted for something else than what is asked for here.
    pub(crate) fn check(&self, data: &Path, config: &Config) -> Result<(), Failure> {
        let data = data.display();
        if let Some(wanted) = self.cluster_id.filter(|wanted| *wanted != config.cluster) {
            return Err(Failure::failed(format!(
                "{data} belongs to cluster {}, not to {wanted}; give the right directory or the right id",
                config.cluster
            )));
        }
        let (replica, replicas) = (config.replica.0, config.replicas);
        let same = |wanted: Option<u8>, found| wanted.is_none_or(|wanted| wanted == found);
        if !same(self.replica, replica) || !same(self.replicas, replicas) {
            return Err(Failure::failed(format!(
                "{data} belongs to replica {replica} of {replicas}; give the right directory or leave \
                 --replica and --replicas away"
            )));
        }
        Ok(())
    }
}

/// What was formatted.
pub(crate) struct Formatted {
    pub(crate) config: Config,
}

/// Whether there is nothing at `data` yet, or an empty directory.
pub(crate) fn is_blank(data: &Path) -> bool {
    match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Runs the command.
pub(crate) fn run(args: &Format) -> Result<(), Failure> {
    let Formatted { config } = format(&args.data, &args.identity)?;
    let Config { cluster, replica, replicas, .. } = config;
    let data = args.data.display();
    if args.json {
        let made = json!({ "data": data.to_string(), "cluster": cluster.to_string(), "replica": replica,
                           "replicas": replicas });
        return say(&made.to_string());
    }
    say(&format!("formatted {data}: replica {replica} of {replicas}, cluster {cluster}"))?;
    if replicas == 1 {
        return say(&format!("start it with: kmb start --data {data}"));
    }
    let secret = match &args.identity.secret_file {
        Some(file) => file.display().to_string(),
        None => format!("<a copy of {data}/link.secret>"),
    };
    say(&format!(
        "format the other replicas with: --replicas {replicas} --cluster-id {cluster} --secret-file {secret}"
    ))
}

/// Formats `data`.
pub(crate) fn format(data: &Path, identity: &Identity) -> Result<Formatted, Failure> {
    let (replica, replicas) = (identity.replica.unwrap_or(0), identity.replicas.unwrap_or(1));
    if replicas == 0 || usize::from(replicas) > REPLICAS_MAX {
        return Err(Failure::usage(format!("a cluster has 1 to {REPLICAS_MAX} replicas")));
    }
    if identity.replica.is_none() && replicas > 1 {
        return Err(Failure::usage(format!("which of the {replicas} replicas is it? give --replica")));
    }
    if replica >= replicas {
        return Err(Failure::usage(format!(
            "replicas are counted from 0: --replica {replica} needs --replicas {} or more",
            u16::from(replica) + 1
        )));
    }
    let layout = identity.layout.unwrap_or_default().layout();
    let cluster = match identity.cluster_id {
        Some(cluster) => cluster,
        None => draw_cluster()?,
    };
    let file = NodeFile::new(cluster, replica, replicas, layout);
    let config = file.config()?;
    let secret = match &identity.secret_file {
        Some(path) => node_file::shared_secret(path)?,
        None => random::bytes::<32>()?,
    };
    write(data, config, &file, &secret)?;
    Ok(Formatted { config })
}

/// A random id; zero, which names no cluster, is as likely as any other and drawn again.
pub(crate) fn draw_cluster() -> Result<ClusterId, Failure> {
    loop {
        let id = u128::from_le_bytes(*random::bytes::<16>()?);
        if id != ClusterId::UNNAMED.0 {
            return Ok(ClusterId(id));
        }
    }
}

fn geometry_of(layout: &Layout) -> Geometry {
    Geometry {
        superblock_size: (SUPERBLOCK_COPIES * SUPERBLOCK_COPY_SIZE) as u64,
        headers_size: layout.ring_size(),
        segment_size: layout.segment_size,
    }
}

/// Refuses a directory whose files do not have the sizes that its node file names.
pub(crate) fn check_geometry(data: &Path, found: Geometry, config: &Config) -> Result<(), Failure> {
    if found == geometry_of(&config.layout) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{}: node.json names another layout than the one the directory was formatted with; restore it",
        data.display()
    )))
}

fn write(data: &Path, config: Config, file: &NodeFile, secret: &Secret) -> Result<(), Failure> {
    let directory = DataDirectory::create(data, geometry_of(&config.layout))?;
    node_file::write_own_secret(data, secret)?;
    let mut driver = Driver::open(Options { data: Some(directory), ..Options::default() })?;
    let mut formatter = Formatter::new(config);
    let mut out = Vec::new();
    formatter.on(driver.now(), FormatInput::Start, &mut driver, &mut out);
    loop {
        match out.pop() {
            Some(FormatOutput::Done) => break,
            Some(FormatOutput::Failed(error)) => return Err(refusal(error)),
            None => {
                let (now, event) = driver.next(formatter.wake_at())?;
                formatter.on(now, FormatInput::Event(event), &mut driver, &mut out);
            }
        }
    }
    drop(driver);
    file.write(data)
}

fn refusal(error: FormatError) -> Failure {
    let kind = match error {
        FormatError::AlreadyFormatted => Kind::Failed,
        FormatError::WriteFailed { .. } | FormatError::NoSpace => Kind::Io,
    };
    Failure::new(kind, error.to_string())
}
