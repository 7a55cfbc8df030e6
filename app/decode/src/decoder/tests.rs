//! Pipelines that fail, fall silent or hang: done to real ones from within.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::mpsc;

use gst::prelude::*;

use super::*;
use crate::Stage;
use support::{Collector, DEADLINE, Units, later, spec, units};

fn options(names: &[&str]) -> DecoderOptions {
    DecoderOptions {
        name: "test".into(),
        preference: Preference::Only(names.iter().map(|name| (*name).to_owned()).collect()),
        queue_units: 200,
        back_off: (Duration::ZERO, Duration::ZERO),
        ..DecoderOptions::default()
    }
}

fn start(options: DecoderOptions) -> (Decoder, Collector) {
    let collector = Collector::default();
    let to = collector.clone();
    let callback = move |frame: Arc<Frame>| to.add(frame.timestamp(), &frame.picture());
    (Decoder::start(options, callback).expect("GStreamer is installed"), collector)
}

fn round(units: &Units, round: u64) -> impl Iterator<Item = AccessUnit> + '_ {
    units.units.iter().map(move |unit| later(unit, round * 4000))
}

/// The running pipeline's elements.
fn elements(decoder: &Decoder) -> gst::Pipeline {
    match &lock(&decoder.shared.state).line {
        Line::Running { pipeline, .. } => pipeline.elements().clone(),
        _ => panic!("not running"),
    }
}

fn post_error(decoder: &Decoder) {
    let elements = elements(decoder);
    let message =
        gst::message::Error::builder(gst::StreamError::Decode, "the device is gone").src(&elements).build();
    elements.bus().expect("a pipeline has a bus").post(message).expect("the bus takes it");
}

/// Makes every picture vanish behind the decoder, before the books see it.
fn make_silent(decoder: &Decoder) {
    let element = elements(decoder).by_name(crate::plan::DECODER).expect("named so");
    let pad = element.static_pad("sink").expect("decoders have one");
    pad.add_probe(gst::PadProbeType::BUFFER, |_, _| gst::PadProbeReturn::Handled);
}

#[test]
fn a_failed_pipeline_is_built_again() {
    let units = units(&spec());
    let (decoder, collector) = start(options(&["avdec_h264"]));
    round(&units, 0).take(30).for_each(|unit| decoder.push(unit));
    collector.wait_for_count(30);
    post_error(&decoder);
    round(&units, 0).skip(30).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for_count(30 + 60);
    assert_eq!(seen[30].1, Some(40), "from the next random access point");
    let report = decoder.report();
    assert_eq!((report.rebuilt, report.left_out, report.stage), (1, 10, Stage::Running), "{report:?}");
    let problem = report.last_problem.expect("told").to_string();
    assert!(problem.contains("`avdec_h264`: ") && problem.contains("the device is gone"), "{problem}");
}

#[test]
fn a_failed_pipeline_is_left_alone_for_a_while() {
    let units = units(&spec());
    let hour = Duration::from_secs(3600);
    let (decoder, collector) = start(DecoderOptions { back_off: (hour, hour), ..options(&["avdec_h264"]) });
    round(&units, 0).take(30).for_each(|unit| decoder.push(unit));
    collector.wait_for_count(30);
    post_error(&decoder);
    round(&units, 0).skip(30).for_each(|unit| decoder.push(unit));
    let report = decoder.report();
    assert_eq!((report.stage, report.left_out, report.decoded), (Stage::BackOff, 70, 30));
}

#[test]
fn after_three_failures_the_next_decoder_takes_over() {
    let units = units(&spec());
    let (decoder, collector) = start(options(&["openh264dec", "avdec_h264"]));
    for failure in 0..3 {
        round(&units, failure).for_each(|unit| decoder.push(unit));
        collector.wait_for_count(99 * (usize::try_from(failure).expect("small") + 1));
        assert_eq!(decoder.report().decoder.as_deref(), Some("openh264dec"));
        post_error(&decoder);
    }
    round(&units, 3).for_each(|unit| decoder.push(unit));
    collector.wait("the other decoder's pictures", |seen| {
        seen.last().is_some_and(|last| last.0 >= support::time_of(399, 25))
    });
    let report = decoder.report();
    assert_eq!((report.decoder.as_deref(), report.rebuilt), (Some("avdec_h264"), 3));
    assert_eq!(report.skipped[0].name, "openh264dec");
    assert!(report.skipped[0].reason.starts_with("failed 3 times in a row"), "{:?}", report.skipped);
}

#[test]
fn silence_is_a_failure() {
    let units = units(&spec());
    let (decoder, collector) =
        start(DecoderOptions { silence_limit: Duration::ZERO, ..options(&["avdec_h264"]) });
    round(&units, 0).take(20).for_each(|unit| decoder.push(unit));
    collector.wait_for_count(20);
    make_silent(&decoder);
    round(&units, 0).skip(20).for_each(|unit| decoder.push(unit));
    let report = decoder.report();
    assert_eq!(report.rebuilt, 1, "{report:?}");
    let silent = matches!(&report.last_problem, Some(DecodeError::Silent { decoder, units: 24, .. }) if decoder == "avdec_h264");
    assert!(silent, "{report:?}");
    assert!(report.dropped >= 24, "those that gave nothing: {report:?}");
    round(&units, 1).for_each(|unit| decoder.push(unit));
    collector.wait_for(support::time_of(199, 25));
}

#[test]
fn a_pipeline_that_hangs_holds_nobody() {
    let units = units(&spec());
    let (decoder, collector) =
        start(DecoderOptions { stop_limit: Duration::from_millis(1), ..options(&["avdec_h264"]) });
    round(&units, 0).take(20).for_each(|unit| decoder.push(unit));
    collector.wait_for_count(20);
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (entered, inside) = mpsc::channel();
    let element = elements(&decoder).by_name(crate::plan::DECODER).expect("named so");
    element.static_pad("sink").expect("decoders have one").add_probe(
        gst::PadProbeType::BUFFER,
        move |_, _| {
            let _ = entered.send(());
            // As a driver that never comes back, until the test ends.
            let _ = lock(&held).recv();
            gst::PadProbeReturn::Handled
        },
    );
    round(&units, 0).skip(20).for_each(|unit| decoder.push(unit));
    inside.recv_timeout(DEADLINE).expect("a unit is in the decoder");
    let shared = Arc::downgrade(&decoder.shared);
    drop(decoder);
    assert!(shared.upgrade().is_some_and(|shared| *lock(&shared.helpers) == 1), "it is still being stopped");
    assert_eq!(collector.seen().len(), 20);
    drop(release);
}

#[test]
fn pipelines_that_do_not_stop_are_not_piled_up() {
    let units = units(&spec());
    let (decoder, _collector) = start(options(&["avdec_h264"]));
    *lock(&decoder.shared.helpers) += HELPERS;
    round(&units, 0).for_each(|unit| decoder.push(unit));
    let report = decoder.report();
    assert_eq!((report.stuck, report.decoder), (HELPERS as u64, None));
    assert_eq!(report.last_problem, Some(DecodeError::Stuck { stuck: HELPERS }));
    *lock(&decoder.shared.helpers) -= HELPERS;
}

#[test]
fn when_no_decoder_works_the_reasons_are_told_and_the_list_begins_anew() {
    let h265 = units(&camera_sim::ClipSpec { codec: camera_sim::Codec::H265, ..spec() });
    let (decoder, _collector) = start(options(&["avdec_h264"]));
    for number in 0..5 {
        round(&h265, number).for_each(|unit| decoder.push(unit));
        wait_for_helpers(&decoder);
    }
    let report = decoder.report();
    let text = report.last_problem.expect("told").to_string();
    assert_eq!(text, "no decoder for H.265 works: `avdec_h264` does not decode H.265");
    assert!(report.rebuilt >= 5 && report.decoder.is_none());
    // A change of the stream is a new beginning.
    round(&units(&spec()), 9).for_each(|unit| decoder.push(unit));
    _collector.wait_for(support::time_of(999, 25));
}

fn wait_for_helpers(decoder: &Decoder) {
    let helpers = lock(&decoder.shared.helpers);
    let wait = decoder.shared.helper_ended.wait_timeout_while(helpers, DEADLINE, |helpers| *helpers > 0);
    assert!(!wait.expect("no helper panics").1.timed_out());
}

#[test]
fn a_callback_that_panics_ends_its_pipeline_alone() {
    let units = units(&spec());
    let collector = Collector::default();
    let to = collector.clone();
    let callback = move |frame: Arc<Frame>| {
        to.add(frame.timestamp(), &frame.picture());
        assert_ne!(frame.timestamp(), support::time_of(10, 25), "the consumer breaks here");
    };
    let decoder = Decoder::start(options(&["avdec_h264"]), callback).expect("installed");
    round(&units, 0).take(15).for_each(|unit| decoder.push(unit));
    collector.wait_for_count(11);
    let problem = || match &lock(&decoder.shared.state).line {
        Line::Running { pipeline, .. } => {
            pipeline.problem(decoder.shared.options.clock.now(), DEADLINE).is_some()
        }
        _ => true,
    };
    let (clock, start) = (Clock::system(), decoder.shared.options.clock.now());
    while !problem() {
        assert!(clock.since(start) < DEADLINE);
        thread::yield_now();
    }
    round(&units, 1).for_each(|unit| decoder.push(unit));
    collector.wait_for(support::time_of(199, 25));
    assert_eq!(decoder.report().rebuilt, 1);
}
