//! A service manager such as systemd, as the daemon knows it: the socket that NOTIFY_SOCKET names.

use kvs_edge_tests::within;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What the daemon tells its service manager.
pub(crate) struct ServiceManager {
    folder: tempfile::TempDir,
    lines: mpsc::UnboundedReceiver<String>,
    /// Reads all the time, as a real one does: a full socket would hold the daemon up.
    reader: JoinHandle<()>,
}

impl ServiceManager {
    pub(crate) fn new() -> ServiceManager {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket in it");
        let (sender, lines) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                for line in String::from_utf8_lossy(&buffer[..length]).lines() {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        ServiceManager { folder, lines, reader }
    }

    pub(crate) fn address(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// Reads until a line begins with `wanted`; returns all lines read.
    pub(crate) async fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let read = async {
            while !lines.iter().any(|line| line.starts_with(wanted)) {
                lines.push(self.lines.recv().await.expect("the reader lives"));
            }
        };
        within(wanted, read).await;
        lines
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
