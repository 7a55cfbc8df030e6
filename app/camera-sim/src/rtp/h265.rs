//! H.265 in RTP: single NAL unit, aggregation (AP) and fragmentation units (FU) (RFC 7798, no DONL).

use super::{Packets, PayloadFormat, aggregated};

pub(crate) struct H265;

const AP: u8 = 48;
const FU: u8 = 49;

impl PayloadFormat for H265 {
    fn joins(nal: &[u8]) -> bool {
        nal.len() > 1 && matches!(nal[0] >> 1 & 0x3f, 32..=35 | 39..=40)
    }

    /// RFC 7798 4.4.2. Layer and temporal id are the lowest of those inside.
    fn aggregate(packets: &mut Packets, nals: &[&[u8]], limit: usize) -> bool {
        let layer =
            nals.iter().map(|nal| u16::from(nal[0] & 1) << 5 | u16::from(nal[1] >> 3)).min().unwrap_or(0);
        let temporal = nals.iter().map(|nal| nal[1] & 7).min().unwrap_or(1);
        let [layer_high, layer_low] = (layer << 3).to_be_bytes();
        let head = [AP << 1 | layer_high, layer_low | temporal];
        let Some(payload) = aggregated(&head, nals, limit) else { return false };
        packets.push(&[&payload]);
        true
    }

    /// RFC 7798 4.4.3.
    fn fragment(packets: &mut Packets, nal: &[u8], limit: usize) {
        let (header, body) = nal.split_at(2);
        let kind = header[0] >> 1 & 0x3f;
        let head = [header[0] & 0x81 | FU << 1, header[1]];
        let pieces = body.chunks(limit - 3);
        let last = pieces.len() - 1;
        for (position, piece) in pieces.enumerate() {
            let start = if position == 0 { 0x80 } else { 0 };
            let end = if position == last { 0x40 } else { 0 };
            packets.push(&[&head, &[start | end | kind], piece]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::payloads;
    use super::*;
    use crate::rtp::packetise;
    use proptest::prelude::*;

    fn depacketise(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for payload in payloads {
            match payload[0] >> 1 & 0x3f {
                AP => {
                    let mut rest = &payload[2..];
                    while let [high, low, tail @ ..] = rest {
                        let (nal, tail) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                        nals.push(nal.to_vec());
                        rest = tail;
                    }
                }
                FU => {
                    if payload[2] & 0x80 != 0 {
                        nals.push(vec![payload[0] & 0x81 | (payload[2] & 0x3f) << 1, payload[1]]);
                    }
                    nals.last_mut().expect("a start came first").extend_from_slice(&payload[3..]);
                }
                _ => nals.push(payload.to_vec()),
            }
        }
        nals
    }

    fn nal() -> impl Strategy<Value = Vec<u8>> {
        let kind = (0_u8..41, 1_u8..8);
        (kind, prop::collection::vec(any::<u8>(), 1..600))
            .prop_map(|((kind, temporal), body)| [&[kind << 1, temporal], &body[..]].concat())
    }

    proptest! {
        #[test]
        fn every_access_unit_survives_packets_of_any_size(
            nals in prop::collection::vec(nal(), 1..8),
            limit in 16_usize..700,
        ) {
            let mut packets = Packets::default();
            packetise::<H265>(&mut packets, &nals, limit);
            let payloads = payloads(&packets);
            prop_assert!(payloads.iter().all(|payload| payload.len() <= limit));
            prop_assert_eq!(depacketise(&payloads), nals);
        }
    }

    #[test]
    fn parameter_sets_share_a_packet() {
        let mut packets = Packets::default();
        packetise::<H265>(&mut packets, &[&[0x40, 1, 2][..], &[0x42, 1, 3], &[0x26, 1, 9]], 100);
        assert_eq!(payloads(&packets), [&[0x60, 1, 0, 3, 0x40, 1, 2, 0, 3, 0x42, 1, 3][..], &[0x26, 1, 9]]);
    }
}
