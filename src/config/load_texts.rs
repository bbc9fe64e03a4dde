//! Connectors from texts; for tests.

use std::path::PathBuf;

use super::{Connectors, load_connectors};

/// A folder of connectors that is gone at the end of the test.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("sluice-connectors-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Problems name the files without their folder.
pub(super) fn load_texts(files: &[(&str, &str)]) -> Result<Connectors, String> {
    let folder = Folder::new(files);
    load_connectors(&folder.0).map_err(|problems| problems.to_string().replace(&format!("{}/", folder.0.display()), ""))
}
