//! The thread that makes segments, so that the ring's thread never waits tens of milliseconds for zeros.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use crate::directory::prepare_segment;
use crate::waker::Waker;

/// Makes segments in the background, in the order they are asked for.
pub(crate) struct SegmentMaker {
    /// Dropped to end the thread.
    orders: Option<Sender<u64>>,
    made: Receiver<(u64, io::Result<()>)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SegmentMaker {
    /// Starts the thread. It rings `waker` when a segment is done.
    pub(crate) fn start(path: PathBuf, segment_size: u64, direct: bool, waker: Waker) -> io::Result<Self> {
        let (orders, incoming) = mpsc::channel::<u64>();
        let (outgoing, made) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("segments".into()).spawn(move || {
            for segment in incoming {
                let stop = || stopped.load(Ordering::Relaxed);
                let result = prepare_segment(&path, segment, segment_size, direct, stop);
                if outgoing.send((segment, result)).is_err() {
                    break;
                }
                waker.ring();
            }
        })?;
        Ok(Self { orders: Some(orders), made, stop, thread: Some(thread) })
    }

    /// Orders a segment.
    pub(crate) fn order(&self, segment: u64) {
        let orders = self.orders.as_ref().expect("orders are taken until the maker is dropped");
        orders.send(segment).expect("the thread takes orders until it is told to end");
    }

    /// A segment that was made, or not.
    pub(crate) fn made(&self) -> Option<(u64, io::Result<()>)> {
        self.made.try_recv().ok()
    }
}

impl Drop for SegmentMaker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // Its panic was printed by its own thread; there is nothing to undo here.
        }
    }
}
