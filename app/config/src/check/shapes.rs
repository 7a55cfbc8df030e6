//! `[[camera.detect.zone]]` and `[[camera.detect.line]]`.

use vision::Point;
use vision::group;
use vision::rules::{Line, MAX_SHAPES, Rules, Zone};
use vision::zone::{Polygon, Segment, ShapeError};

use super::detect::{labels, seconds_ms, severity};
use super::values::{ID, name_like};
use crate::document::{At, Report, Section};

/// Fits MQTT levels, like ids.
const NAME_BYTES: usize = 48;
/// Longest time in a zone before it counts.
const LONGEST_DWELL_S: f64 = 3600.0;

pub(super) fn zones(report: &mut Report, camera: &mut Section, rules: &Rules) -> Vec<Zone> {
    let mut names = Names::default();
    let zone = |(report, mut section): (&mut Report, Section)| {
        let name = names.name(report, &mut section);
        let polygon = section.points(report, "polygon");
        if polygon.is_none() && !section.has("polygon") {
            let fix = "write polygon = [[0.1, 0.5], [0.9, 0.5], [0.5, 0.9]], parts of the picture from its left top corner";
            section.missing(report, "polygon", "three corners or more", fix);
        }
        let polygon = polygon.and_then(|corners| {
            let points: Vec<_> = corners.value.iter().map(point).collect();
            let error = Polygon::new(&points).err();
            error.map_or(Some(points), |error| bad(report, corners.at, &section.path("polygon"), &error))
        });
        let labels = wanted(report, &mut section, rules);
        let dwell_ms = seconds_ms(report, &mut section, "dwell_s", 0.0..=LONGEST_DWELL_S, 0);
        let severity = severity(report, &mut section);
        section.finish(report);
        Some(Zone { name: name?, polygon: polygon?, labels, dwell_ms, severity })
    };
    each(report, camera, "zone", zone)
}

pub(super) fn lines(report: &mut Report, camera: &mut Section, rules: &Rules) -> Vec<Line> {
    let mut names = Names::default();
    let line = |(report, mut section): (&mut Report, Section)| {
        let name = names.name(report, &mut section);
        let ends = ["from", "to"].map(|key| {
            let end = section.point(report, key);
            if end.is_none() && !section.has(key) {
                let fix = "write from = [0.1, 0.5] and to = [0.9, 0.5], parts of the picture from its left top corner";
                section.missing(report, key, "an end of the line", fix);
            }
            end
        });
        let labels = wanted(report, &mut section, rules);
        let ends = match ends {
            [Some(from), Some(to)] => {
                let error = Segment::new(point(&from), point(&to)).err();
                let ends = (point(&from), point(&to));
                error.map_or(Some(ends), |error| bad(report, to.at, &section.path("to"), &error))
            }
            _ => None,
        };
        section.finish(report);
        let (from, to) = ends?;
        Some(Line { name: name?, from, to, labels })
    };
    each(report, camera, "line", line)
}

fn each<T>(
    report: &mut Report,
    camera: &mut Section,
    key: &'static str,
    mut shape: impl FnMut((&mut Report, Section)) -> Option<T>,
) -> Vec<T> {
    let sections = camera.sections(report, key);
    if let Some(section) = sections.get(MAX_SHAPES) {
        let found = format!("{} of them", sections.len());
        let (path, fix) = (camera.path(key), "put neighbours that mean the same into one");
        report.mistake(section.at, &path, found, format!("at most {MAX_SHAPES}"), fix);
    }
    sections.into_iter().filter_map(|section| shape((report, section))).collect()
}

/// Names that earlier shapes of this kind have, each with the path of its table.
#[derive(Default)]
struct Names(Vec<(String, String)>);

impl Names {
    fn name(&mut self, report: &mut Report, section: &mut Section) -> Option<String> {
        let name = section.string(report, "name");
        if name.is_none() && !section.has("name") {
            section.missing(report, "name", "a name for messages", "write name = \"gate\"");
        }
        let at = name.as_ref().map_or(section.at, |name| name.at);
        let name = name_like(report, section, "name", name?, NAME_BYTES, ID)?;
        if let Some((_, first)) = self.0.iter().find(|(taken, _)| *taken == name) {
            let expected = format!("another name than {first} has");
            let fix = "give each its own name: messages know them by nothing else";
            report.mistake(at, &section.path("name"), format!("{name:?} again"), expected, fix);
        }
        self.0.push((name.clone(), section.name().to_owned()));
        Some(name)
    }
}

/// The labels of a shape, which the camera must look for.
fn wanted(report: &mut Report, section: &mut Section, rules: &Rules) -> Vec<String> {
    let wanted = labels(report, section).unwrap_or_default();
    let is_seen = |label: &&String| {
        let among = |seen: &String| group::covers(seen, label) || group::covers(label, seen);
        rules.labels.is_empty() || rules.labels.iter().any(among)
    };
    let unseen = wanted.iter().find(|label| !is_seen(label));
    if let Some(label) = unseen {
        let at = section.at_key("labels").unwrap_or(section.at);
        let fix = "add it to the labels of the camera, or remove it here";
        let found = format!("{label:?}, which this camera does not look for");
        report.mistake(at, &section.path("labels"), found, format!("among {:?}", rules.labels), fix);
    }
    wanted
}

/// What arithmetic says about a shape, in the words of this file.
fn bad<T>(report: &mut Report, at: usize, path: &str, error: &ShapeError) -> Option<T> {
    let error = error.to_string();
    let (found, rest) = error.split_once(", expected ").or(error.split_once("; ")).unwrap_or((&error, ""));
    let is_advice = !error.contains(", expected ");
    let expected = if is_advice || rest.is_empty() { "an outline that does not meet itself" } else { rest };
    let fix = if is_advice { rest } else { "draw it again; corners are parts of the picture, in order" };
    report.mistake(at, path, found, expected, fix);
    None
}

#[expect(clippy::cast_possible_truncation, reason = "f32 is finer than a pixel of any picture")]
fn point(At { value: [x, y], .. }: &At<[f64; 2]>) -> Point {
    Point { x: *x as f32, y: *y as f32 }
}
