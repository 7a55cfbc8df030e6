//! The other end of a connection, played by the test itself byte by byte.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use kvs_client::ByteStream;
use kvs_client::{Client, Config, Endpoint, SharedDialler, static_credentials};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

/// A wait of a test on something that must happen; long, since it only ends a test that has failed already.
pub(crate) async fn within<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("this should have happened")
}

pub(crate) struct Peer {
    way: Way,
    pub(crate) endpoint: Endpoint,
}

enum Way {
    Socket(TcpListener),
    Memory { dialler: SharedDialler, dialled: Mutex<mpsc::Receiver<DuplexStream>> },
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        Self { way: Way::Socket(listener), endpoint }
    }

    /// The same without a socket, for paused time; each direction holds `buffer_bytes` that were not read.
    pub(crate) fn in_memory(buffer_bytes: usize) -> Self {
        let (accept, dialled) = mpsc::channel(8);
        let dialler = SharedDialler::from_fn(move |_host, _port| {
            let accept = accept.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(buffer_bytes);
                accept.send(theirs).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
                Ok(ours)
            }
        });
        let way = Way::Memory { dialler, dialled: Mutex::new(dialled) };
        Self { way, endpoint: "http://peer.invalid".parse().unwrap() }
    }

    /// A configuration in which every plane is this peer.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new("eu-central-1", static_credentials("AKIDEXAMPLE", "secret", None));
        config.endpoints.control = Some(self.endpoint.clone());
        config.endpoints.media = Some(self.endpoint.clone());
        config.endpoints.archived = Some(self.endpoint.clone());
        if let Way::Memory { dialler, .. } = &self.way {
            config.dialler = dialler.clone();
        }
        config
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.config()).unwrap()
    }

    /// The next connection, its request head read.
    pub(crate) async fn accept(&self) -> Talk {
        let socket: Box<dyn ByteStream> = match &self.way {
            Way::Socket(listener) => Box::new(within(listener.accept()).await.unwrap().0),
            Way::Memory { dialled, .. } => Box::new(within(dialled.lock().await.recv()).await.unwrap()),
        };
        let mut talk =
            Talk { socket: BufReader::new(socket), request: String::new(), headers: BTreeMap::new() };
        talk.request = talk.line().await;
        loop {
            let line = talk.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            assert!(
                talk.headers.insert(name.to_ascii_lowercase(), value.to_owned()).is_none(),
                "{name} twice"
            );
        }
        talk
    }

    /// Serves one JSON request with `status` and `body`; gives the path and the body of the request.
    pub(crate) async fn serve(&self, status: u16, headers: &str, body: &str) -> (String, serde_json::Value) {
        let mut talk = self.accept().await;
        let mut input = vec![0; talk.headers["content-length"].parse().unwrap()];
        talk.socket.read_exact(&mut input).await.unwrap();
        talk.answer(status, headers, body).await;
        let path = talk.request.split(' ').nth(1).unwrap().to_owned();
        (path, serde_json::from_slice(&input).unwrap())
    }
}

/// One connection.
pub(crate) struct Talk {
    socket: BufReader<Box<dyn ByteStream>>,
    /// Request line.
    pub(crate) request: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Talk {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        within(self.socket.read_line(&mut line)).await.unwrap();
        line.trim_end().to_owned()
    }

    /// The next chunk of the request body; `None` for the last, empty one.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line().await, 16).expect("size of a chunk");
        let mut chunk = vec![0; size];
        within(self.socket.read_exact(&mut chunk)).await.unwrap();
        assert_eq!(self.line().await, "");
        (size > 0).then_some(chunk)
    }

    pub(crate) async fn write(&mut self, text: &str) {
        within(self.socket.write_all(text.as_bytes())).await.unwrap();
        within(self.socket.flush()).await.unwrap();
    }

    /// Opens a chunked answer.
    pub(crate) async fn begin(&mut self) {
        self.write("HTTP/1.1 200 OK\r\nx-amzn-RequestId: r-1\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    }

    pub(crate) async fn write_chunk(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    pub(crate) async fn end(&mut self) {
        self.write("0\r\n\r\n").await;
    }

    /// A whole answer; `headers` are lines, each with CR and LF.
    pub(crate) async fn answer(&mut self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        self.write(&format!("HTTP/1.1 {status} Any\r\n{headers}content-length: {length}\r\n\r\n{body}"))
            .await;
    }

    /// Reads on until the client closes, in order or not.
    pub(crate) async fn until_closed(mut self) {
        let mut rest = vec![0; 65536];
        while within(self.socket.read(&mut rest)).await.unwrap_or(0) > 0 {}
    }
}
