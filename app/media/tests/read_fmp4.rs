//! Fragmented MP4 of a writer that is not ours: ffmpeg 5.1, in the corpus of the fuzz target.

use bytes::Bytes;
use media::mkv::elements::TrackFormat;
use media::mp4::read::{Movie, MovieFormat, Sample};
use media::{AudioCodec, VideoCodec, nal};

fn read(data: &'static [u8]) -> (Movie, Vec<Sample>) {
    let data = Bytes::from_static(data);
    let movie = Movie::parse(&data).expect("an initialisation");
    let samples = movie.samples(&data).expect("media");
    (movie, samples)
}

/// Times in ms, key frame or not.
fn times(movie: &Movie, samples: &[Sample], track: u32) -> Vec<(i64, bool)> {
    let timescale = i64::from(movie.track(track).expect("there").timescale);
    let of_track = samples.iter().filter(|sample| sample.track == track);
    of_track.map(|sample| (sample.time * 1_000 / timescale, sample.key_frame)).collect()
}

#[test]
fn pictures_in_decoding_order_and_sound_come_with_their_times() {
    for data in [
        &include_bytes!("../../fuzz/corpus/fmp4/ffmpeg_av")[..],
        include_bytes!("../../fuzz/corpus/fmp4/ffmpeg_omit"),
    ] {
        let (movie, samples) = read(data);
        let MovieFormat::Known(TrackFormat::Video(video)) = &movie.tracks[0].format else {
            panic!("{movie:?}")
        };
        assert_eq!((video.codec, video.width, video.height), (VideoCodec::H264, 32, 32));
        let MovieFormat::Known(TrackFormat::Audio(audio)) = &movie.tracks[1].format else {
            panic!("{movie:?}")
        };
        assert_eq!((audio.codec, audio.sample_rate, audio.channels), (AudioCodec::Aac, 16_000, 1));
        let found = times(&movie, &samples, 1);
        assert_eq!(found.iter().filter(|(_, key)| *key).count(), 1);
        let mut shown: Vec<i64> = found.iter().map(|(time, _)| *time - found[0].0).collect();
        assert_ne!(shown, [0, 200, 400, 600, 800], "B pictures are decoded later than they are shown");
        shown.sort_unstable();
        assert_eq!(shown, [0, 200, 400, 600, 800]);
        for sample in samples.iter().filter(|sample| sample.track == 1) {
            let random_access =
                nal::is_random_access(VideoCodec::H264, &sample.data).expect("whole NAL units");
            assert_eq!(random_access, sample.key_frame);
        }
        let sound = times(&movie, &samples, 2);
        // As ffprobe reads it: 1024 samples each, and a hole behind the first, which ffmpeg wrote.
        let first: Vec<i64> = sound.iter().take(4).map(|(time, _)| *time).collect();
        assert_eq!((sound.len(), first), (17, vec![0, 400, 464, 528]));
    }
}

#[test]
fn h265_and_g711_are_known_too() {
    let (movie, samples) = read(include_bytes!("../../fuzz/corpus/fmp4/ffmpeg_hevc"));
    let MovieFormat::Known(TrackFormat::Video(video)) = &movie.tracks[0].format else { panic!("{movie:?}") };
    assert_eq!((video.codec, video.width, samples.len()), (VideoCodec::H265, 32, 5));
    let (movie, samples) = read(include_bytes!("../../fuzz/corpus/fmp4/ffmpeg_ulaw"));
    let MovieFormat::Known(TrackFormat::Audio(audio)) = &movie.tracks[0].format else { panic!("{movie:?}") };
    assert_eq!((audio.codec, audio.sample_rate), (AudioCodec::Pcmu, 8_000));
    assert_eq!(samples.iter().map(|sample| sample.data.len()).sum::<usize>(), 800);
}
