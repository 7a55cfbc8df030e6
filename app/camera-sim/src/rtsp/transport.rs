//! The Transport header (RFC 2326 12.39).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// RTP on this interleaved channel, RTCP on the next; `None` leaves the choice to the server.
    Interleaved(Option<u8>),
    /// The client's ports for RTP and RTCP.
    Udp(u16, u16),
}

/// The first transport of the list that can be served; `None` when there is none.
pub(crate) fn parse(header: &str) -> Option<Wanted> {
    header.split(',').find_map(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let protocol = parts.next()?;
        let parts: Vec<&str> = parts.collect();
        if parts.contains(&"multicast") {
            return None;
        }
        let value = |name: &str| parts.iter().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        if protocol.eq_ignore_ascii_case("RTP/AVP/TCP") {
            let channel = match value("interleaved") {
                Some(range) => Some(range.split('-').next()?.parse().ok().filter(|channel| *channel < 255)?),
                None => None,
            };
            return Some(Wanted::Interleaved(channel));
        }
        if protocol.eq_ignore_ascii_case("RTP/AVP") || protocol.eq_ignore_ascii_case("RTP/AVP/UDP") {
            let ports = value("client_port")?;
            let (rtp, rtcp) = ports.split_once('-').unwrap_or((ports, ""));
            let rtp: u16 = rtp.parse().ok()?;
            let rtcp = rtcp.parse().ok().or_else(|| rtp.checked_add(1))?;
            return Some(Wanted::Udp(rtp, rtcp));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_read() {
        let check = |header, expected| assert_eq!(parse(header), expected, "{header}");
        check("RTP/AVP/TCP;unicast;interleaved=2-3", Some(Wanted::Interleaved(Some(2))));
        check("RTP/AVP/TCP;unicast", Some(Wanted::Interleaved(None)));
        check("RTP/AVP;unicast;client_port=5000-5001", Some(Wanted::Udp(5000, 5001)));
        check("RTP/AVP/UDP;unicast;client_port=5000", Some(Wanted::Udp(5000, 5001)));
        check("RTP/AVP;multicast, RTP/AVP/TCP;interleaved=0-1", Some(Wanted::Interleaved(Some(0))));
        check("RTP/SAVP;unicast;client_port=1-2", None);
        check("RTP/AVP;unicast", None);
        check("RTP/AVP/TCP;interleaved=255-256", None);
        check("", None);
    }
}
