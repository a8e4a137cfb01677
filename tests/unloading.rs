//! Drivers stay loaded after the last executor is gone.
//!
//! Gets software drivers, and a process for each executor, since another one would hold the driver too. What then
//! holds: the libraries that an executor has loaded are mapped until the process ends, so that a thread which has
//! called one may end later than the executor.

#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use support::runner::{AnyExecutor, DEVICES, KINDS, Kind};

/// Names the executor to a process that this test has started.
const CHILD: &str = "GRAPHC_TEST_UNLOADING";

#[test]
fn drivers_stay_loaded_after_the_last_executor() {
    if let Ok(name) = std::env::var(CHILD) {
        let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == name).expect("one of those below");
        return DEVICES.iter().for_each(|device| check(kind, device));
    }
    for kind in KINDS {
        let mut child = Command::new(std::env::current_exe().expect("running"));
        child.args(["--exact", "drivers_stay_loaded_after_the_last_executor", "--nocapture"]);
        let ran = child.env(CHILD, format!("{kind:?}")).output().expect("started");
        println!("{}", String::from_utf8_lossy(&ran.stdout));
        assert!(ran.status.success(), "{kind:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

/// Opens an executor, drops it, and looks at what is mapped before and after.
fn check(kind: Kind, device: &'static str) {
    let Some(executor) = AnyExecutor::find(kind, device) else { return };
    let with = libraries();
    drop(executor);
    let gone: Vec<_> = with.difference(&libraries()).cloned().collect();
    println!("{kind:?} on {device}: {} libraries, unloaded {gone:?}", with.len());
    assert!(gone.is_empty(), "{kind:?} on {device} has unloaded {gone:?}");
}

/// Libraries that are mapped.
fn libraries() -> BTreeSet<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("on Linux");
    let paths = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| path.to_owned());
    paths.filter(|path| path.contains(".so")).collect()
}
