//! Clips as they are encoded and cached; decoded by GStreamer.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use camera_sim::{Clip, ClipError, ClipSpec, Codec, read_frame_index};

use crate::{cache_dir, small_clip};

/// Decoded luma planes in presentation order.
fn decode(spec: &ClipSpec, clip: &Clip, folder: &Path) -> Vec<Vec<u8>> {
    let (input, output) = (folder.join("in"), folder.join("out"));
    let mut stream = Vec::new();
    for nal in clip.pictures().iter().flat_map(|picture| &picture.nal_units) {
        stream.extend([0, 0, 0, 1]);
        stream.extend_from_slice(nal);
    }
    std::fs::write(&input, stream).unwrap();
    let (caps, parser, decoder) = match spec.codec {
        Codec::H264 => ("video/x-h264", "h264parse", "avdec_h264"),
        Codec::H265 => ("video/x-h265", "h265parse", "avdec_h265"),
    };
    let source = format!("location={}", input.display());
    let sink = format!("location={}", output.display());
    let caps = format!("{caps},stream-format=byte-stream,framerate={}/1", spec.fps);
    let elements = [
        "-q",
        "filesrc",
        &source,
        "!",
        &caps,
        "!",
        parser,
        "!",
        decoder,
        "!",
        "videoconvert",
        "!",
        "video/x-raw,format=I420",
        "!",
        "filesink",
        &sink,
    ];
    assert!(Command::new("gst-launch-1.0").args(elements).status().unwrap().success());
    let size = (spec.width * spec.height) as usize;
    std::fs::read(output).unwrap().chunks_exact(size * 3 / 2).map(|frame| frame[..size].to_vec()).collect()
}

#[test]
fn the_strip_is_read_from_every_decoded_frame() {
    let base = small_clip();
    let specs = [
        base.clone(),
        ClipSpec { b_frames: 2, ..base.clone() },
        ClipSpec { codec: Codec::H265, ..base.clone() },
        ClipSpec { codec: Codec::H265, b_frames: 2, open_gop: true, ..base.clone() },
        ClipSpec { width: 1280, height: 720, bitrate_kbps: 1000, loop_seconds: 1, ..base },
    ];
    for spec in specs {
        let clip = Clip::load(&spec, &cache_dir()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let frames = decode(&spec, &clip, folder.path());
        let (width, height) = (spec.width as usize, spec.height as usize);
        let indices: Vec<Option<u32>> =
            frames.iter().map(|luma| read_frame_index(luma, width, width, height)).collect();
        let expected: Vec<Option<u32>> = (0..spec.pictures()).map(Some).collect();
        assert_eq!(indices, expected, "{spec:?}");
    }
}

#[test]
fn random_access_points_come_as_ordered() {
    let points = |spec: ClipSpec| -> Vec<(usize, u8)> {
        let clip = Clip::load(&spec, &cache_dir()).unwrap();
        let kind = |nal: &[u8]| if spec.codec == Codec::H264 { nal[0] & 0x1f } else { nal[0] >> 1 & 0x3f };
        let pictures = clip.pictures().iter().enumerate().filter(|(_, picture)| picture.random_access);
        pictures.map(|(at, picture)| (at, kind(picture.vcl(spec.codec).next().unwrap()))).collect()
    };
    let h264 = small_clip();
    assert_eq!(points(h264.clone()), [(0, 5), (10, 5), (20, 5), (30, 5)]);
    assert_eq!(points(ClipSpec { gop: 40, ..h264.clone() }), [(0, 5)]);
    let h265 = ClipSpec { codec: Codec::H265, ..h264 };
    let closed = points(h265.clone());
    assert_eq!(closed.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 10, 20, 30]);
    assert!(closed.iter().all(|(_, kind)| matches!(kind, 19 | 20)), "IDR_W_RADL or IDR_N_LP: {closed:?}");
    let open = points(ClipSpec { open_gop: true, b_frames: 2, ..h265 });
    assert!(open.len() == 4 && open[1..].iter().all(|(_, kind)| *kind == 21), "CRA: {open:?}");
}

#[test]
fn ground_truth_is_kept_beside_the_clip() {
    let clip = Clip::load(&small_clip(), &cache_dir()).unwrap();
    assert_eq!(clip.truth().len(), 40);
    assert!(clip.truth().iter().zip(0..).all(|(truth, frame)| truth.frame == frame));
    assert!(clip.truth().iter().any(|truth| !truth.objects.is_empty()));
    assert_eq!(clip.parameter_sets().len(), 2);
}

#[test]
fn many_makers_of_one_clip_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let spec = ClipSpec { loop_seconds: 1, ..small_clip() };
    let sizes: HashSet<usize> = std::thread::scope(|scope| {
        let load =
            || Clip::load(&spec, folder.path()).unwrap().pictures().iter().map(|p| p.size_bytes()).sum();
        let makers: Vec<_> = (0..3).map(|_| scope.spawn(load)).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert_eq!(sizes.len(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Clip::load(&ClipSpec { seed: 99, ..small_clip() }, file.path()).unwrap_err();
    assert!(matches!(error, ClipError::Cache { .. }), "{error}");
    assert!(error.to_string().contains("KVS_EDGE_SIM_CACHE"));
}
