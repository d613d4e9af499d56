//! Buffers registered with the kernel, out of which it serves receives that go on and on.
//!
//! A receive that waits holds no memory: the kernel takes a buffer from the pool when bytes arrive (a *provided
//! buffer ring*, `IORING_REGISTER_PBUF_RING`, Linux 5.19). What arrived is copied out as soon as its completion is
//! seen, and the buffer goes back, so a few buffers serve any number of connections.

use std::alloc::{self, Layout};
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers in the pool, a power of two. As many completions can be waiting to be seen; a receive that finds no
/// buffer ends with `ENOBUFS` and is asked again.
const BUFFERS: u16 = 256;

/// Bytes of a buffer: several small requests. Whoever fills one has more to say and is received singly.
pub(crate) const BUFFER_SIZE: usize = 4 << 10;

/// Bytes of the table that names the buffers.
const TABLE_SIZE: usize = BUFFERS as usize * mem::size_of::<BufRingEntry>();

/// The table starts on a page and the buffers follow it.
const LAYOUT: Layout = match Layout::from_size_align(TABLE_SIZE + BUFFERS as usize * BUFFER_SIZE, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("1 MiB on a page boundary is a layout"),
};

/// The name of the one pool a ring has.
pub(super) const GROUP: u16 = 0;

/// The registered memory. It must outlive every operation that may take a buffer from it.
pub(super) struct Pool {
    memory: NonNull<u8>,
    /// Buffers handed to the kernel since the beginning, wrapping.
    handed: u16,
}

// SAFETY: the memory belongs to the pool alone; the kernel does not care which thread hands buffers over.
unsafe impl Send for Pool {}

impl Pool {
    /// Registers a pool with all its buffers.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc::alloc_zeroed(LAYOUT) };
        let Some(memory) = NonNull::new(memory) else { alloc::handle_alloc_error(LAYOUT) };
        let mut pool = Self { memory, handed: 0 };
        // SAFETY: the table is aligned to a page, as long as said, and lives as long as the ring: `Ring` drops
        // its pool only after all operations have ended, and leaks it otherwise.
        unsafe { submitter.register_buf_ring_with_flags(memory.as_ptr() as u64, BUFFERS, GROUP, 0) }?;
        (0..BUFFERS).for_each(|buffer| pool.hand_over(buffer));
        Ok(pool)
    }

    /// Copies the first `len` bytes of a buffer that a completion named, and gives the buffer back.
    pub(super) fn take<T>(&mut self, buffer: u16, len: usize, copy: impl FnOnce(&[u8]) -> T) -> T {
        assert!(buffer < BUFFERS && len <= BUFFER_SIZE, "the kernel names a buffer of the pool");
        // SAFETY: the range lies within the memory, which was zeroed when allocated; the kernel does not write
        // to a buffer between the completion that names it and `hand_over`.
        let bytes = unsafe { std::slice::from_raw_parts(self.start_of(buffer), len) };
        let copied = copy(bytes);
        self.hand_over(buffer);
        copied
    }

    fn start_of(&self, buffer: u16) -> *const u8 {
        self.memory.as_ptr().wrapping_add(TABLE_SIZE + usize::from(buffer) * BUFFER_SIZE)
    }

    fn hand_over(&mut self, buffer: u16) {
        let table = self.memory.cast::<BufRingEntry>().as_ptr();
        let place = table.wrapping_add(usize::from(self.handed % BUFFERS));
        let start = self.start_of(buffer) as u64;
        self.handed = self.handed.wrapping_add(1);
        // SAFETY: `place` is an entry of the table, which is valid when zeroed, and the kernel reads entries
        // only behind the tail. The tail shares its memory with a part of the first entry that is not set here.
        unsafe {
            (*place).set_addr(start);
            (*place).set_len(BUFFER_SIZE as u32);
            (*place).set_bid(buffer);
            AtomicU16::from_ptr(BufRingEntry::tail(table).cast_mut()).store(self.handed, Ordering::Release);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ring that it was registered with is gone (`Ring::drop`).
        unsafe { alloc::dealloc(self.memory.as_ptr(), LAYOUT) };
    }
}
