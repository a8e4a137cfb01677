//! Counts and prints what Vulkan's validation layers say.
//!
//! Gets log records (wgpu-hal hands the layers' messages to the `log` crate), prints errors and counts them, so that
//! `--validate` can fail. Never hides a message, but for one known false report.

use std::sync::atomic::{AtomicUsize, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Reported by the 1.3.239 layer for every module that states its source language as naga does; the module is right.
const FALSE_REPORT: &str = "0x6bbb14";

static ERRORS: AtomicUsize = AtomicUsize::new(0);

struct Sink;

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if !record.target().starts_with("wgpu_hal::vulkan::instance") {
            return;
        }
        let text = record.args().to_string();
        if text.contains("unable to find layer") {
            eprintln!(
                "validation layers are not installed (Debian: vulkan-validationlayers); usages are tracked all the same"
            );
        }
        // Lines that begin with a tab continue a message with the objects concerned.
        if record.level() == Level::Error && !text.contains(FALSE_REPORT) && !text.starts_with('\t') {
            ERRORS.fetch_add(1, Ordering::Relaxed);
            eprintln!("validation: {text}");
        }
    }

    fn flush(&self) {}
}

/// Starts counting; that a layer is missing is said only at the level of debugging, so that is asked for when
/// validating.
pub(super) fn install(validating: bool) {
    // A second installation in one process fails, and the first goes on counting.
    if log::set_logger(&Sink).is_ok() {
        log::set_max_level(if validating { LevelFilter::Debug } else { LevelFilter::Error });
    }
}

/// Errors so far.
pub(super) fn errors() -> usize {
    ERRORS.load(Ordering::Relaxed)
}
