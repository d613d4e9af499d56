//! Threads that run a verifier's checks.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use kimberlite_io_real::Waker;
use kimberlite_storage::{Check, Checked};

/// Threads at most: with more of them the device is what limits.
const CHECKERS_MAX: usize = 8;

/// As many threads as there are processors. They end when this is dropped.
pub(crate) struct Checkers {
    /// None while they end.
    checks: Option<mpsc::Sender<Check>>,
    answers: mpsc::Receiver<Checked>,
    threads: Vec<JoinHandle<()>>,
    /// Whether one of them has ended.
    ended: Arc<AtomicBool>,
}

impl Checkers {
    /// Starts them. Each answer, and each thread that ends, uses the waker.
    pub(crate) fn start(waker: &Waker) -> Self {
        let count = thread::available_parallelism().map_or(1, NonZero::get).min(CHECKERS_MAX);
        let (checks, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let (sender, answers) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|_| {
                let bell = Bell { waker: waker.clone(), ended: Arc::clone(&ended) };
                let (queue, answers) = (Arc::clone(&queue), sender.clone());
                thread::spawn(move || work(&queue, &answers, &bell))
            })
            .collect();
        Self { checks: Some(checks), answers, threads, ended }
    }

    /// Hands one over. The verifier bounds how many there are.
    pub(crate) fn run(&self, check: Check) {
        let checks = self.checks.as_ref().expect("they run until this is dropped");
        // If all of them have ended, `answer` says so.
        let _ = checks.send(check);
    }

    /// An answer, if there is one.
    pub(crate) fn answer(&self) -> Option<Checked> {
        let answer = self.answers.try_recv().ok();
        let lost = answer.is_none() && self.ended.load(Ordering::Acquire);
        assert!(!lost, "a checker ended before the verifier did");
        answer
    }
}

impl Drop for Checkers {
    fn drop(&mut self) {
        self.checks = None;
        for thread in self.threads.drain(..) {
            // One that panicked has told why, and nobody waits for its answer any more.
            let _ = thread.join();
        }
    }
}

/// Rings when its thread ends, whatever it ends by.
struct Bell {
    waker: Waker,
    ended: Arc<AtomicBool>,
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.waker.wake();
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Check>>, answers: &mpsc::Sender<Checked>, bell: &Bell) {
    loop {
        // A checker takes a check with the lock, and runs it without.
        let next = queue.lock().map(|queue| queue.recv());
        let Ok(Ok(check)) = next else { return };
        if answers.send(check.run()).is_err() {
            return;
        }
        bell.waker.wake();
    }
}
