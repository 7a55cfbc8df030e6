//! Credentials from files of one line each, which may be replaced while the program runs.

use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

/// Session tokens have some kilobytes.
const LIMIT_BYTES: u64 = 64 * 1024;

/// Looks at the files when it is asked, and reads them again if one is no longer the same. The client asks once a
/// minute, and at once after the service refused the keys; while a file cannot be read, the keys before are used on.
/// Files are touched on the runtime's blocking threads only.
pub fn key_files(
    access_key_id: impl Into<PathBuf>,
    secret_access_key: impl Into<PathBuf>,
    session_token: Option<PathBuf>,
) -> SharedCredentialsProvider {
    let paths = Paths { id: access_key_id.into(), secret: secret_access_key.into(), token: session_token };
    SharedCredentialsProvider::new(KeyFiles(Arc::new(Files { paths, read: Mutex::default() })))
}

#[derive(Debug)]
struct KeyFiles(Arc<Files>);

#[derive(Debug)]
struct Files {
    paths: Paths,
    /// What the files were when they were last read, and what they held.
    read: Mutex<Option<(Stamps, Credentials)>>,
}

#[derive(Debug)]
struct Paths {
    id: PathBuf,
    secret: PathBuf,
    token: Option<PathBuf>,
}

/// One per file, in the order of [`Paths`].
type Stamps = [Option<Stamp>; 3];

/// Changes whenever a file is written or replaced: nobody can set the time of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why a key file gives no key. Never holds any of its content.
#[derive(Debug, thiserror::Error)]
#[error("key file {}: {problem}", path.display())]
struct KeyFileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    #[error("not a regular file")]
    NotAFile,
    #[error("longer than {LIMIT_BYTES} bytes, expected one line")]
    TooLong,
    #[error("not one line of text")]
    NotOneLine,
    #[error("empty")]
    Empty,
}

impl Files {
    fn load(&self) -> Result<Credentials, KeyFileError> {
        let mut read = self.read.lock().expect("no panic while it is held");
        let paths = &self.paths;
        let stamps = [
            Some(stamp(&paths.id)?),
            Some(stamp(&paths.secret)?),
            paths.token.as_deref().map(stamp).transpose()?,
        ];
        if let Some((seen, credentials)) = &*read
            && *seen == stamps
        {
            return Ok(credentials.clone());
        }
        let token = paths.token.as_deref().map(line).transpose()?;
        let credentials = Credentials::new(line(&paths.id)?, line(&paths.secret)?, token, None, "key files");
        *read = Some((stamps, credentials.clone()));
        Ok(credentials)
    }
}

fn stamp(path: &Path) -> Result<Stamp, KeyFileError> {
    let metadata = std::fs::metadata(path).map_err(Problem::from);
    let regular = metadata.and_then(|found| if found.is_file() { Ok(found) } else { Err(Problem::NotAFile) });
    regular.map(|found| Stamp::of(&found)).map_err(|problem| KeyFileError { path: path.to_owned(), problem })
}

fn line(path: &Path) -> Result<String, KeyFileError> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT_BYTES {
            return Err(Problem::TooLong);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| Problem::NotOneLine)?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line {
            "" => Err(Problem::Empty),
            _ if line.contains(['\n', '\r']) => Err(Problem::NotOneLine),
            _ => Ok(line.to_owned()),
        }
    };
    read().map_err(|problem| KeyFileError { path: path.to_owned(), problem })
}

impl ProvideCredentials for KeyFiles {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let files = self.0.clone();
        future::ProvideCredentials::new(async move {
            let loaded = tokio::task::spawn_blocking(move || files.load()).await;
            loaded.map_err(CredentialsError::unhandled)?.map_err(CredentialsError::provider_error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().expect("a folder"));
            folder.replace("id", "AKID1\n");
            folder.replace("secret", "secret1\r\n");
            folder.replace("token", "token1");
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// As a rotation does it.
        fn replace(&self, name: &str, text: &str) {
            std::fs::write(self.path("new"), text).expect("written");
            std::fs::rename(self.path("new"), self.path(name)).expect("renamed");
        }

        fn provider(&self) -> KeyFiles {
            let paths =
                Paths { id: self.path("id"), secret: self.path("secret"), token: Some(self.path("token")) };
            KeyFiles(Arc::new(Files { paths, read: Mutex::default() }))
        }
    }

    async fn keys(provider: &KeyFiles) -> Result<[String; 3], String> {
        let keys = provider.provide_credentials().await.map_err(|error| {
            let source = std::error::Error::source(&error).expect("the reason");
            source.to_string()
        })?;
        assert_eq!(keys.expiry(), None);
        let token = keys.session_token().unwrap_or_default();
        Ok([keys.access_key_id(), keys.secret_access_key(), token].map(str::to_owned))
    }

    fn texts(keys: [&str; 3]) -> Result<[String; 3], String> {
        Ok(keys.map(str::to_owned))
    }

    #[tokio::test]
    async fn files_are_read_again_when_one_was_replaced_or_written() {
        let folder = Folder::new();
        let provider = folder.provider();
        assert_eq!(keys(&provider).await, texts(["AKID1", "secret1", "token1"]));
        folder.replace("token", "token2");
        assert_eq!(keys(&provider).await, texts(["AKID1", "secret1", "token2"]));
        std::fs::write(folder.path("secret"), "secret22").expect("written");
        assert_eq!(keys(&provider).await, texts(["AKID1", "secret22", "token2"]));
    }

    /// The number of times that a file was opened cannot be seen from outside, its absence can.
    #[tokio::test]
    async fn files_that_did_not_change_are_not_read_again() {
        let folder = Folder::new();
        let provider = folder.provider();
        keys(&provider).await.expect("read");
        let before = provider.0.read.lock().expect("held by nobody").clone();
        // What was read is marked; a file that is read again would take the mark away.
        let (stamps, _) = before.expect("read once");
        let marked = Credentials::new("marked", "m", None, None, "test");
        *provider.0.read.lock().expect("held by nobody") = Some((stamps, marked));
        assert_eq!(keys(&provider).await, texts(["marked", "m", ""]));
        folder.replace("id", "AKID2");
        assert_eq!(keys(&provider).await, texts(["AKID2", "secret1", "token1"]));
    }

    #[tokio::test]
    async fn a_file_without_a_key_is_named_and_its_content_is_not() {
        let folder = Folder::new();
        let provider = folder.provider();
        for (text, expected) in [
            ("", "empty"),
            ("verySecret\nmore", "not one line of text"),
            (&"verySecret".repeat(10_000), "longer than 65536 bytes, expected one line"),
        ] {
            folder.replace("secret", text);
            let error = keys(&provider).await.expect_err(expected);
            assert_eq!(error, format!("key file {}: {expected}", folder.path("secret").display()));
        }
        std::fs::remove_file(folder.path("secret")).expect("removed");
        assert!(keys(&provider).await.expect_err("absent").contains("secret: No such file"));
        std::fs::create_dir(folder.path("secret")).expect("made");
        assert!(keys(&provider).await.expect_err("a folder").ends_with("secret: not a regular file"));
    }
}
