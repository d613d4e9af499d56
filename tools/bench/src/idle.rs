//! A node that has nothing to do: what it takes of memory, disk and processor.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kmb::Failure;

use crate::cluster::{Cluster, processor_time};
use crate::figures::{Aim, Report, Series};
use crate::setting::Setting;

/// How long a node is left alone before it is looked at.
const REST: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn measure(setting: &Setting) -> Result<Vec<Report>, Failure> {
    [1, 3].into_iter().map(|nodes| measure_one(setting, nodes)).collect()
}

fn measure_one(setting: &Setting, nodes: u8) -> Result<Report, Failure> {
    let none = Series::default;
    let (mut memory, mut own, mut disk, mut processor) = (none(), none(), none(), none());
    for round in 1..=setting.repetitions {
        setting.step(&format!("idle: {nodes} nodes, {round} of {}", setting.repetitions))?;
        let cluster = Cluster::start(setting, nodes)?;
        thread::sleep(REST);
        let process = cluster.fleet.process(0);
        let (begun, before) = (Instant::now(), processor_time(process)?);
        thread::sleep(setting.seconds.max(REST));
        let spent = processor_time(process)?.saturating_sub(before);
        processor.push(100.0 * spent.as_secs_f64() / begun.elapsed().as_secs_f64());
        memory.push(status(process, "VmRSS")?);
        own.push(status(process, "RssAnon")?);
        disk.push(taken(&cluster.data(0))? / 1e6);
    }
    let who = if nodes == 1 { "a fresh node alone" } else { "a fresh node of three" };
    let mut report = Report::new(format!("idle: {who}"));
    report.aimed("memory (RSS)", "MB", memory, Aim::AtMost(64.0));
    report.row("of it, not backed by a file", "MB", own);
    report.aimed("data directory on disk", "MB", disk, Aim::AtMost(64.0));
    report.row("processor", "%", processor);
    Ok(report)
}

/// A field of `/proc/N/status` that is told in kB, in MB.
fn status(process: u32, name: &str) -> Result<f64, Failure> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).map_err(|error| Failure::on(Path::new(&path), &error))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kilobytes
        .map(|kib| kib * 1024.0 / 1e6)
        .ok_or_else(|| Failure::failed(format!("{path} does not tell {name}")))
}

/// Bytes that the files below a directory take on disk.
fn taken(dir: &Path) -> Result<f64, Failure> {
    let on = |error: std::io::Error| Failure::on(dir, &error);
    let mut sum = 0.0;
    for entry in fs::read_dir(dir).map_err(on)? {
        let entry = entry.map_err(on)?;
        let metadata = entry.metadata().map_err(on)?;
        sum += if metadata.is_dir() {
            taken(&entry.path())?
        } else {
            // stat(2): blocks are of 512 bytes, whatever those of the file system are.
            f64::from(u32::try_from(metadata.blocks()).unwrap_or(u32::MAX)) * 512.0
        };
    }
    Ok(sum)
}
