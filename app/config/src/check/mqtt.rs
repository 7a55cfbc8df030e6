//! `[mqtt]`

use std::time::Duration;

use super::values::{ID, is_local, name_like, pem_file, redacted, seconds, secret};
use crate::document::{Report, Section, brief};
use crate::{Aws, ClientCertificate, Mqtt, MqttProtocol, MqttProxy, MqttTls, Proxy};

/// Of AWS IoT Core, for a client certificate on port 443.
const IOT_ALPN: &str = "x-amzn-mqtt-ca";

pub(super) fn mqtt(
    report: &mut Report,
    mut section: Section,
    device: &str,
    (proxy, aws): (Option<&Proxy>, Option<&Aws>),
) -> Option<Mqtt> {
    let host = section.string(report, "host");
    if host.is_none() && !section.has("host") {
        section.missing(
            report,
            "host",
            "name or address of the broker",
            "write host = \"...\", or remove [mqtt] for none",
        );
    }
    let host = host.and_then(|host| {
        let good =
            !host.value.is_empty() && !host.value.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
        let bare =
            host.value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host.value);
        let colons = host.value.parse::<std::net::SocketAddr>().is_ok()
            || (bare.parse::<std::net::Ipv6Addr>().is_err() && bare.contains(':'));
        if good && !colons {
            return Some(bare.to_owned());
        }
        let fix =
            "write host = \"broker.example\" and, where it differs, port = 8883; TLS is the table [mqtt.tls]";
        report.mistake(
            host.at,
            &section.path("host"),
            redacted(&host.value),
            "a host name or address alone",
            fix,
        );
        None
    });
    let tls_section = section.section(report, "tls");
    let tls = tls_section.is_present();
    let port = section.integer(report, "port", 1..=65535, if tls { 8883 } else { 1883 });
    let prefix = section
        .string(report, "prefix")
        .and_then(|prefix| name_like(report, &section, "prefix", prefix, 64, ID));
    let username = section.string(report, "username");
    let password = secret(report, &mut section, "password", "password_file", "password_credential");
    if password.is_some() && username.is_none() {
        section.missing(report, "username", "a user name beside the password", "write username = \"...\"");
    }
    let client_id = section.string(report, "client_id").and_then(|id| {
        if !id.value.is_empty() && id.value.len() <= 128 && !id.value.chars().any(char::is_control) {
            return Some(id.value);
        }
        let fix = "shorten it, or remove it for kvs-edge-DEVICE";
        report.mistake(
            id.at,
            &section.path("client_id"),
            format!("{:?}", brief(&id.value)),
            "1 to 128 bytes",
            fix,
        );
        None
    });
    let protocol = section.choice(
        report,
        "protocol",
        &[("auto", MqttProtocol::Auto), ("5", MqttProtocol::V5), ("3.1.1", MqttProtocol::V311)],
    );
    let keep_alive = seconds(report, &mut section, "keep_alive_s", 5..=3600, Duration::from_secs(30));
    let mut tls = tls.then(|| mqtt_tls(report, tls_section));
    // There the port is that of HTTPS, and without the word the handshake fails.
    let shares_port = port == 443 && host.as_ref().is_some_and(|host| is_iot_core(host));
    if let Some(tls) = tls.as_mut().filter(|tls| shares_port && tls.alpn.is_none()) {
        tls.alpn = Some(IOT_ALPN.to_owned());
    }
    let wants_proxy = section.boolean(report, "proxy", false);
    if wants_proxy && proxy.is_none() {
        let at = section.at_key("proxy").unwrap_or(section.at);
        let fix = "write the table [proxy], or remove this key";
        report.mistake(at, &section.path("proxy"), "true without a proxy", "[proxy], or HTTPS_PROXY", fix);
    }
    let ca_file = aws.and_then(|aws| aws.ca_file.clone());
    let way = |host: &str| {
        let proxy = proxy.filter(|proxy| wants_proxy && !proxy.excepts(host))?.clone();
        Some(MqttProxy { proxy, ca_file })
    };
    if tls.is_some() && host.as_ref().is_some_and(|host| host.contains(':')) {
        let at = section.at_key("host").unwrap_or(section.at);
        let fix = "give the broker a name, in DNS or in /etc/hosts";
        report.mistake(at, &section.path("host"), "an IPv6 address with [mqtt.tls]", "a name", fix);
    }
    if let (Some(host), Some(_), None) = (&host, &password, &tls)
        && !is_local(host)
    {
        let fix = "add [mqtt.tls], or accept that everybody on the way can read it";
        report.warning(section.at, &section.path("tls"), "a password without TLS", "[mqtt.tls]", fix);
    }
    section.finish(report);
    let host = host?;
    Some(Mqtt {
        proxy: way(&host),
        host,
        port: u16::try_from(port).ok()?,
        prefix: prefix.unwrap_or_else(|| "kvs-edge".to_owned()),
        username: username.map(|username| username.value),
        password: match password {
            Some(password) => Some(password.ok()?),
            None => None,
        },
        client_id: client_id.unwrap_or_else(|| format!("kvs-edge-{device}")),
        tls,
        protocol: protocol.unwrap_or(MqttProtocol::Auto),
        keep_alive,
    })
}

fn is_iot_core(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host.contains(".iot.") && (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
}

fn mqtt_tls(report: &mut Report, mut section: Section) -> MqttTls {
    let ca_file = pem_file(report, &mut section, "ca_file", "CERTIFICATE", false);
    let cert_file = pem_file(report, &mut section, "cert_file", "CERTIFICATE", false);
    let key_file = pem_file(report, &mut section, "key_file", "PRIVATE KEY", true);
    for (one, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if section.has(one) && !section.has(other) {
            section.missing(report, other, &format!("a file beside {one}"), "give both, or neither");
        }
    }
    let alpn = section.string(report, "alpn").and_then(|alpn| {
        let good =
            (1..=255).contains(&alpn.value.len()) && alpn.value.bytes().all(|byte| byte.is_ascii_graphic());
        if !good {
            let fix = "write what the broker's documentation names, such as \"x-amzn-mqtt-ca\" or \"mqtt\"";
            let found = format!("{:?}", brief(&alpn.value));
            report.mistake(
                alpn.at,
                &section.path("alpn"),
                found,
                "1 to 255 ASCII characters without blanks",
                fix,
            );
        }
        good.then_some(alpn.value)
    });
    section.finish(report);
    let client =
        cert_file.zip(key_file).map(|(cert_file, key_file)| ClientCertificate { cert_file, key_file });
    MqttTls { ca_file, client, alpn }
}
