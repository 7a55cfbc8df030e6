//! The Tags element.

use super::{ElementError, children, text};
use crate::mkv::id;

/// SimpleTags may nest; the service and its producers never do.
const DEPTH_LIMIT: usize = 8;

/// Reads the body of a Tags element: (name, value) of every SimpleTag in order, nested ones after their parent.
///
/// Targets are not required and not looked at. Invalid UTF-8 is replaced. A SimpleTag without name or value gives "".
pub fn parse(body: &[u8]) -> Result<Vec<(String, String)>, ElementError> {
    let mut pairs = Vec::new();
    for tag in children("Tags", body) {
        let tag = tag?;
        if tag.id == id::TAG {
            simple_tags("Tag", tag.body, 0, &mut pairs)?;
        }
    }
    Ok(pairs)
}

fn simple_tags(
    parent: &'static str,
    body: &[u8],
    depth: usize,
    pairs: &mut Vec<(String, String)>,
) -> Result<(), ElementError> {
    if depth > DEPTH_LIMIT {
        return Err(ElementError::TooDeep { parent, limit: DEPTH_LIMIT });
    }
    for child in children(parent, body) {
        let child = child?;
        if child.id == id::SIMPLE_TAG {
            pairs.push(name_and_value(child.body)?);
            simple_tags("SimpleTag", child.body, depth + 1, pairs)?;
        }
    }
    Ok(())
}

fn name_and_value(body: &[u8]) -> Result<(String, String), ElementError> {
    let (mut name, mut value) = (String::new(), String::new());
    for child in children("SimpleTag", body) {
        let child = child?;
        match child.id {
            id::TAG_NAME => name = text(child.body),
            id::TAG_STRING => value = text(child.body),
            _ => {}
        }
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mkv::ebml::parse_header;
    use crate::mkv::write;

    #[test]
    fn what_the_writer_writes_is_read_back_in_both_forms() {
        let items = [("AWS_KINESISVIDEO_END_OF_FRAGMENT", ""), ("a", "ö"), ("a", "2")];
        for bytes in [write::tags(&items), write::tags_fixed4(&items)] {
            let header = parse_header(&bytes).unwrap();
            assert_eq!(header.size, Some((bytes.len() - header.length) as u64));
            let pairs = parse(&bytes[header.length..]).unwrap();
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(pairs, items);
        }
    }

    #[test]
    fn nested_simple_tags_follow_their_parent_up_to_a_depth() {
        let nest = |levels: usize| {
            (0..levels).fold(Vec::new(), |inner: Vec<u8>, _| {
                let size = u8::try_from(inner.len() + 4).unwrap();
                let mut body = vec![0x67, 0xC8, 0x80 | size, 0x45, 0xA3, 0x81, b'n'];
                body.extend(inner);
                body
            })
        };
        let tag = |levels| {
            let inner = nest(levels);
            let mut body = vec![0x73, 0x73, 0x80 | u8::try_from(inner.len()).unwrap()];
            body.extend(inner);
            body
        };
        assert_eq!(parse(&tag(3)).unwrap().len(), 3);
        assert_eq!(parse(&tag(12)), Err(ElementError::TooDeep { parent: "SimpleTag", limit: DEPTH_LIMIT }));
    }
}
