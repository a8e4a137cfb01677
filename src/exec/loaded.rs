//! Drivers that stay loaded until the process ends.
//!
//! Gets the instance of an API, which loads the drivers of its devices, and holds the first of each kind. What holds
//! then: no driver is unloaded while a thread that has called it lives. A driver goes with the last instance, and may
//! leave a destructor with every thread that has called it: NVIDIA's does (580.159), and a thread that ends afterwards
//! jumps to where the driver was. Never makes an instance, and never holds two of a kind.

use std::any::Any;
use std::sync::Mutex;

/// What is held; `Mutex`, since executors may be opened in any thread.
static HELD: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());

/// Holds `instance` until the process ends if it is the first of its type, else does nothing.
pub(super) fn hold<T: Any + Send>(instance: T) {
    // A thread that panicked while holding the lock has left a list that is right.
    let mut held = HELD.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !held.iter().any(|other| other.is::<T>()) {
        held.push(Box::new(instance));
    }
}
