//! Targets of the crate `vision`.

use vision::head::{Head, MAX_CANDIDATES, Thresholds};
use vision::letterbox::Letterbox;
use vision::{Detection, nms};

/// The first twelve bytes are sizes, shape and thresholds, the rest is the tensor as little-endian floats. Whatever a
/// model gives: detections lie within the picture and have an area, a score and a label, and none covers another.
pub(crate) fn heads(data: &[u8]) {
    let Some((&[w0, w1, h0, h1, net, labels, short, turned, low, step, iou, max], values)) =
        data.split_first_chunk()
    else {
        return;
    };
    let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let (labels, short) = (usize::from(labels), usize::from(short).max(1));
    let long = values.len() / short;
    let values = &values[..short * long];
    let (rows, columns) = if turned % 2 == 1 { (long, short) } else { (short, long) };
    let head = match Head::detect(rows, columns, labels) {
        Ok(head) => head,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let size = (usize::from(u16::from_le_bytes([w0, w1])), usize::from(u16::from_le_bytes([h0, h1])));
    let net = usize::from(net);
    let Ok(letterbox) = Letterbox::new(size.0, size.1, net, net + 32) else { return };
    let part = |byte: u8| f32::from(byte) / 255.0;
    let mut thresholds = Thresholds::new(labels, part(low));
    let step = u16::from(step).max(1);
    for class in (step..256).step_by(usize::from(step)) {
        thresholds.exclude(class);
    }

    let mut detections = Vec::new();
    head.read(values, rows, columns, &thresholds, &letterbox, &mut detections)
        .expect("the shape was accepted");
    assert!(detections.len() <= MAX_CANDIDATES);
    for detection in &detections {
        let Detection { class, score, rect } = *detection;
        assert!(usize::from(class) < labels && (class == 0 || class % step != 0), "{detection:?}");
        assert!(score >= part(low) && score <= 1.0, "{detection:?}");
        assert!(rect.x >= 0.0 && rect.y >= 0.0 && rect.w > 0.0 && rect.h > 0.0, "{detection:?}");
        assert!(rect.x + rect.w <= 1.000_001 && rect.y + rect.h <= 1.000_001, "{detection:?}");
    }

    let (iou, max) = (part(iou), usize::from(max));
    let all = detections.clone();
    nms::suppress(&mut detections, iou, max);
    assert!(detections.len() <= max && detections.iter().all(|detection| all.contains(detection)));
    for (at, detection) in detections.iter().enumerate() {
        let covers =
            |better: &Detection| better.class == detection.class && better.rect.iou(&detection.rect) > iou;
        assert!(!detections[..at].iter().any(covers), "{detection:?}");
    }
}
