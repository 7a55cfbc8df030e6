//! GStreamer's data protocol, as written by `gdppay`: buffers with their timestamps.
//!
//! Each packet has a header of 62 bytes, big-endian: version (2), flags (1), padding (1), type (2, 1 = buffer),
//! payload length (4), presentation time (8), then fields that are not needed here.

const HEADER: usize = 62;
const BUFFER: u16 = 1;

/// Presentation time in ns and payload of each buffer, in coding order.
pub(super) fn buffers(stream: &[u8]) -> Result<Vec<(u64, &[u8])>, String> {
    let mut buffers = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let cut = || format!("GDP packet at byte {at} of {} is cut", stream.len());
        let header: &[u8; HEADER] = stream.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
        let field = |from: usize, to: usize| {
            header[from..to].iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let length = usize::try_from(field(6, 10)).map_err(|_| cut())?;
        let start = at + HEADER;
        let payload = stream.get(start..start + length).ok_or_else(cut)?;
        if field(4, 6) == u64::from(BUFFER) {
            buffers.push((field(10, 18), payload));
        }
        at = start + length;
    }
    Ok(buffers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, time: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet[0] = 1;
        packet[5] = kind;
        packet[9] = u8::try_from(payload.len()).unwrap();
        packet[17] = time;
        packet.extend(payload);
        packet
    }

    #[test]
    fn buffers_are_found_between_events_and_a_cut_stream_is_refused() {
        let stream = [packet(2, 0, b"caps"), packet(1, 9, b"one"), packet(1, 3, b"")].concat();
        assert_eq!(buffers(&stream), Ok(vec![(9, &b"one"[..]), (3, &b""[..])]));
        assert!(buffers(&stream[..stream.len() - 1]).unwrap_err().contains("byte 131"));
    }
}
