//! Pipelines of earlier runs: a file for each device, driver and version of the program.
//!
//! Gets a flag and an executor, gives it what an earlier run has kept; keeps what it has made for a later one. What
//! holds then: the executor gets bytes that it gave itself, on this device, unchanged, or none. Never fails: a cache
//! saves time, and a run goes without.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest, Sha256};

use crate::cli::{Failure, files};
use crate::exec::{DeviceInfo, Executor};

/// First line of a file; the number goes up with its layout.
const HEADER: &str = "graphc pipelines 1";

/// More than the pipelines of any plans: a bound on what is read into memory.
const MAX_BYTES: u64 = 256 << 20;

/// Where pipelines are kept.
#[derive(Args, Debug, Clone)]
pub(super) struct CacheArgs {
    /// Keep compiled pipelines in this folder, for later runs to start sooner (hal); `none` keeps nothing [default:
    /// graphc in the user's cache folder]
    #[arg(long, value_name = "DIR|none")]
    pipeline_cache: Option<PathBuf>,
}

/// The file of one device.
#[derive(Debug)]
pub(super) struct Kept {
    /// Nothing if nothing is to be kept.
    path: Option<PathBuf>,
    /// What the pipelines are for.
    key: String,
    /// Digest of what the file held, if the executor has got it.
    found: Option<String>,
    /// Whether the user has named the folder.
    is_asked: bool,
}

impl CacheArgs {
    /// Gives an executor, before it opens a session, what is kept for its device.
    pub(super) fn give(&self, executor: &mut impl Executor) -> Kept {
        let folder = match self.pipeline_cache.as_deref() {
            Some(folder) => (folder != Path::new("none")).then(|| folder.to_owned()),
            None => default_folder(),
        };
        let key = key(executor.device());
        let path = folder.map(|folder| folder.join(format!("{}.pipelines", &digest(key.as_bytes())[..16])));
        let mut found = None;
        if let Some(path) = &path {
            // Absent, damaged, of another device: pipelines are compiled, and the file is replaced.
            let bytes = files::read(path, "a cache", MAX_BYTES).ok();
            let payload = bytes.as_deref().and_then(|bytes| payload(bytes, &key));
            executor.keep_pipelines(payload.as_ref().map(|(payload, _)| *payload));
            found = payload.map(|(_, digest)| digest);
        }
        Kept { path, key, found, is_asked: self.pipeline_cache.is_some() }
    }
}

impl Kept {
    /// Keeps what the executor has by now, if that is not what it got.
    pub(super) fn keep(&self, executor: &impl Executor) {
        let Some((path, payload)) = self.path.as_ref().zip(executor.kept_pipelines()) else { return };
        let digest = digest(&payload);
        if self.found.as_ref() == Some(&digest) {
            return;
        }
        let mut bytes = format!("{HEADER}\n{}\n{digest}\n", self.key).into_bytes();
        bytes.extend(payload);
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written =
            folder.map_err(|error| files::cannot_write(path, &error)).and_then(|()| files::write(path, &bytes));
        if let (Err(Failure::Environment(reason)), true) = (written, self.is_asked) {
            eprintln!("warning: pipelines are not kept: {reason}");
        }
    }
}

/// The user's folder of what can be made again.
pub(super) fn default_folder() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(folder.join("graphc"))
}

/// What pipelines are for, in a line.
fn key(device: &DeviceInfo) -> String {
    let DeviceInfo { name, driver, api, .. } = device;
    format!("{} {api:?} {name:?} {driver:?}", env!("CARGO_PKG_VERSION"))
}

pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// The pipelines in a file, with their digest; nothing if it is not for this key, or not as it was written.
fn payload<'a>(bytes: &'a [u8], key: &str) -> Option<(&'a [u8], String)> {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let (header, found_key, found_digest, payload) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let digest = digest(payload);
    let is_ours = header == HEADER.as_bytes() && found_key == key.as_bytes() && found_digest == digest.as_bytes();
    is_ours.then_some((payload, digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use crate::exec::{ExecError, Progress, Session, Weights};
    use crate::plan::weights::StateLayout;

    /// An executor of which nothing but its pipelines is looked at.
    struct Remembers {
        device: DeviceInfo,
        got: Option<Vec<u8>>,
        has: Vec<u8>,
    }

    impl Executor for Remembers {
        type Session = Box<dyn Session>;

        fn device(&self) -> &DeviceInfo {
            &self.device
        }

        fn keep_pipelines(&mut self, bytes: Option<&[u8]>) {
            self.got = bytes.map(<[u8]>::to_vec);
        }

        fn kept_pipelines(&self) -> Option<Vec<u8>> {
            Some(self.has.clone())
        }

        fn open(&self, _: &Weights<'_>, _: &StateLayout, _: Progress<'_>) -> Result<Self::Session, ExecError> {
            Err(ExecError::Device { reason: "it only remembers".to_owned() })
        }
    }

    fn executor(driver: &str, has: &[u8]) -> Remembers {
        let device = DeviceInfo {
            name: "card".to_owned(),
            driver: driver.to_owned(),
            api: "api".to_owned(),
            kind: "other".to_owned(),
            limits: Limits::vulkan(),
            features: Vec::new(),
        };
        Remembers { device, got: None, has: has.to_vec() }
    }

    /// A folder of this test alone, removed in the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("graphc-cache-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }

        fn args(&self) -> CacheArgs {
            CacheArgs { pipeline_cache: Some(self.0.clone()) }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_one_run_keeps_the_next_one_gets() {
        let folder = Folder::new("reused");
        let mut first = executor("driver 1", b"pipelines\nof one\n");
        let kept = folder.args().give(&mut first);
        assert_eq!(first.got, None, "there is no file yet");
        kept.keep(&first);
        let mut second = executor("driver 1", b"pipelines\nof one\n");
        let kept = folder.args().give(&mut second);
        assert_eq!(second.got.as_deref(), Some(&b"pipelines\nof one\n"[..]));
        let path = kept.path.clone().expect("a file");
        std::fs::remove_file(&path).expect("it was there");
        kept.keep(&second);
        assert!(!path.exists(), "what did not change is not written again");
        second.has = b"more".to_vec();
        kept.keep(&second);
        assert!(path.exists(), "what changed is");
        let files: Vec<_> = std::fs::read_dir(&folder.0).expect("a folder").collect();
        assert_eq!(files.len(), 1, "nothing half-written is left: {files:?}");
    }

    #[test]
    fn what_is_damaged_or_of_another_driver_is_ignored_and_replaced() {
        let folder = Folder::new("damaged");
        let mut writer = executor("driver 1", b"pipelines");
        let kept = folder.args().give(&mut writer);
        kept.keep(&writer);
        let path = kept.path.expect("a file");
        let whole = std::fs::read(&path).expect("written");
        let mut cases: Vec<Vec<u8>> = (0..whole.len()).map(|len| whole[..len].to_vec()).collect();
        cases.extend((0..whole.len()).map(|at| {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            changed
        }));
        for case in cases {
            std::fs::write(&path, &case).expect("written");
            let mut reader = executor("driver 1", b"pipelines");
            let kept = folder.args().give(&mut reader);
            assert_eq!(reader.got, None, "{:?}", String::from_utf8_lossy(&case));
            kept.keep(&reader);
            assert_eq!(std::fs::read(&path).expect("replaced"), whole);
        }
        let mut other = executor("driver 2", b"pipelines");
        let kept = folder.args().give(&mut other);
        assert_eq!(other.got, None, "it has a file of its own");
        std::fs::copy(&path, kept.path.expect("a file")).expect("copied");
        folder.args().give(&mut other);
        assert_eq!(other.got, None, "the file says whose it is");
    }

    #[test]
    fn none_keeps_nothing() {
        let args = CacheArgs { pipeline_cache: Some("none".into()) };
        let mut executor = executor("driver", b"pipelines");
        let kept = args.give(&mut executor);
        assert!(kept.path.is_none());
        kept.keep(&executor);
        assert!(!Path::new("none").exists());
    }
}
