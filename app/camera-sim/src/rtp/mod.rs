//! RTP: packet headers (RFC 3550 5.1), payload formats, and a frame's packets in one buffer.

pub(crate) mod aac;
pub(crate) mod h264;
pub(crate) mod h265;
pub(crate) mod sr;

use std::ops::Range;

/// Largest payload of a packet, so that it fits an Ethernet frame with all headers.
pub(crate) const MAX_PAYLOAD: usize = 1400;
pub(crate) const HEADER: usize = 12;

/// The packets of one access unit, one after the other in one buffer. Before each is room for the four bytes of
/// the interleaved framing (RFC 2326 10.12), so that many packets leave with one write.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    bytes: Vec<u8>,
    /// Of each packet, its framing included.
    ranges: Vec<Range<usize>>,
}

pub(crate) const FRAMING: usize = 4;

/// What is the same for all packets of one access unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub payload_type: u8,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Interleaved channel.
    pub channel: u8,
}

impl Packets {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Appends a packet whose payload are the given pieces, at most [`MAX_PAYLOAD`] bytes or one audio frame.
    pub(crate) fn push(&mut self, pieces: &[&[u8]]) {
        let start = self.bytes.len();
        self.bytes.resize(start + FRAMING + HEADER, 0);
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        self.ranges.push(start..self.bytes.len());
    }

    /// Writes framing and header of all packets; `next_sequence` is asked once per packet. The marker bit is set
    /// on the last packet if `marker`.
    pub(crate) fn finish(&mut self, stamp: &Stamp, marker: bool, mut next_sequence: impl FnMut() -> u16) {
        let last = self.ranges.len().saturating_sub(1);
        for (position, range) in self.ranges.iter().enumerate() {
            let packet = &mut self.bytes[range.clone()];
            let length = u16::try_from(packet.len() - FRAMING).expect("a packet is far below 64 KiB");
            packet[0] = b'$';
            packet[1] = stamp.channel;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[4] = 0x80;
            packet[5] = stamp.payload_type | if marker && position == last { 0x80 } else { 0 };
            packet[6..8].copy_from_slice(&next_sequence().to_be_bytes());
            packet[8..12].copy_from_slice(&stamp.timestamp.to_be_bytes());
            packet[12..16].copy_from_slice(&stamp.ssrc.to_be_bytes());
        }
    }

    /// The packet at a position, with its framing.
    pub(crate) fn framed(&self, position: usize) -> &[u8] {
        &self.bytes[self.ranges[position].clone()]
    }
}

/// What is the same in H.264 and H.265 packetisation.
pub(crate) trait PayloadFormat {
    /// Whether a NAL unit is small change that shares a packet with its neighbours: parameter sets, SEI.
    fn joins(nal: &[u8]) -> bool;
    /// One packet that holds all these NAL units, if there is such a packet of at most `limit` bytes.
    fn aggregate(packets: &mut Packets, nals: &[&[u8]], limit: usize) -> bool;
    /// One NAL unit that is longer than `limit`, in pieces.
    fn fragment(packets: &mut Packets, nal: &[u8], limit: usize);
}

/// Packets of one access unit, to be completed with [`Packets::finish`].
pub(crate) fn packetise<F: PayloadFormat>(packets: &mut Packets, nals: &[impl AsRef<[u8]>], limit: usize) {
    let mut rest = nals;
    while let Some(first) = rest.first() {
        let joining = rest.iter().take_while(|nal| F::joins(nal.as_ref())).count();
        if joining > 1 {
            let run: Vec<&[u8]> = rest[..joining].iter().map(AsRef::as_ref).collect();
            if F::aggregate(packets, &run, limit) {
                rest = &rest[joining..];
                continue;
            }
        }
        let nal = first.as_ref();
        if nal.len() <= limit {
            packets.push(&[nal]);
        } else {
            F::fragment(packets, nal, limit);
        }
        rest = &rest[1..];
    }
}

/// Length-prefixed pieces of an aggregation packet: two bytes of length, then the NAL unit.
fn aggregated(head: &[u8], nals: &[&[u8]], limit: usize) -> Option<Vec<u8>> {
    let mut payload = head.to_vec();
    for nal in nals {
        payload.extend(u16::try_from(nal.len()).ok()?.to_be_bytes());
        payload.extend_from_slice(nal);
    }
    (payload.len() <= limit).then_some(payload)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn payloads(packets: &Packets) -> Vec<&[u8]> {
        (0..packets.len()).map(|at| &packets.framed(at)[FRAMING + HEADER..]).collect()
    }

    #[test]
    fn headers_count_up_and_the_last_packet_is_marked() {
        let mut packets = Packets::default();
        packets.push(&[b"one"]);
        packets.push(&[b"t", b"wo"]);
        let stamp = Stamp { payload_type: 96, timestamp: 0x0102_0304, ssrc: 0xa0b0_c0d0, channel: 2 };
        let mut sequence = 0xffff_u16;
        packets.finish(&stamp, true, || {
            sequence = sequence.wrapping_add(1);
            sequence
        });
        let head = |marked, low| [b'$', 2, 0, 15, 0x80, marked, 0, low, 1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0];
        assert_eq!(packets.framed(0), [&head(96, 0)[..], b"one"].concat());
        assert_eq!(packets.framed(1), [&head(96 | 0x80, 1)[..], b"two"].concat());
    }
}
