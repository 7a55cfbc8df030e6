//! Footage on disk that nobody can read without a key.
//!
//! ```text
//!  sealed:  key id, 8 | nonce, 12 | ciphertext | tag, 16       AES-256-GCM
//! ```
//!
//! Meta and body of each record are sealed apart, each with a nonce of its own, drawn at random: one key is good for 2^32 of them,
//! which is decades of a box. The body is bound to its meta. Lengths, sums over what stands on the disk, names of files and the
//! index (names, times, sizes of fragments) are not sealed: a power cut and a worn-out disk are found without a key.
//!
//! A key file holds 64 hexadecimal digits a line (`openssl rand -hex 32`). The first key seals, all of them open: to change the
//! key, put the new one in front and take the old one away once nothing on disk needs it.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

const ID: usize = 8;
const TAG: usize = 16;
/// Key id and nonce, in front of what is sealed.
pub(crate) const SEAL_HEAD: usize = ID + NONCE_LEN;
/// What sealing adds.
pub(crate) const SEAL: usize = SEAL_HEAD + TAG;
const HEX: usize = 64;
/// No key file is longer.
const MOST_BYTES: u64 = 64 << 10;

/// Which key; says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl KeyId {
    /// Of what is sealed.
    pub(crate) fn of(sealed: &[u8]) -> Option<Self> {
        Some(Self(sealed.get(..ID)?.try_into().ok()?))
    }
}

/// The keys of a spool. Without any nothing is sealed.
#[derive(Clone, Default)]
pub struct Keys(Arc<[Key]>);

struct Key {
    id: KeyId,
    key: LessSafeKey,
}

/// Why a key file gives no keys. Never holds any of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("key file {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("key file {path}: no file, or longer than {MOST_BYTES} bytes")]
    NoFile { path: PathBuf },
    #[error("key file {path}: line {line} has {found} characters, expected {HEX} hexadecimal digits")]
    NotHex { path: PathBuf, line: usize, found: usize },
    #[error("key file {path}: it holds no key")]
    Empty { path: PathBuf },
}

impl KeyError {
    /// What to change.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::NoFile { .. } => {
                "look at key_file or key_credential in [spool]: a file for the user of the daemon alone (chmod 600)"
            }
            Self::NotHex { .. } | Self::Empty { .. } => "make it with: openssl rand -hex 32",
        }
    }
}

/// What became of an attempt to open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// In place, behind [`SEAL_HEAD`]: so many bytes.
    Bytes(usize),
    /// No key of this name.
    Locked(KeyId),
    /// Not as it was sealed.
    Damaged,
}

impl Keys {
    /// From a key file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
        // A pipe or a device may never end.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(KeyError::NoFile { path: path.to_owned() });
        }
        let mut text = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(KeyError::NoFile { path: path.to_owned() });
        }
        Self::parse(&text, path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let not_hex = || KeyError::NotHex { path: path.to_owned(), line: at + 1, found: line.len() };
            let bytes = (line.len() == HEX).then(|| unhex(line)).flatten().ok_or_else(not_hex)?;
            let id = digest(&SHA256, &[b"kvs-edge spool key ".as_slice(), &bytes].concat());
            let id = KeyId::of(id.as_ref()).ok_or_else(not_hex)?;
            let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| not_hex())?;
            keys.push(Key { id, key: LessSafeKey::new(key) });
        }
        if keys.is_empty() { Err(KeyError::Empty { path: path.to_owned() }) } else { Ok(Self(keys.into())) }
    }

    pub(crate) fn seals(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn has(&self, id: KeyId) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// What stands behind `from` + [`SEAL_HEAD`] is sealed in place, and its tag appended.
    pub(crate) fn seal(&self, buffer: &mut Vec<u8>, from: usize, bound_to: &[u8]) {
        let Some(Key { id, key }) = self.0.first() else { return };
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the kernel gives random bytes");
        let sealed = &mut buffer[from..];
        sealed[..ID].copy_from_slice(&id.0);
        sealed[ID..SEAL_HEAD].copy_from_slice(&nonce);
        let (nonce, bound_to) = (Nonce::assume_unique_for_key(nonce), Aad::from(bound_to));
        let tag = key.seal_in_place_separate_tag(nonce, bound_to, &mut sealed[SEAL_HEAD..]);
        buffer.extend_from_slice(tag.expect("a fragment is shorter than 64 GiB").as_ref());
    }

    /// Opens in place.
    pub(crate) fn open(&self, sealed: &mut [u8], bound_to: &[u8]) -> Opened {
        let Some(id) = KeyId::of(sealed) else { return Opened::Damaged };
        let Some(Key { key, .. }) = self.0.iter().find(|key| key.id == id) else { return Opened::Locked(id) };
        let Some((head, rest)) = sealed.split_at_mut_checked(SEAL_HEAD) else { return Opened::Damaged };
        let Ok(nonce) = Nonce::try_assume_unique_for_key(&head[ID..]) else { return Opened::Damaged };
        match key.open_in_place(nonce, Aad::from(bound_to), rest) {
            Ok(bytes) => Opened::Bytes(bytes.len()),
            Err(_) => Opened::Damaged,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

fn unhex(line: &[u8]) -> Option<[u8; HEX / 2]> {
    let mut bytes = [0; HEX / 2];
    for (byte, pair) in bytes.iter_mut().zip(line.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, KeyError> {
        Keys::parse(text.as_bytes(), Path::new("key"))
    }

    fn key(digit: &str) -> String {
        digit.repeat(HEX)
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_key_alone_and_every_changed_byte_shows() {
        let one = keys(&key("1")).expect("a key");
        let mut sealed = vec![0; SEAL_HEAD];
        sealed.extend(b"a picture");
        one.seal(&mut sealed, 0, b"bound");
        assert_eq!(sealed.len(), b"a picture".len() + SEAL);
        assert!(!sealed.windows(7).any(|bytes| bytes == b"picture"));
        let mut opened = sealed.clone();
        assert_eq!(one.open(&mut opened, b"bound"), Opened::Bytes(9));
        assert_eq!(&opened[SEAL_HEAD..][..9], b"a picture");
        assert_eq!(one.open(&mut sealed.clone(), b"other"), Opened::Damaged);
        for at in ID..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(one.open(&mut changed, b"bound"), Opened::Damaged, "byte {at}");
        }
        for short in 0..SEAL {
            assert_ne!(one.open(&mut sealed[..short].to_vec(), b"bound"), Opened::Bytes(9), "{short}");
        }
        let id = KeyId::of(&sealed).expect("an id");
        assert_eq!(keys(&key("2")).expect("a key").open(&mut sealed.clone(), b"bound"), Opened::Locked(id));
        let rotated = keys(&format!("{}\n{}\n", key("2"), key("1"))).expect("two keys");
        assert_eq!(rotated.open(&mut sealed.clone(), b"bound"), Opened::Bytes(9));
        let mut again = vec![0; SEAL_HEAD];
        again.extend(b"a picture");
        one.seal(&mut again, 0, b"bound");
        assert_ne!(again, sealed, "no nonce comes twice");
    }

    #[test]
    fn a_key_file_is_taken_or_it_is_said_what_is_wrong_with_it() {
        assert!(keys(&format!("\n {} \r\n", key("aB").chars().take(HEX).collect::<String>())).is_ok());
        for (text, expected) in [
            ("", "holds no key"),
            ("\n\n", "holds no key"),
            ("12", "line 1 has 2 characters, expected 64 hexadecimal digits"),
            (&*format!("{}\n{}", key("1"), key("g")), "line 2 has 64 characters"),
            (&*format!("{}0", key("1")), "line 1 has 65 characters"),
        ] {
            let error = keys(text).expect_err("no keys").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(Keys::read(folder.path()), Err(KeyError::NoFile { .. })));
        assert!(matches!(Keys::read(&folder.path().join("none")), Err(KeyError::Unreadable { .. })));
        let shown = format!("{:?}", keys(&key("1")).expect("a key"));
        assert!(!shown.contains("1111"), "{shown}");
    }
}
