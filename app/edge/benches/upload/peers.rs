//! Other programs that pull the same feeds.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use demo::rig::Rig;

use crate::measured::{Error, Process};

/// Names the file of AWS's GStreamer plugin, `libgstkvssink.so` of its producer SDK.
pub(crate) const KVSSINK: &str = "KVS_EDGE_BENCH_KVSSINK";

/// The plugin, if somebody named it.
pub(crate) fn kvssink_plugin() -> Option<PathBuf> {
    std::env::var_os(KVSSINK).map(PathBuf::from)
}

/// The stream into which kvssink uploads a camera; it creates it.
pub(crate) fn kvssink_stream(camera: usize) -> String {
    format!("kvssink{camera}")
}

/// A program that is ended with this value.
pub(crate) struct Peer {
    child: Child,
    pub(crate) process: Process,
}

impl Peer {
    /// `ffmpeg -c copy` into nothing.
    pub(crate) fn ffmpeg(url: &str) -> Result<Self, Error> {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", url]);
        command.args(["-c", "copy", "-f", "null", "-"]);
        Self::start(command)
    }

    /// AWS's producer, which uploads a camera into a stream of its own on the same server.
    pub(crate) fn kvssink(plugin: &Path, rig: &Rig, camera: usize) -> Result<Self, Error> {
        let folder = plugin.parent().ok_or_else(|| format!("{KVSSINK} is no path of a file"))?;
        let keys = rig.credentials();
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-q", "rtspsrc", "protocols=tcp"]).arg(format!("location={}", rig.sim.url(camera)));
        command.args("! rtph264depay ! h264parse ! video/x-h264,stream-format=avc,alignment=au".split(' '));
        command.args(["!", "kvssink"]).arg(format!("stream-name={}", kvssink_stream(camera)));
        command.arg(format!("aws-region={}", rig.region()));
        command.env("GST_PLUGIN_PATH", folder).env("CONTROL_PLANE_URI", rig.kvs.endpoint());
        command.env("AWS_ACCESS_KEY_ID", keys.access_key).env("AWS_SECRET_ACCESS_KEY", keys.secret_key);
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self, Error> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let program = command.get_program().display();
        let child = child.map_err(|error| format!("{program}: {error}"))?;
        let process = Process::begun(child.id());
        Ok(Self { child, process })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
