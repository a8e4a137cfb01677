//! Ctrl-C stops an answer, and the program where there is none.
//!
//! Gets the signal, returns whether the answer at hand is to stop. A second one while an answer does not stop, since a
//! step takes long, ends the program. Never touches a device.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::Failure;

/// What a shell takes for a program that was ended by Ctrl-C.
const EXIT_CODE: i32 = 130;

static IS_ANSWERING: AtomicBool = AtomicBool::new(false);
static IS_WANTED: AtomicBool = AtomicBool::new(false);

/// From now on, Ctrl-C means that.
pub(super) fn install() -> Result<(), Failure> {
    let handle = || {
        if !IS_ANSWERING.load(Ordering::SeqCst) || IS_WANTED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_CODE);
        }
    };
    ctrlc::set_handler(handle).map_err(|error| Failure::Environment(format!("cannot listen for Ctrl-C: {error}")))
}

/// An answer, for as long as this lives.
pub(super) struct Answering(());

impl Answering {
    pub(super) fn begin() -> Self {
        IS_WANTED.store(false, Ordering::SeqCst);
        IS_ANSWERING.store(true, Ordering::SeqCst);
        Self(())
    }

    /// Whether Ctrl-C was pressed meanwhile.
    pub(super) fn is_to_stop(&self) -> bool {
        IS_WANTED.load(Ordering::SeqCst)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        IS_ANSWERING.store(false, Ordering::SeqCst);
    }
}
