//! Several frames in one block, as muxers put short sounds together (RFC 9559 10.3).

use std::ops::Range;

use super::ebml::parse_vint;

/// Where each frame of a block lies in its body. `lacing` is that of [`EventKind::Block`](super::read::EventKind): 0 none, 1
/// Xiph, 2 fixed size, 3 EBML. `None`: the sizes do not fit the body, or there is no such lacing.
pub fn frames(lacing: u8, body: &[u8]) -> Option<Vec<Range<usize>>> {
    if lacing == 0 {
        return Some(std::iter::once(0..body.len()).collect());
    }
    let count = usize::from(*body.first()?) + 1;
    let mut at = 1;
    let mut sizes = Vec::with_capacity(count);
    match lacing {
        1 => {
            for _ in 1..count {
                let mut size = 0;
                loop {
                    let byte = *body.get(at)?;
                    at += 1;
                    size += usize::from(byte);
                    if byte < 255 {
                        break;
                    }
                }
                sizes.push(size);
            }
        }
        2 => {
            let size = (body.len() - at) / count;
            if size * count != body.len() - at {
                return None;
            }
            sizes.resize(count - 1, size);
        }
        3 => {
            let mut before: Option<i64> = None;
            for _ in 1..count {
                let (value, used) = parse_vint(&body[at..])?;
                at += used;
                let value = i64::try_from(value).ok()?;
                // A difference is as far from the middle of what its length can hold.
                let middle = (1_i64 << (7 * used - 1)) - 1;
                let size = before.map_or(Some(value), |before| before.checked_add(value - middle))?;
                before = Some(size);
                sizes.push(usize::try_from(size).ok()?);
            }
        }
        _ => return None,
    }
    let mut found = Vec::with_capacity(count);
    for size in sizes {
        let end = at.checked_add(size).filter(|end| *end <= body.len())?;
        found.push(at..end);
        at = end;
    }
    found.push(at..body.len());
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lacing: u8, body: &[u8], sizes: Option<&[usize]>) {
        let found = frames(lacing, body);
        if let Some(found) = &found {
            assert_eq!(found.last().expect("one at least").end, body.len(), "nothing is left over");
            assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start), "{found:?}");
        }
        let found = found.map(|found| found.into_iter().map(|range| range.len()).collect::<Vec<_>>());
        assert_eq!(found.as_deref(), sizes, "lacing {lacing}");
    }

    #[test]
    fn each_lacing_is_taken_apart() {
        check(0, b"whole", Some(&[5]));
        // The example of RFC 9559 10.3.2: 800, 500, 1000 octets.
        let mut xiph = vec![2, 255, 255, 255, 35, 255, 245];
        xiph.resize(xiph.len() + 2_300, 0);
        check(1, &xiph, Some(&[800, 500, 1_000]));
        check(2, &[1, 7, 7, 8, 8], Some(&[2, 2]));
        // The example of RFC 9559 10.3.3: the same sizes, 800 as 0x4320 and -300 as 0x5ED3.
        let mut ebml = vec![2, 0x43, 0x20, 0x5E, 0xD3];
        ebml.resize(ebml.len() + 2_300, 0);
        check(3, &ebml, Some(&[800, 500, 1_000]));
    }

    #[test]
    fn sizes_beyond_the_body_are_refused() {
        for (lacing, body) in [
            (1, &[2, 255][..]),
            (1, &[1, 9, 0]),
            (2, &[1, 7, 7, 8]),
            (3, &[1, 0xFF]),
            (3, &[2, 0x81, 0x80, 0]),
            (3, &[2, 0x81]),
            (1, &[]),
            (4, &[0, 0]),
        ] {
            check(lacing, body, None);
        }
    }
}
