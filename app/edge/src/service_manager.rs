//! What the service manager (systemd) is told, and never waited for.
//!
//! Its socket takes a few datagrams that it has not read; then a send would wait, on the thread that carries all cameras,
//! until the watchdog that it was to feed fires. So nothing here waits: what has to arrive (READY, STOPPING, the newest
//! STATUS) is kept and sent with the next turn of the watchdog, which comes each second.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};

use sd_notify::NotifyState;

/// So many datagrams in a row that were not taken are worth a word: some seconds.
const WORTH_A_WORD: u64 = 10;

/// The way to the service manager; clones share what is still to be told. Without one, nothing is told.
#[derive(Clone, Debug, Default)]
pub struct ServiceManager(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    socket: UnixDatagram,
    address: SocketAddr,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Name and line of what no datagram has carried yet, oldest first.
    owed: Vec<(String, String)>,
    /// Datagrams in a row that were not taken.
    refused: u64,
}

impl ServiceManager {
    /// The one that started this process, by `NOTIFY_SOCKET`.
    pub fn from_env() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        Self::at(&address).unwrap_or_else(|error| {
            tracing::warn!(%error, address = %address.display(), "the service manager cannot be told anything");
            Self::default()
        })
    }

    /// `address`: a path, or behind `@` a name in the abstract namespace (sd_notify(3)).
    pub fn at(address: &OsString) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::other("expected a path or a name behind @")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Arc::new(Inner { socket, address, told: Mutex::default() }))))
    }

    /// Says this now, or as soon as there is room; the newest of a kind counts. Never waits.
    pub fn tell(&self, state: &NotifyState<'_>) {
        let Some(inner) = &self.0 else { return };
        let line = state.to_string();
        let name = line.split('=').next().unwrap_or_default().to_owned();
        let mut told = inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.owed.retain(|(owed, _)| *owed != name);
        told.owed.push((name, line));
        inner.send(&mut told, None);
    }

    /// Feeds the watchdog, and says what is still owed. Returns false if the manager had no room: then the next turn
    /// feeds it. Never waits.
    pub fn feed(&self) -> bool {
        let Some(inner) = &self.0 else { return true };
        let mut told = inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        inner.send(&mut told, Some(&NotifyState::Watchdog))
    }

    /// Says what is still owed, if anything is. Never waits.
    pub fn catch_up(&self) {
        let Some(inner) = &self.0 else { return };
        let mut told = inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.owed.is_empty() {
            inner.send(&mut told, None);
        }
    }
}

impl Inner {
    fn send(&self, told: &mut Told, also: Option<&NotifyState<'_>>) -> bool {
        let lines = told.owed.iter().map(|(_, line)| line.clone()).chain(also.map(ToString::to_string));
        let message: String = lines.map(|line| line + "\n").collect();
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Ok(_) => {
                if told.refused >= WORTH_A_WORD {
                    tracing::info!(refused = told.refused, "the service manager listens again");
                }
                *told = Told::default();
                true
            }
            Err(error) => {
                told.refused += 1;
                if told.refused == WORTH_A_WORD {
                    tracing::warn!(%error, "the service manager takes nothing now; it is told again each second");
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// A manager that reads when the test does.
    struct Manager {
        socket: UnixDatagram,
        _folder: tempfile::TempDir,
        way: ServiceManager,
    }

    impl Manager {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).expect("a socket");
            socket.set_nonblocking(true).expect("it can be");
            let way = ServiceManager::at(&path.into_os_string()).expect("a way");
            Self { socket, _folder: folder, way }
        }

        fn read(&self) -> Option<String> {
            let mut buffer = [0; 4096];
            match self.socket.recv(&mut buffer) {
                Ok(bytes) => Some(String::from_utf8_lossy(&buffer[..bytes]).into_owned()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("{error}"),
            }
        }

        fn read_all(&self) -> Vec<String> {
            std::iter::from_fn(|| self.read()).collect()
        }
    }

    #[test]
    fn a_manager_that_reads_nothing_holds_nobody_up_and_is_told_all_later() {
        let manager = Manager::new();
        let mut taken = 0;
        while manager.way.feed() {
            taken += 1;
        }
        manager.way.tell(&NotifyState::Status("0 of 2 cameras live"));
        manager.way.tell(&NotifyState::Ready);
        manager.way.tell(&NotifyState::Status("1 of 2 cameras live"));
        assert!(!manager.way.feed(), "there is still no room");
        manager.way.catch_up();
        assert_eq!(manager.read_all(), vec!["WATCHDOG=1\n"; taken], "what it had room for");
        assert!(manager.way.feed());
        assert_eq!(manager.read_all(), ["READY=1\nSTATUS=1 of 2 cameras live\nWATCHDOG=1\n"]);
        manager.way.catch_up();
        assert_eq!(manager.read(), None, "each thing is said once");
        manager.way.tell(&NotifyState::Stopping);
        assert_eq!(manager.read_all(), ["STOPPING=1\n"]);
    }

    #[test]
    fn a_manager_that_is_gone_is_no_trouble_and_one_that_comes_back_is_told() {
        let Manager { socket, _folder: folder, way } = Manager::new();
        drop(socket);
        way.tell(&NotifyState::Ready);
        assert!(!way.feed());
        let path = folder.path().join("notify");
        std::fs::remove_file(&path).expect("it is there");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("it can be");
        let manager = Manager { socket, _folder: folder, way };
        manager.way.catch_up();
        assert_eq!(manager.read_all(), ["READY=1\n"]);
    }

    #[test]
    fn a_manager_may_have_an_abstract_name_or_not_exist() {
        let name = format!("kvs-edge-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        let way = ServiceManager::at(&format!("@{name}").into()).expect("a way");
        assert!(way.feed());
        let mut buffer = [0; 64];
        assert_eq!(
            socket.recv(&mut buffer).map(|bytes| buffer[..bytes].to_vec()).ok(),
            Some(b"WATCHDOG=1\n".to_vec())
        );
        assert!(ServiceManager::at(&"vsock:2:1".into()).is_err());
        assert!(ServiceManager::default().feed(), "nobody misses it");
    }
}
