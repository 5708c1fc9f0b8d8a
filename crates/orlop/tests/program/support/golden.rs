//! Texts that are compared with files below `tests/golden/`. `UPDATE_FILES=1` writes them.

use std::path::Path;

/// Compares a text with the file of this name.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_FILES").is_some() {
        std::fs::create_dir_all(path.parent().expect("the file is in a folder")).expect("make the folder");
        std::fs::write(&path, text).expect("write the file");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{} differs; to accept what is new: UPDATE_FILES=1\n--- expected\n{expected}\n--- found\n{text}",
        path.display()
    );
}
