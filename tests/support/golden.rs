//! Texts that are kept in `tests/golden/` and compared.
//!
//! Gets a name and a text, returns nothing; the test fails where they differ. `GRAPHC_ACCEPT=1` writes what was found.
//! Never decides whether a difference is meant.

use std::path::{Path, PathBuf};

/// The path of a kept file.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Compares with the file of this name, or writes it if asked to.
///
/// # Panics
/// If they differ, with the first line that does.
pub fn assert_golden(name: &str, found: &str) {
    let path = golden(name);
    if std::env::var_os("GRAPHC_ACCEPT").is_some_and(|value| value == "1") {
        let folder = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(folder).expect("a folder is made");
        return std::fs::write(&path, found).expect("a golden file is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    if found == expected {
        return;
    }
    let (mut found_lines, mut expected_lines) = (found.lines(), expected.lines());
    let same = |(a, b): &(&str, &str)| a == b;
    let count = found_lines.by_ref().zip(expected_lines.by_ref()).take_while(same).count();
    let line = |text: &str| text.lines().nth(count).unwrap_or("(the end)").to_owned();
    panic!(
        "tests/golden/{name}:{}\n  expected {}\n  found    {}\nGRAPHC_ACCEPT=1 accepts what was found:\n{found}",
        count + 1,
        line(&expected),
        line(found)
    );
}
