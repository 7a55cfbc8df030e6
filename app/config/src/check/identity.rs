//! `[aws.iot]` and `[proxy]`: who the box is, and the way out.

use url::Url;

use super::values::{ID, is_local, name_like, pem_file, redacted, secret};
use crate::document::{Report, Section, brief};
use crate::{ClientCertificate, Iot, Login, Proxy, Secret};

/// `None` only together with a mistake in the report.
pub(super) fn iot(report: &mut Report, mut section: Section) -> Option<Iot> {
    let mut text = |report: &mut Report, key: &'static str, expected: &str, fix: &str| {
        let found = section.string(report, key);
        if found.is_none() && !section.has(key) {
            section.missing(report, key, expected, fix);
        }
        found
    };
    let endpoint = text(
        report,
        "endpoint",
        "the host of the credentials provider",
        "aws iot describe-endpoint --endpoint-type iot:CredentialProvider tells it",
    );
    let alias =
        text(report, "role_alias", "the name of a role alias", "aws iot list-role-aliases names them");
    let thing =
        text(report, "thing_name", "the name of this box as a thing", "aws iot list-things names them");
    let cert = text(report, "cert_file", "the device certificate", "write cert_file = \"...\"").is_some();
    let key = text(report, "key_file", "its private key", "write key_file = \"...\"").is_some();
    let endpoint = endpoint.and_then(|endpoint| {
        let name = endpoint.value.split(':').next().unwrap_or_default();
        let port =
            endpoint.value.split_once(':').map(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !name.is_empty() && name.chars().all(plain) && port.unwrap_or(true) {
            return Some(endpoint.value);
        }
        let found = format!("{:?}", brief(&endpoint.value));
        let fix = "write the host alone, without https:// and without a path";
        report.mistake(endpoint.at, &section.path("endpoint"), found, "HOST or HOST:PORT", fix);
        None
    });
    let alias = alias.and_then(|alias| name_like(report, &section, "role_alias", alias, 128, ID));
    let thing = thing.and_then(|thing| name_like(report, &section, "thing_name", thing, 128, ID));
    let cert_file =
        if cert { pem_file(report, &mut section, "cert_file", "CERTIFICATE", false) } else { None };
    let key_file = if key { pem_file(report, &mut section, "key_file", "PRIVATE KEY", true) } else { None };
    let ca_file = pem_file(report, &mut section, "ca_file", "CERTIFICATE", false);
    section.finish(report);
    Some(Iot {
        endpoint: endpoint?,
        role_alias: alias?,
        thing_name: thing?,
        certificate: ClientCertificate { cert_file: cert_file?, key_file: key_file? },
        ca_file,
    })
}

/// Of the table, else of the environment.
pub(super) fn proxy(report: &mut Report, mut section: Section) -> Option<Proxy> {
    const EXPECTED: &str = "http://HOST:PORT or https://HOST:PORT";
    let url = section.string(report, "url");
    if url.is_none() && section.is_present() && !section.has("url") {
        section.missing(report, "url", EXPECTED, "write url = \"http://proxy.example.com:3128\"");
    }
    let username = section.string(report, "username");
    let password = secret(report, &mut section, "password", "password_file", "password_credential");
    let except = section.strings(report, "except");
    if username.is_some() != password.is_some() {
        let key = if username.is_some() { "password_file" } else { "username" };
        section.missing(report, key, "user name and password together", "give both, or neither");
    }
    let path = section.path("url");
    let is_present = section.is_present();
    section.finish(report);
    if !is_present {
        return from_environment(report);
    }
    let text = url?;
    let fix = match Url::parse(&text.value) {
        Err(error) => format!("correct it ({error})"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            "a SOCKS proxy is not supported: use one of HTTP that allows CONNECT".to_owned()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "move user and password out of the URL, because URLs end up in logs: username, password_file"
                .to_owned()
        }
        Ok(url) if url.host_str().is_none_or(str::is_empty) => "name the host".to_owned(),
        Ok(url) => {
            let login = match (username, password) {
                (Some(username), Some(Ok(password))) => Some(Login { username: username.value, password }),
                _ => None,
            };
            if login.is_some() && url.scheme() == "http" && !url.host_str().is_some_and(is_local) {
                let fix = "use https:// where the proxy offers it; else keep its network to yourself";
                report.warning(text.at, &path, "the proxy's password without TLS", "https://", fix);
            }
            let except = except.unwrap_or_default().into_iter().map(|host| host.value).collect();
            return Some(Proxy { url, login, except });
        }
    };
    report.mistake(text.at, &path, redacted(&text.value), EXPECTED, fix);
    None
}

/// A login stands in the URL there; it is taken out, and never shown.
fn from_environment(report: &mut Report) -> Option<Proxy> {
    let text = report.environment.proxy.clone()?;
    let with_scheme = if text.contains("://") { text.clone() } else { format!("http://{text}") };
    let parsed = Url::parse(&with_scheme).ok();
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    let Some(mut url) = parsed.filter(usable) else {
        let fix = "correct the environment of the service, or write [proxy]";
        report.warning(0, "HTTPS_PROXY", redacted(&text), "http://[USER:PASSWORD@]HOST:PORT, not used", fix);
        return None;
    };
    let decoded = |text: &str| percent_decoded(text);
    let login = url.password().map(|password| Login {
        username: decoded(url.username()),
        password: Secret::new(decoded(password)),
    });
    // Both can be taken off where there is a host.
    let _ = (url.set_username(""), url.set_password(None));
    let except = report.environment.no_proxy.as_deref().unwrap_or_default();
    let except = except.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    Some(Proxy { url, login, except: except.collect() })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |bytes: &[u8]| u8::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
        match (first, after.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
