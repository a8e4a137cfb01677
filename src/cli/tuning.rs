//! Which tuning file counts: the one that was named, else the one that `tune` has kept for the device.
//!
//! Gets a flag, a device and kernels, returns choices that are right for these kernels. What holds then: a file that
//! was named is right as a whole; of one that was kept, what no longer fits is left out with a note. Never measures.

use std::path::{Path, PathBuf};

use crate::base::diag::Diagnostic;
use crate::base::span::SourceMap;
use crate::cli::{Failure, cache, files, rendered};
use crate::exec::DeviceInfo;
use crate::kernel::KernelLib;
use crate::kernel::tuning::Tuning;

/// More than the choices for all models that a device has ever run: a bound on what is read into memory.
const MAX_BYTES: u64 = 4 << 20;

/// What is asked for by `--tuning none`.
const NONE: &str = "none";

/// The tuning that counts: that of the flag, `--tuning FILE|none`, or the device's own where plans are for a device.
/// The file's text is added to `sources`.
pub(super) fn read(
    asked: Option<&Path>,
    device: Option<&DeviceInfo>,
    kernels: &KernelLib,
    sources: &mut SourceMap,
) -> Result<Option<Tuning>, Failure> {
    match asked {
        Some(path) if path == Path::new(NONE) => Ok(None),
        Some(path) => named(path, kernels, sources).map(Some),
        None => Ok(device.and_then(|device| kept(device, kernels, sources))),
    }
}

/// The file in which `tune` keeps what it finds on a device.
pub(super) fn own_file(device: &DeviceInfo) -> Option<PathBuf> {
    let key = format!("{:?} {:?}", device.name, device.driver);
    Some(cache::default_folder()?.join(format!("{}.tuning.ron", &cache::digest(key.as_bytes())[..16])))
}

/// A file that the user named, which is right or an error.
fn named(path: &Path, kernels: &KernelLib, sources: &mut SourceMap) -> Result<Tuning, Failure> {
    let text = files::read_text(path, "a tuning", MAX_BYTES)?;
    let source = sources.add(path.display().to_string(), text);
    let wrong = |found: Vec<Diagnostic>| Failure::Diagnostics(rendered(&found, sources));
    let tuning = Tuning::parse(sources, source).map_err(wrong)?;
    let found: Vec<Diagnostic> = tuning.mistakes(kernels).into_iter().map(|(_, mistake)| mistake).collect();
    if found.is_empty() { Ok(tuning) } else { Err(wrong(found)) }
}

/// What was kept for a device, if it can still be used. What cannot costs speed alone, so it is no error.
pub(super) fn kept(device: &DeviceInfo, kernels: &KernelLib, sources: &mut SourceMap) -> Option<Tuning> {
    let path = own_file(device)?;
    let text = files::read_text(&path, "a tuning", MAX_BYTES).ok()?;
    let path = path.display();
    let source = sources.add(path.to_string(), text);
    let Ok(mut tuning) = Tuning::parse(sources, source) else {
        eprintln!("note: `{path}` is no tuning and is not used; `graphc check` says why, `graphc tune` makes it anew");
        return None;
    };
    if (&tuning.device, &tuning.driver) != (&device.name, &device.driver) {
        eprintln!("note: `{path}` is of another device or driver and is not used; `graphc tune` makes it anew");
        return None;
    }
    let mut stale: Vec<usize> = tuning.mistakes(kernels).into_iter().map(|(nth, _)| nth).collect();
    stale.dedup();
    let count = tuning.choices.len();
    if !stale.is_empty() {
        let mut nth = 0..count;
        tuning.choices.retain(|_| nth.next().is_some_and(|nth| !stale.contains(&nth)));
        let left_out = stale.len();
        eprintln!("note: {left_out} of {count} choices of `{path}` do not fit these kernels and are left out");
    }
    tuning.choices.iter_mut().for_each(|choice| choice.is_strict = false);
    Some(tuning)
}

/// A tuning in a line, for those who ask what was run.
pub(super) fn line(tuning: Option<&Tuning>) -> String {
    tuning.map_or_else(|| NONE.to_owned(), |tuning| format!("{} ({} choices)", tuning.name, tuning.choices.len()))
}
