//! A real Mosquitto on a free port.

use std::path::Path;
use std::process::Command;

use crate::cloud::free_port;
use crate::process::{Process, program};

/// Ports are looked for and then used: somebody else may be faster.
const TRIES: u32 = 5;

pub struct Mosquitto {
    pub process: Process,
    pub port: u16,
}

impl Mosquitto {
    /// `None`, and a word to stderr, where Mosquitto is not installed.
    pub async fn start(folder: &Path) -> Option<Mosquitto> {
        for _ in 0..TRIES {
            let port = free_port();
            if let Some(broker) = Mosquitto::start_on(folder, port).await? {
                return Some(broker);
            }
        }
        panic!("no free port for Mosquitto in {TRIES} tries");
    }

    /// On this port, as after a restart. `Some(None)`: the port is taken.
    pub async fn start_on(folder: &Path, port: u16) -> Option<Option<Mosquitto>> {
        let path = program("mosquitto", "mosquitto")?;
        let file = folder.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest stderr\nlog_type error\n\
             log_type warning\nlog_type notice\nlog_type information\n"
        );
        std::fs::write(&file, text).expect("the rig's folder can be written to");
        let process = Process::spawn("mosquitto", Command::new(path).arg("-c").arg(&file));
        // The last line of a good start, and what it says before it gives up.
        let started = tokio::select! {
            _ = process.line("running") => true,
            _ = process.ended() => false,
        };
        Some(started.then_some(Mosquitto { process, port }))
    }

    /// Ends the broker and starts another one on the same port, which knows nothing of before.
    pub async fn restart(&mut self, folder: &Path) {
        self.stop().await;
        self.start_again(folder).await;
    }

    pub async fn stop(&self) {
        self.process.signal("TERM");
        self.process.ended().await;
    }

    /// On its own port; it knows nothing of before.
    pub async fn start_again(&mut self, folder: &Path) {
        let again = Mosquitto::start_on(folder, self.port).await;
        *self = again.flatten().expect("its own port is free again");
    }
}
