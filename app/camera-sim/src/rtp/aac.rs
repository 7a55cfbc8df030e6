//! AAC in RTP (RFC 3640, mode AAC-hbr: 13 bits of size, 3 bits of index, one access unit per packet).

use super::Packets;

pub(crate) fn packetise(packets: &mut Packets, frame: &[u8]) {
    let size = u16::try_from(frame.len()).unwrap_or(u16::MAX).min(0x1fff) << 3;
    let [high, low] = size.to_be_bytes();
    // 16 bits of AU headers follow the length field.
    packets.push(&[&[0, 16, high, low], frame]);
}

#[cfg(test)]
mod tests {
    use super::super::tests::payloads;
    use super::*;

    #[test]
    fn the_header_tells_the_size_of_the_frame() {
        let mut packets = Packets::default();
        packetise(&mut packets, &[7; 300]);
        assert_eq!(payloads(&packets)[0][..5], [0, 16, 0x09, 0x60, 7]);
    }
}
