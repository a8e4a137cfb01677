//! Files that commands read and write whole.
//!
//! Gets paths, returns bytes or texts; what is written goes under another name first, so that no half-written file is
//! ever found under its own. Never holds more than it was told to.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};

use crate::cli::Failure;
use crate::tensor::Tensor;

/// The bytes of a file, `what` of at most `max_bytes`.
pub(super) fn read(path: &Path, what: &str, max_bytes: u64) -> Result<Vec<u8>, Failure> {
    let fail = |source| Failure::from(crate::sources::ReadError { path: path.to_owned(), source });
    let bytes = std::fs::metadata(path).map_err(fail)?.len();
    if bytes > max_bytes {
        let path = path.display();
        return Err(Failure::Environment(format!("`{path}` has {bytes} bytes, {what} at most {max_bytes}")));
    }
    std::fs::read(path).map_err(fail)
}

/// The text of a file that is not empty, `what` of at most `max_bytes`.
pub(super) fn read_text(path: &Path, what: &str, max_bytes: u64) -> Result<String, Failure> {
    let bytes = read(path, what, max_bytes)?;
    if bytes.is_empty() {
        // Whoever names a file means what is in it; most likely what should have written it has failed.
        let what = what.trim_start_matches("a ").trim_end_matches('s');
        return Err(Failure::Environment(format!("`{}` is empty: there is no {what} in it", path.display())));
    }
    utf8(path, bytes)
}

/// The bytes of a file as text.
pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes)
        .map_err(|error| Failure::Diagnostics(format!("error: `{}` is not UTF-8: {error}\n", path.display())))
}

pub(super) fn cannot_write(path: &Path, error: &dyn Display) -> Failure {
    Failure::Environment(format!("cannot write `{}`: {error}", path.display()))
}

/// Writes a file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_with(path, |file| file.write_all(bytes).map_err(|error| cannot_write(path, &error)))
}

/// Writes a file, in whatever parts `fill` likes.
pub(super) fn write_with<T>(path: &Path, fill: impl FnOnce(&mut File) -> Result<T, Failure>) -> Result<T, Failure> {
    let cannot = |error: std::io::Error| cannot_write(path, &error);
    // Only a file is replaced; a device or a pipe is written to, and a link leads to what it names.
    let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    if is_special {
        return File::create(path).map_err(cannot).and_then(|mut file| fill(&mut file));
    }
    let target = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut temporary = target.as_os_str().to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let filled = File::create(&temporary).map_err(cannot).and_then(|mut file| fill(&mut file));
    let written = filled.and_then(|value| std::fs::rename(&temporary, target).map(|()| value).map_err(cannot));
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Writes tensors, widened to f32, to a safetensors file.
pub(super) fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), Failure> {
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let values = tensor.to_f32();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape: Vec<usize> = tensor.shape.iter().map(|extent| *extent as usize).collect();
        views.push((name.clone(), shape, bytes));
    }
    let views: Result<Vec<(String, TensorView<'_>)>, _> = views
        .iter()
        .map(|(name, shape, bytes)| TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.clone(), view)))
        .collect();
    let bytes = views.and_then(|views| safetensors::serialize(views, None));
    write(path, &bytes.map_err(|error| cannot_write(path, &error))?)
}
