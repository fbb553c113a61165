//! Whose turn it is: most tests run beside each other, for most of their time is waiting; those that measure how long clients wait,
//! or that fill queues, have the machine for themselves.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Each has hosts, an agent and tables of some hundred megabytes.
const BESIDE_MAX: usize = 4;

#[derive(Debug)]
struct Running {
    beside: usize,
    is_alone: bool,
    /// They come first, or they never would.
    wait_alone: usize,
}

static RUNNING: Mutex<Running> = Mutex::new(Running {
    beside: 0,
    is_alone: false,
    wait_alone: 0,
});
static CHANGED: Condvar = Condvar::new();

/// A test's time on the machine; it is over when this is dropped.
#[derive(Debug)]
pub struct Turn {
    is_alone: bool,
}

/// The machine for this test, once nobody else runs.
pub fn alone() -> Turn {
    let mut running = lock();
    running.wait_alone += 1;
    let mut running = wait_while(running, |running| running.is_alone || running.beside > 0);
    running.wait_alone -= 1;
    running.is_alone = true;
    Turn { is_alone: true }
}

/// A place on the machine. A test has one at a time.
pub fn beside() -> Turn {
    let processors = thread::available_parallelism().map_or(1, Into::into);
    let most = BESIDE_MAX.min(processors);
    let mut running = wait_while(lock(), |running| {
        running.is_alone || running.wait_alone > 0 || running.beside >= most
    });
    running.beside += 1;
    Turn { is_alone: false }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = lock();
        match self.is_alone {
            true => running.is_alone = false,
            false => running.beside -= 1,
        }
        CHANGED.notify_all();
    }
}

/// A test that failed has cleaned up after itself.
fn lock() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_while(
    running: MutexGuard<'static, Running>,
    is_so: impl Fn(&Running) -> bool,
) -> MutexGuard<'static, Running> {
    let waited = CHANGED.wait_while(running, |running| is_so(running));
    waited.unwrap_or_else(PoisonError::into_inner)
}
