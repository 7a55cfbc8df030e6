//! The way through an HTTP(S) proxy: CONNECT (RFC 9110, 9.3.6), with a login where it wants one. TLS to the service runs inside.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::config::ConfigError;
use crate::dial::{ByteStream, Dialler, Dialling, SharedDialler, is_not_resolved};
use crate::tls;

/// The head of an answer to CONNECT.
const MOST_HEAD: usize = 16 << 10;

/// Where the proxy is, and who may use it.
#[derive(Clone)]
pub struct Proxy {
    /// The proxy itself is spoken to by TLS.
    pub tls: bool,
    /// Name or address.
    pub host: String,
    /// Of TCP.
    pub port: u16,
    /// Who we are towards it; `None`: it asks nobody.
    pub login: Option<ProxyLogin>,
    /// Hosts that are reached without it: a name with all names under it, an address, or `*`.
    pub except: Vec<String>,
    /// PEM, trusted besides the system's certificate authorities.
    pub extra_ca_pem: Option<PathBuf>,
}

/// User name and password, sent as `Basic`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    /// As the proxy knows it.
    pub username: String,
    /// Never printed.
    pub password: String,
}

impl fmt::Debug for ProxyLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyLogin").field("username", &self.username).field("password", &"***").finish()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {}:{}", self.host, self.port)
    }
}

impl Proxy {
    /// Opens every connection through it, over `inner`, but for those to [exceptions](Self::except).
    pub fn dialler(self, inner: SharedDialler) -> Result<SharedDialler, ConfigError> {
        let connector = if self.tls { Some(tls::connector(self.extra_ca_pem.as_deref())?) } else { None };
        Ok(SharedDialler::new(Through(Arc::new(Tunnel { proxy: self, connector, inner }))))
    }

    fn is_excepted(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.except.iter().any(|except| {
            let except = except.trim().trim_start_matches('.').to_ascii_lowercase();
            let under = || host.strip_suffix(&*except).is_some_and(|before| before.ends_with('.'));
            except == "*" || !except.is_empty() && (host == except || under())
        })
    }
}

struct Through(Arc<Tunnel>);

struct Tunnel {
    proxy: Proxy,
    connector: Option<tokio_rustls::TlsConnector>,
    inner: SharedDialler,
}

impl Dialler for Through {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(async move { self.0.open(host, port).await })
    }
}

impl Tunnel {
    async fn open(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        let proxy = &self.proxy;
        if proxy.is_excepted(host) {
            return self.inner.dial(host, port).await;
        }
        let at = |error: io::Error| match is_not_resolved(&error) {
            // It names the proxy.
            true => error,
            false => io::Error::new(error.kind(), format!("proxy {}:{}: {error}", proxy.host, proxy.port)),
        };
        let socket = self.inner.dial(&proxy.host, proxy.port).await.map_err(at)?;
        let mut socket: Box<dyn ByteStream> = match &self.connector {
            Some(connector) => {
                let name = ServerName::try_from(proxy.host.clone()).map_err(io::Error::other)?;
                Box::new(connector.connect(name, socket).await.map_err(at)?)
            }
            None => socket,
        };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut request = format!("CONNECT {bracketed}:{port} HTTP/1.1\r\nHost: {bracketed}:{port}\r\n");
        if let Some(login) = &proxy.login {
            let basic = base64(format!("{}:{}", login.username, login.password).as_bytes());
            request.push_str(&format!("Proxy-Authorization: Basic {basic}\r\n"));
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await.map_err(at)?;
        socket.flush().await.map_err(at)?;
        let head = read_head(&mut socket).await.map_err(at)?;
        let status = status_of(&head).ok_or_else(|| at(io::Error::other("no answer of HTTP to CONNECT")))?;
        match status {
            200..=299 => Ok(socket),
            407 => Err(at(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "407, it wants another login: check username and password_file in [proxy]",
            ))),
            status => {
                let text = format!("{status} for {host}:{port}: ask who runs it to let this host through");
                Err(at(io::Error::new(io::ErrorKind::ConnectionRefused, text)))
            }
        }
    }
}

/// Up to the empty line, and not a byte more: what follows belongs to the tunnel.
async fn read_head(socket: &mut Box<dyn ByteStream>) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MOST_HEAD {
            return Err(io::Error::other("the head of its answer does not end"));
        }
        head.push(socket.read_u8().await?);
    }
    Ok(head)
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            let shown = char::from(DIGITS[value as usize]);
            text.push(if digit <= three.len() { shown } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(except: &[&str]) -> Proxy {
        Proxy {
            tls: false,
            host: "proxy.invalid".to_owned(),
            port: 3128,
            login: Some(ProxyLogin { username: "Aladdin".to_owned(), password: "open sesame".to_owned() }),
            except: except.iter().map(|&host| host.to_owned()).collect(),
            extra_ca_pem: None,
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, expected) in vectors {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn exceptions_are_names_with_all_under_them() {
        let proxy = proxy(&["localhost", ".example.com", "10.0.0.7", ""]);
        for (host, excepted) in [
            ("localhost", true),
            ("kvs.example.com", true),
            ("example.com", true),
            ("badexample.com", false),
            ("10.0.0.7", true),
            ("kinesisvideo.eu-west-1.amazonaws.com", false),
        ] {
            assert_eq!(proxy.is_excepted(host), excepted, "{host}");
        }
        assert!(super::Proxy { except: vec!["*".to_owned()], ..proxy }.is_excepted("anything"));
    }

    #[test]
    fn a_password_never_shows() {
        let proxy = proxy(&[]);
        assert!(!format!("{proxy:?} {:?}", proxy.login).contains("sesame"));
    }

    /// What the proxy answers, against what comes of it.
    async fn through(answer: &'static [u8]) -> (Result<Vec<u8>, String>, String) {
        let (seen, heard) = tokio::sync::oneshot::channel();
        let seen = std::sync::Mutex::new(Some(seen));
        let inner = SharedDialler::from_fn(move |host, port| {
            assert_eq!((host, port), ("proxy.invalid", 3128));
            let seen = seen.lock().expect("free").take().expect("one connection");
            async move {
                let (ours, mut theirs) = tokio::io::duplex(4096);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(theirs.read_u8().await.expect("a request"));
                    }
                    theirs.write_all(answer).await.expect("written");
                    let _ = seen.send(String::from_utf8(request).expect("text"));
                });
                Ok(ours)
            }
        });
        let dialler = proxy(&[]).dialler(inner).expect("it can be set up");
        let opened = async {
            let mut socket = dialler.dial("fe80::1", 443).await.map_err(|error| error.to_string())?;
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.map_err(|error| error.to_string())?;
            Ok(rest)
        };
        (opened.await, heard.await.expect("heard"))
    }

    #[tokio::test]
    async fn a_tunnel_begins_right_behind_the_answer_and_refusals_are_named() {
        let (rest, request) = through(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nHELLO").await;
        assert_eq!(rest.as_deref(), Ok(&b"HELLO"[..]));
        assert_eq!(
            request,
            "CONNECT [fe80::1]:443 HTTP/1.1\r\nHost: [fe80::1]:443\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
        for (answer, expected) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "password_file"),
            (b"HTTP/1.0 403 Forbidden\r\n\r\n", "403 for fe80::1:443"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no answer of HTTP"),
            (b"HTTP/1.1 2", "proxy.invalid:3128"),
        ] {
            let error = through(answer).await.0.expect_err("refused");
            assert!(error.contains(expected) && !error.contains("sesame"), "{error}");
        }
    }
}
