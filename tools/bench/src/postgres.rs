//! PostgreSQL as a peer: a cluster of its own below the same directory, with its durable defaults.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use kmb::{Failure, Temporary};

/// Where Debian and others put what is not on the path.
const INSTALLED: &str = "/usr/lib/postgresql";

/// Who runs it when this program is run by root, which PostgreSQL refuses to be.
const USER: &str = "postgres";

/// Numbers of clients that are compared.
pub(crate) const CLIENTS: [u16; 3] = [1, 8, 64];

/// What is made before rows are inserted. A log: rows get a number and are found by it.
const TABLE: &str =
    "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, record text NOT NULL)";

/// A running cluster. It is stopped and removed when this is dropped.
pub(crate) struct Postgres {
    programs: PathBuf,
    port: u16,
    script: PathBuf,
    dir: Temporary,
}

impl Postgres {
    /// Makes a cluster below `parent` and starts it.
    pub(crate) fn start(parent: &Path) -> Result<Self, Failure> {
        let programs = programs()?;
        let dir = Temporary::below(parent, "postgres")?;
        let port = kmb::Plan::on_free_ports(PathBuf::new(), 1)?.clients[0].port();
        let script = dir.path().join("insert.sql");
        let postgres = Self { programs, port, script, dir };
        postgres.prepare()?;
        Ok(postgres)
    }

    fn prepare(&self) -> Result<(), Failure> {
        let dir = self.dir.path();
        let on = |error: std::io::Error| Failure::on(dir, &error);
        fs::create_dir_all(dir).map_err(on)?;
        let record = ".".repeat(crate::cluster::RECORD_SIZE as usize);
        fs::write(&self.script, format!("INSERT INTO events (record) VALUES ('{record}');\n")).map_err(on)?;
        if is_root() {
            // It must be able to get there and to write there.
            let parent = dir.parent().unwrap_or(dir);
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).map_err(on)?;
            self.check(Command::new("chown").args(["-R", USER]).arg(dir).output(), "chown")?;
        }
        let data = dir.join("data");
        self.run(
            "initdb",
            [
                OsStr::new("-D"),
                data.as_os_str(),
                OsStr::new("--auth=trust"),
                OsStr::new("-U"),
                OsStr::new(USER),
            ],
        )?;
        let options = format!("-p {} -h 127.0.0.1 -k {}", self.port, dir.display());
        self.control(&["-w", "-o", &options, "start"])?;
        self.run("psql", self.client(&["-c", TABLE]))?;
        for (setting, wanted) in [("fsync", "on"), ("synchronous_commit", "on")] {
            let found = self.run("psql", self.client(&["-At", "-c", &format!("SHOW {setting}")]))?;
            if found.trim() != wanted {
                return Err(Failure::failed(format!(
                    "PostgreSQL has {setting} = {}; it should be {wanted}",
                    found.trim()
                )));
            }
        }
        Ok(())
    }

    /// Rows a second that `clients` clients insert, one in each transaction.
    pub(crate) fn insert(&self, clients: u16, duration: Duration) -> Result<f64, Failure> {
        let clients = clients.to_string();
        let seconds = duration.as_secs_f64().ceil().to_string();
        let script = self.script.display().to_string();
        let args = [
            "-n",
            "-M",
            "prepared",
            "-c",
            &clients,
            "-j",
            if clients == "1" { "1" } else { "2" },
            "-T",
            &seconds,
            "-f",
            &script,
        ];
        let told = self.run("pgbench", self.client(&args))?;
        rate(&told).ok_or_else(|| Failure::failed(format!("pgbench told no rate: {told}")))
    }

    /// Where clients connect to, and what else is asked. The database comes last.
    fn client(&self, args: &[&str]) -> Vec<String> {
        let port = self.port.to_string();
        let mut all: Vec<String> = ["-h", "127.0.0.1", "-p", &port, "-U", USER].map(str::to_owned).to_vec();
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all.push("postgres".to_owned());
        all
    }

    fn control(&self, args: &[&str]) -> Result<(), Failure> {
        let dir = self.dir.path();
        let (data, log) = (dir.join("data"), dir.join("log"));
        let mut all = vec![OsStr::new("-D"), data.as_os_str(), OsStr::new("-l"), log.as_os_str()];
        all.extend(args.iter().map(OsStr::new));
        self.run("pg_ctl", all).map(drop)
    }

    /// Runs one of its programs to its end. Answers what it wrote.
    fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String, Failure> {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", USER, "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        // A server that is left running inherits standard output; what it writes goes to its log.
        let told = self.dir.path().join(format!("{program}.out"));
        let on = |error: std::io::Error| Failure::on(&told, &error);
        let out = fs::File::create(&told).map_err(on)?;
        let err = out.try_clone().map_err(on)?;
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).stdout(out).stderr(err);
        let status = command.status().map_err(|error| Failure::failed(format!("{program}: {error}")))?;
        let text = String::from_utf8_lossy(&fs::read(&told).map_err(on)?).into_owned();
        if status.success() {
            Ok(text)
        } else {
            Err(Failure::failed(format!("{program} failed ({status}): {text}")))
        }
    }

    fn check(&self, ended: std::io::Result<Output>, what: &str) -> Result<(), Failure> {
        let dir = self.dir.path().display();
        let ended = ended.map_err(|error| Failure::failed(format!("{what} {dir}: {error}")))?;
        if ended.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&ended.stderr).into_owned();
        Err(Failure::failed(format!(
            "{what} {dir}: {why}; as root, PostgreSQL needs a user `{USER}` to run as"
        )))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A cluster that never started has nothing to stop, and its directory goes all the same.
        if self.dir.path().join("data/postmaster.pid").exists()
            && let Err(failure) = self.control(&["-m", "immediate", "stop"])
        {
            eprintln!("bench: PostgreSQL in {} goes on: {failure}", self.dir.path().display());
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where its programs are: the newest release installed, or those on the path.
fn programs() -> Result<PathBuf, Failure> {
    let installed =
        fs::read_dir(INSTALLED).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = installed.collect();
    found.sort_by_key(|path| release(path));
    found.reverse();
    found.extend(std::env::split_paths(&path));
    let all = ["initdb", "pg_ctl", "psql", "pgbench"];
    found.into_iter().find(|dir| all.iter().all(|program| dir.join(program).is_file())).ok_or_else(|| {
        Failure::usage(format!(
            "PostgreSQL is not installed: {} are neither below {INSTALLED} nor on the path. Install it \
             (Debian: apt-get install postgresql-15), or leave --postgres away",
            all.join(", ")
        ))
    })
}

/// The release that a directory `.../15/bin` is of.
fn release(path: &Path) -> u32 {
    let name = path.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}

/// The rate that pgbench tells.
fn rate(told: &str) -> Option<f64> {
    told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_pgbench_tells() {
        let told = "latency average = 0.195 ms\ntps = 5123.456789 (without initial connection time)\n";
        assert_eq!(rate(told), Some(5123.456789));
        assert_eq!(rate("pgbench: error: connection failed"), None);
    }

    #[test]
    fn releases_are_ordered_as_numbers() {
        assert!(release(Path::new("/x/15/bin")) > release(Path::new("/x/9.6/bin")));
        assert!(release(Path::new("/x/100/bin")) > release(Path::new("/x/15/bin")));
    }
}
