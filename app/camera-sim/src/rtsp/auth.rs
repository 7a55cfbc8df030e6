//! Basic and Digest authentication (RFC 2617), the server's side.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKind {
    Basic,
    /// MD5, without `qop` unless the client asks for it, as most cameras do.
    Digest,
}

pub(crate) struct Auth {
    user: String,
    password: String,
    kind: AuthKind,
    nonce: String,
}

const REALM: &str = "camera-sim";

impl Auth {
    pub(crate) fn new(user: &str, password: &str, kind: AuthKind) -> Auth {
        let nonce = format!("{:032x}", rand::random::<u128>());
        Auth { user: user.to_owned(), password: password.to_owned(), kind, nonce }
    }

    /// Value of the `WWW-Authenticate` header.
    pub(crate) fn challenge(&self) -> String {
        match self.kind {
            AuthKind::Basic => format!("Basic realm=\"{REALM}\""),
            AuthKind::Digest => {
                format!("Digest realm=\"{REALM}\", nonce=\"{}\", algorithm=\"MD5\"", self.nonce)
            }
        }
    }

    /// Whether the `Authorization` header fits the request's method.
    pub(crate) fn accepts(&self, header: Option<&str>, method: &str) -> bool {
        let Some((scheme, rest)) = header.and_then(|header| header.split_once(' ')) else { return false };
        match self.kind {
            AuthKind::Basic => {
                let expected = STANDARD.encode(format!("{}:{}", self.user, self.password));
                scheme.eq_ignore_ascii_case("Basic") && rest.trim() == expected
            }
            AuthKind::Digest => scheme.eq_ignore_ascii_case("Digest") && self.accepts_digest(rest, method),
        }
    }

    fn accepts_digest(&self, header: &str, method: &str) -> bool {
        let fields = parameters(header);
        let field = |name: &str| {
            fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
        };
        let (Some(user), Some(nonce), Some(uri), Some(response)) =
            (field("username"), field("nonce"), field("uri"), field("response"))
        else {
            return false;
        };
        let counted = field("qop").map(|qop| (field("nc").unwrap_or(""), field("cnonce").unwrap_or(""), qop));
        let expected = response_to(&self.user, REALM, &self.password, method, uri, nonce, counted);
        user == self.user && nonce == self.nonce && response.eq_ignore_ascii_case(&expected)
    }
}

/// RFC 2617 3.2.2.1; `counted` is nc, cnonce and qop if the client sent a qop.
fn response_to(
    user: &str,
    realm: &str,
    password: &str,
    method: &str,
    uri: &str,
    nonce: &str,
    counted: Option<(&str, &str, &str)>,
) -> String {
    let secret = md5_hex(&format!("{user}:{realm}:{password}"));
    let request = md5_hex(&format!("{method}:{uri}"));
    match counted {
        Some((nc, cnonce, qop)) => md5_hex(&format!("{secret}:{nonce}:{nc}:{cnonce}:{qop}:{request}")),
        None => md5_hex(&format!("{secret}:{nonce}:{request}")),
    }
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `name=value` pairs with or without quotes, separated by commas.
fn parameters(mut rest: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while let Some((name, tail)) = rest.split_once('=') {
        let (value, tail) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => tail.split_at(tail.find(',').unwrap_or(tail.len())),
        };
        pairs.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = tail.trim_start_matches([',', ' ']);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_2617_section_3_5_comes_out_right() {
        let counted = Some(("00000001", "0a4f113b", "auth"));
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let response = response_to(
            "Mufasa",
            "testrealm@host.com",
            "Circle Of Life",
            "GET",
            "/dir/index.html",
            nonce,
            counted,
        );
        assert_eq!(response, "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn the_basic_example_of_rfc_2617_section_2_is_accepted_and_others_are_not() {
        let auth = Auth::new("Aladdin", "open sesame", AuthKind::Basic);
        assert!(auth.accepts(Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "DESCRIBE"));
        for wrong in [None, Some("Basic"), Some("Basic QWxhZGRpbg=="), Some("Digest username=\"Aladdin\"")] {
            assert!(!auth.accepts(wrong, "DESCRIBE"), "{wrong:?}");
        }
    }

    #[test]
    fn a_digest_holds_for_its_method_and_nonce_only() {
        let auth = Auth::new("admin", "pass, \u{e4}", AuthKind::Digest);
        let uri = "rtsp://h/cam0?a=1,b";
        let answer = |password: &str, nonce: &str| {
            let response = response_to("admin", REALM, password, "PLAY", uri, nonce, None);
            format!("Digest username=\"admin\", nonce={nonce},uri=\"{uri}\" , response=\"{response}\"")
        };
        let right = answer("pass, \u{e4}", &auth.nonce);
        assert!(auth.accepts(Some(&right), "PLAY"));
        assert!(!auth.accepts(Some(&right), "SETUP"));
        assert!(!auth.accepts(Some(&answer("other", &auth.nonce)), "PLAY"));
        assert!(!auth.accepts(Some(&answer("pass, \u{e4}", "old")), "PLAY"));
    }
}
