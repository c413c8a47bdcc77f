//! A server of the files below a directory.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::http::{Http, Response};

/// A server of static files, which ends when it is dropped.
pub struct Files(Http);

impl Files {
    /// Serves the files below `directory`.
    pub fn start(directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        let answer = move |path: &str| {
            let content = fs::read(file(&directory, path)?).ok()?;
            Some(Response::content(&content, None))
        };
        Http::start(move |request| Some(answer(&request.path).unwrap_or(Response::empty(404)))).map(Self)
    }

    /// The URL for an emulated device.
    pub fn url(&self) -> String {
        self.0.url()
    }
}

/// The path below `directory` of a file that a request names, if it names one there.
fn file(directory: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path.strip_prefix('/')?);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_below && !path.as_os_str().is_empty()).then(|| directory.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::send;

    #[test]
    fn files_are_served() {
        let directory = std::env::temp_dir().join(format!("files-{}", std::process::id()));
        fs::create_dir_all(directory.join("pool")).unwrap();
        fs::write(directory.join("pool/a.deb"), "content").unwrap();
        let server = Files::start(&directory).unwrap();
        let get = |path: &str| send(server.0.address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(get("/pool/a.deb").ends_with("Content-Length: 7\r\n\r\ncontent"));
        assert!(get("/pool/b.deb").starts_with("HTTP/1.1 404 Not Found\r\n"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn files_outside_of_the_directory_are_not_served() {
        let file = |path: &str| file(Path::new("/srv"), path);
        assert_eq!(file("/pool/a.deb").unwrap(), Path::new("/srv/pool/a.deb"));
        for path in ["/../etc/passwd", "/pool/../../x", "//etc/passwd", "pool", "/", ""] {
            assert_eq!(file(path), None, "{path}");
        }
    }
}
