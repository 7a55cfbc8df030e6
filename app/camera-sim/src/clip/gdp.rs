//! GStreamer's data protocol, as written by `gdppay`: buffers with their timestamps.
//!
//! Each packet has a header of 62 bytes, big-endian: version (2), flags (1), padding (1), type (2, 1 = buffer),
//! payload length (4), presentation time (8), duration (8), then fields that are not needed here.

use std::ops::Range;

const HEADER: usize = 62;
const BUFFER: u64 = 1;
const CAPS: u64 = 2;

/// One coded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    /// Presentation time, where it has one.
    pub(super) time_ns: Option<u64>,
    pub(super) duration_ns: Option<u64>,
    /// Within the stream.
    pub(super) payload: Range<usize>,
}

/// All buffers, in coding order.
pub(super) fn buffers(stream: &[u8]) -> Result<Vec<Buffer>, String> {
    let of_kind = packets(stream)?.into_iter().filter(|packet| packet.0 == BUFFER);
    Ok(of_kind.map(|(_, buffer)| buffer).collect())
}

/// Width and height of the pictures as the first caps say, such as `video/x-h264, width=(int)320, height=(int)240`.
pub(super) fn size(stream: &[u8]) -> Result<Option<[u32; 2]>, String> {
    let caps = packets(stream)?.into_iter().find(|packet| packet.0 == CAPS);
    let Some((_, caps)) = caps else { return Ok(None) };
    let text = String::from_utf8_lossy(&stream[caps.payload]);
    let side = |name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}=(int)"))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    Ok(side("width").zip(side("height")).map(<[u32; 2]>::from))
}

/// Type and contents of each packet.
fn packets(stream: &[u8]) -> Result<Vec<(u64, Buffer)>, String> {
    let mut packets = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        let cut = || format!("GDP packet at byte {at} of {} is cut", stream.len());
        let header: &[u8; HEADER] = stream.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
        let field = |from: usize, to: usize| {
            header[from..to].iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let length = usize::try_from(field(6, 10)).map_err(|_| cut())?;
        let start = at + HEADER;
        let end = start.checked_add(length).filter(|end| *end <= stream.len()).ok_or_else(cut)?;
        let time = |from| Some(field(from, from + 8)).filter(|time| *time != u64::MAX);
        packets.push((field(4, 6), Buffer { time_ns: time(10), duration_ns: time(18), payload: start..end }));
        at = end;
    }
    Ok(packets)
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
        packet[18..26].fill(0xff);
        packet.extend(payload);
        packet
    }

    #[test]
    fn buffers_are_found_between_events_and_a_cut_stream_is_refused() {
        let stream = [packet(2, 0, b"caps"), packet(1, 9, b"one"), packet(1, 3, b"")].concat();
        let buffer = |time, payload| Buffer { time_ns: Some(time), duration_ns: None, payload };
        assert_eq!(buffers(&stream), Ok(vec![buffer(9, 128..131), buffer(3, 193..193)]));
        assert!(buffers(&stream[..stream.len() - 1]).unwrap_err().contains("byte 131"));
    }

    #[test]
    fn the_size_is_read_from_the_caps() {
        let caps = |text: &[u8]| size(&packet(2, 0, text));
        assert_eq!(caps(b"video/x-h264, width=(int)320, height=(int)24"), Ok(Some([320, 24])));
        assert_eq!(caps(b"video/x-h264, height=(int)24"), Ok(None));
        assert_eq!(caps(b"video/x-h264, width=(int)x, height=(int)24"), Ok(None));
    }
}
