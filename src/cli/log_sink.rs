//! Counts and prints what Vulkan's validation layers say.
//!
//! Gets log records (wgpu-hal hands the layers' messages to the `log` crate), prints errors and counts them, so that
//! `--validate` can fail; or keeps them for one who asks. Never hides a message, but for known false reports.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// What the 1.3.239 layer reports and is wrong about: every module that states its source language as naga does; and
/// the features of cooperative matrices (`VkPhysicalDeviceCooperativeMatrixFeaturesKHR`), which it is too old to know.
const FALSE_REPORTS: [&str; 2] = ["0x6bbb14", "unknown VkStructureType (1000506000)"];

static ERRORS: AtomicUsize = AtomicUsize::new(0);

/// Errors that wait to be taken, if somebody does that.
static KEPT: Mutex<Option<Vec<String>>> = Mutex::new(None);

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
        let is_false = FALSE_REPORTS.iter().any(|report| text.contains(report));
        if record.level() == Level::Error && !is_false && !text.starts_with('\t') {
            ERRORS.fetch_add(1, Ordering::Relaxed);
            match &mut *KEPT.lock().expect("nobody panics while holding it") {
                Some(kept) => kept.push(text),
                None => eprintln!("validation: {text}"),
            }
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

/// Starts counting, and keeps errors instead of printing them.
pub(super) fn install_keeping() {
    install(false);
    *KEPT.lock().expect("nobody panics while holding it") = Some(Vec::new());
}

/// The errors since they were taken last.
pub(super) fn take() -> Vec<String> {
    KEPT.lock().expect("nobody panics while holding it").as_mut().map(std::mem::take).unwrap_or_default()
}

/// Errors so far.
pub(super) fn errors() -> usize {
    ERRORS.load(Ordering::Relaxed)
}
