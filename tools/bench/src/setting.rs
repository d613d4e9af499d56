//! What measurements share: the directory, the program that is measured, and what a person sees meanwhile.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use indicatif::{ProgressBar, ProgressStyle};
use kmb::{Failure, Stop, Temporary, on_signal};
use rustix::time::{ClockId, clock_gettime};

use crate::arguments::Common;

/// Where and how it is measured.
pub(crate) struct Setting {
    pub(crate) repetitions: u32,
    pub(crate) seconds: Duration,
    kmb: Option<PathBuf>,
    stop: Stop,
    bar: ProgressBar,
    dir: Temporary,
}

impl Setting {
    /// Makes the directory.
    pub(crate) fn new(common: &Common) -> Result<Self, Failure> {
        let parent = common.dir.clone().unwrap_or_else(env::temp_dir);
        let dir = Temporary::below(&parent, "bench")?;
        fs::create_dir_all(dir.path()).map_err(|error| Failure::on(dir.path(), &error))?;
        let stop = Stop::default();
        on_signal(&stop, [])?;
        Ok(Self {
            repetitions: common.repetitions,
            seconds: common.seconds,
            kmb: common.kmb.clone(),
            stop,
            bar: bar(),
            dir,
        })
    }

    /// Holds all data. It is removed with this.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The program that is measured.
    pub(crate) fn kmb(&self) -> Result<PathBuf, Failure> {
        let found = match &self.kmb {
            Some(path) => path.clone(),
            None => env::current_exe()
                .map_err(|error| Failure::on(Path::new("/proc/self/exe"), &error))?
                .with_file_name("kmb"),
        };
        if found.is_file() {
            return Ok(found);
        }
        let found = found.display();
        Err(Failure::usage(format!(
            "there is no {found}: build it (cargo build --release) or name it with --kmb"
        )))
    }

    /// Whether somebody wants it to end.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Says what is measured next. Fails if somebody wants it to end.
    pub(crate) fn step(&self, what: &str) -> Result<(), Failure> {
        self.bar.set_message(what.to_owned());
        self.go_on()
    }

    /// Fails if somebody wants it to end.
    pub(crate) fn go_on(&self) -> Result<(), Failure> {
        if self.stop.is_asked() { Err(Failure::failed("interrupted")) } else { Ok(()) }
    }

    /// Says nothing more.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// On standard error, if somebody looks.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is a constant"),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// The time that this thread has run.
pub(crate) fn own_time() -> Duration {
    processor_time(ClockId::ThreadCPUTime)
}

/// The time that all threads of this process have run, together.
pub(crate) fn all_time() -> Duration {
    processor_time(ClockId::ProcessCPUTime)
}

fn processor_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
