//! H.264 in RTP: single NAL unit, STAP-A and FU-A packets (RFC 6184, packetization-mode 1).

use super::{Packets, PayloadFormat, aggregated};

pub(crate) struct H264;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

impl PayloadFormat for H264 {
    fn joins(nal: &[u8]) -> bool {
        matches!(nal[0] & 0x1f, 6..=9)
    }

    /// RFC 6184 5.7.1. The header's NRI is the highest of those inside.
    fn aggregate(packets: &mut Packets, nals: &[&[u8]], limit: usize) -> bool {
        let nri = nals.iter().map(|nal| nal[0] & 0x60).max().unwrap_or(0);
        let Some(payload) = aggregated(&[nri | STAP_A], nals, limit) else { return false };
        packets.push(&[&payload]);
        true
    }

    /// RFC 6184 5.8.
    fn fragment(packets: &mut Packets, nal: &[u8], limit: usize) {
        let (header, body) = (nal[0], &nal[1..]);
        let indicator = header & 0xe0 | FU_A;
        let pieces = body.chunks(limit - 2);
        let last = pieces.len() - 1;
        for (position, piece) in pieces.enumerate() {
            let start = if position == 0 { 0x80 } else { 0 };
            let end = if position == last { 0x40 } else { 0 };
            packets.push(&[&[indicator, start | end | header & 0x1f], piece]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::payloads;
    use super::*;
    use crate::rtp::packetise;
    use proptest::prelude::*;

    /// What a receiver makes of the payloads.
    fn depacketise(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for payload in payloads {
            match payload[0] & 0x1f {
                STAP_A => {
                    let mut rest = &payload[1..];
                    while let [high, low, tail @ ..] = rest {
                        let (nal, tail) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                        nals.push(nal.to_vec());
                        rest = tail;
                    }
                }
                FU_A => {
                    if payload[1] & 0x80 != 0 {
                        nals.push(vec![payload[0] & 0xe0 | payload[1] & 0x1f]);
                    }
                    nals.last_mut().expect("a start came first").extend_from_slice(&payload[2..]);
                }
                _ => nals.push(payload.to_vec()),
            }
        }
        nals
    }

    fn nal() -> impl Strategy<Value = Vec<u8>> {
        let header = (0_u8..4, 1_u8..13).prop_map(|(nri, kind)| nri << 5 | kind);
        (header, prop::collection::vec(any::<u8>(), 1..600)).prop_map(|(header, mut body)| {
            body.insert(0, header);
            body
        })
    }

    proptest! {
        #[test]
        fn every_access_unit_survives_packets_of_any_size(
            nals in prop::collection::vec(nal(), 1..8),
            limit in 16_usize..700,
        ) {
            let mut packets = Packets::default();
            packetise::<H264>(&mut packets, &nals, limit);
            let payloads = payloads(&packets);
            prop_assert!(payloads.iter().all(|payload| payload.len() <= limit));
            prop_assert_eq!(depacketise(&payloads), nals);
        }
    }

    #[test]
    fn parameter_sets_share_a_packet() {
        let mut packets = Packets::default();
        packetise::<H264>(&mut packets, &[&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 4]], 100);
        assert_eq!(payloads(&packets), [&[0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3][..], &[0x65, 4]]);
    }
}
