//! The network between the box and the cloud: a TCP relay whose weather a test makes.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Passed on at once: small, so that a slow link is slow and not bursty.
const PIECE_BYTES: usize = 4096;

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Connections break, and new ones are closed at once.
    Cut,
    /// Nothing is passed on, and nothing breaks.
    Still,
    Slow {
        bytes_per_s: u64,
    },
    /// Each connection breaks after so many bytes, both directions together.
    Lossy {
        bytes: u64,
    },
}

#[derive(Clone, Copy)]
struct State {
    weather: Weather,
    /// Connections up to this one, counted from 1, pass nothing on any more.
    frozen: u64,
}

/// A relay on a port of its own. Dropped, all connections break.
pub struct Link {
    endpoint: String,
    target: Arc<Mutex<Option<SocketAddr>>>,
    state: Arc<watch::Sender<State>>,
    connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Link {
    /// It leads nowhere until [`lead_to`](Self::lead_to).
    pub async fn bind() -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let target = Arc::new(Mutex::new(None));
        let state = Arc::new(watch::Sender::new(State { weather: Weather::Fair, frozen: 0 }));
        let connections = Arc::new(AtomicU64::new(0));
        let (to, weather, count) = (target.clone(), state.clone(), connections.clone());
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while relays.try_join_next().is_some() {}
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let target: Option<SocketAddr> = *to.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(target) = target {
                    relays.spawn(relay(client, target, number, weather.subscribe()));
                }
            }
        });
        Link { endpoint, target, state, connections, task }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `http://ADDRESS:PORT`
    pub fn lead_to(&self, endpoint: &str) {
        let address = endpoint.trim_start_matches("http://").parse().expect("an address");
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    pub fn set(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }

    /// What is connected now passes nothing on any more, as behind a middlebox that forgot it; nobody is told. New connections
    /// are as the weather is.
    pub fn freeze(&self) {
        let frozen = self.connections.load(Ordering::Relaxed);
        self.state.send_modify(|state| state.frozen = frozen);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, target: SocketAddr, number: u64, mut state: watch::Receiver<State>) {
    let is_cut = |state: &State| state.weather == Weather::Cut;
    if is_cut(&state.borrow()) {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let carried = AtomicU64::new(0);
    let up = pass(from_client, to_server, number, state.clone(), &carried);
    let down = pass(from_server, to_client, number, state.clone(), &carried);
    tokio::select! {
        _ = async { tokio::try_join!(up, down) } => {}
        _ = state.wait_for(is_cut) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: u64,
    mut state: watch::Receiver<State>,
    carried: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        weather_permits(&mut state, number, length as u64, carried).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Returns once `bytes` more may pass.
async fn weather_permits(
    state: &mut watch::Receiver<State>,
    number: u64,
    bytes: u64,
    carried: &AtomicU64,
) -> io::Result<()> {
    loop {
        let State { weather, frozen } = *state.borrow_and_update();
        match weather {
            _ if number <= frozen => {}
            Weather::Still => {}
            Weather::Slow { bytes_per_s } => {
                tokio::time::sleep(Duration::from_micros(bytes * 1_000_000 / bytes_per_s.max(1))).await;
                return Ok(());
            }
            Weather::Lossy { bytes: limit } => {
                let so_far = carried.fetch_add(bytes, Ordering::Relaxed) + bytes;
                return if so_far > limit { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) };
            }
            Weather::Fair | Weather::Cut => return Ok(()),
        }
        state.changed().await.map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::within;

    async fn echo() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        (listener, endpoint)
    }

    #[tokio::test]
    async fn a_link_passes_on_breaks_and_freezes_what_it_is_told_to() {
        let (server, endpoint) = echo().await;
        let link = Link::bind().await;
        link.lead_to(&endpoint);
        let connect = async || {
            let client = TcpStream::connect(link.endpoint().trim_start_matches("http://"));
            let client = client.await.expect("the relay listens");
            let (server, _) = server.accept().await.expect("the relay connects");
            (client, server)
        };
        let (mut client, mut peer) = connect().await;
        let mut four = [0; 4];
        client.write_all(b"ping").await.expect("up");
        within("bytes up", peer.read_exact(&mut four)).await.expect("they come");
        peer.write_all(b"pong").await.expect("down");
        within("bytes down", client.read_exact(&mut four)).await.expect("they come");
        assert_eq!(&four, b"pong");

        // A frozen connection is told nothing while a new one works, and breaks with the cut.
        link.freeze();
        client.write_all(b"lost").await.expect("buffers take it");
        let (mut second, mut second_peer) = connect().await;
        second.write_all(b"ping").await.expect("up");
        within("bytes of the second", second_peer.read_exact(&mut four)).await.expect("they come");
        link.set(Weather::Cut);
        for socket in [&mut client, &mut second, &mut peer, &mut second_peer] {
            let end = within("the end of a connection", socket.read(&mut four)).await;
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }
        link.set(Weather::Lossy { bytes: 6 });
        let (mut third, mut third_peer) = connect().await;
        third.write_all(b"ping").await.expect("up");
        within("the first bytes", third_peer.read_exact(&mut four)).await.expect("they come");
        third.write_all(b"more").await.expect("up");
        let end = within("the end of a lossy connection", third_peer.read(&mut four)).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}
