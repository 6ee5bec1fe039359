//! The file with the secret of the embedded default: made at the first start, read at every later one.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Secret;

/// Why there is no secret to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "./bellhop.secret holds less than 32 bytes; delete it to have a new one made (tokens signed with it end)"
    )]
    TooShort,
    #[error(
        "no key: set JWT_SECRET to the node's, or run this in the folder where `bellhop serve` keeps its bellhop.secret"
    )]
    Missing,
    #[error("./bellhop.secret cannot be used")]
    File(#[source] std::io::Error),
}

/// The secret that is kept at `path`. With `create`, one is made where there is none.
pub(super) fn kept(path: &Path, create: bool) -> Result<Secret, SecretError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => Ok(Secret::new(text.trim().to_owned())),
        Ok(_) => Err(SecretError::TooShort),
        Err(error) if error.kind() == ErrorKind::NotFound && create => {
            generate(path).map_err(SecretError::File)?;
            kept(path, false)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(SecretError::Missing),
        Err(error) => Err(SecretError::File(error)),
    }
}

/// Makes a secret and keeps it at `path`, unless another process did so first; then that one's stays.
///
/// The file appears whole or not at all, whenever this process ends: it gets its name after its content.
fn generate(path: &Path) -> std::io::Result<()> {
    let mark: u64 = rand::random();
    let temporary = path.with_extension(format!("secret.{mark:016x}"));
    let kept = write_new(&temporary).and_then(|()| match std::fs::hard_link(&temporary, path) {
        // Of two nodes that start at once in one folder, the second reads what the first wrote.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = std::fs::remove_file(&temporary);
    kept.and(removed)
}

/// Writes 32 random bytes, in hexadecimal, to a new file that only its owner may read.
fn write_new(path: &Path) -> std::io::Result<()> {
    let bytes: [u8; 32] = rand::random();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn all_who_start_at_once_in_one_folder_have_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bellhop.secret");
        assert!(matches!(kept(&path, false), Err(SecretError::Missing)));

        let barrier = std::sync::Barrier::new(8);
        let start = || {
            barrier.wait();
            // What a second one does that found no file, and is then overtaken.
            generate(&path).unwrap();
            kept(&path, true).unwrap()
        };
        let secrets: Vec<Secret> = std::thread::scope(|scope| {
            let started = [(); 8].map(|()| scope.spawn(start));
            started.map(|thread| thread.join().unwrap()).into()
        });

        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        assert_eq!(secrets[0].expose().len(), 64);
        assert_eq!(kept(&path, false).unwrap(), secrets[0]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(files.count(), 1, "nothing temporary stays");
    }

    #[test]
    fn a_kept_secret_that_is_too_short_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bellhop.secret");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(kept(&path, true), Err(SecretError::TooShort)));
    }
}
