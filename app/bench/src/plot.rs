//! The picture of a run: four panels over one time axis, as SVG.
//!
//! A limit is a dashed line where it is of the size of what was measured; one far above would press the curve flat, so
//! it is only named in the title of its panel.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::Run;
use crate::figures::{camera_column, detector_column};
use crate::judge::{Judged, Verdict};
use crate::series::Series;

const SIZE: (u32, u32) = (1100, 1180);
const LEGEND_WIDTH: u32 = 250;
/// What fits beside a line of the legend.
const LEGEND_CHARACTERS: usize = 36;
/// More points than there are pixels show nothing more.
const POINTS: usize = 1000;
/// Lines of cameras that have a colour of their own; the others are grey.
const NAMED: usize = 8;
/// A limit this many times the largest value is not drawn.
const FAR: f64 = 4.0;
/// Curves with fewer points than this have dots.
const DOTS: usize = 60;
const FONT: &str = "sans-serif";

const COLOURS: [RGBColor; NAMED] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(188, 189, 34),
    RGBColor(23, 190, 207),
];
const GREY: RGBColor = RGBColor(170, 170, 170);
const LIMIT: RGBColor = RGBColor(200, 30, 30);

/// The picture could not be made; the reason is the drawing library's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DrawError(String);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

struct Panel {
    title: String,
    curves: Vec<Curve>,
    limits: Vec<(f64, String)>,
}

struct Curve {
    name: String,
    colour: RGBColor,
    /// Seconds and value; interrupted where values are missing.
    pieces: Vec<Vec<(f64, f64)>>,
}

impl Curve {
    fn new<const N: usize>(
        name: impl Into<String>,
        number: usize,
        series: &Series<N>,
        column: usize,
    ) -> Curve {
        let mut pieces = vec![Vec::new()];
        for row in series.thinned(POINTS) {
            match (row.values[column], pieces.last_mut()) {
                (Some(value), Some(piece)) => piece.push((row.at_s, value)),
                _ => pieces.push(Vec::new()),
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        Curve { name: name.into(), colour: COLOURS.get(number).copied().unwrap_or(GREY), pieces }
    }

    fn highest(&self) -> f64 {
        self.pieces.iter().flatten().map(|point| point.1).fold(0.0, f64::max)
    }
}

/// The whole picture as the text of an SVG file.
pub(crate) fn draw(run: &Run, judged: &[Judged]) -> Result<String, DrawError> {
    let mut svg = String::new();
    paint(&mut svg, run, judged).map_err(|error| DrawError(error.to_string()))?;
    Ok(svg)
}

fn paint(svg: &mut String, run: &Run, judged: &[Judged]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let verdict = if crate::report::passed(judged) { "passed" } else { "failed" };
    let title = printable(&format!("kvs-edge bench of {}, {}: {verdict}", run.device, run.begun));
    let root = root.titled(&title, (FONT, 22))?;
    for (area, panel) in root.split_evenly((4, 1)).iter().zip(panels(run, judged)) {
        paint_panel(area, &panel, run)?;
    }
    root.present()?;
    Ok(())
}

/// XML has no place for control characters, however they are written.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn panels(run: &Run, judged: &[Judged]) -> [Panel; 4] {
    let limits = |names: &[&str]| {
        let set = judged.iter().filter(|judged| names.contains(&judged.criterion));
        set.filter_map(|judged| {
            let word = if judged.verdict == Verdict::Failed { "limit, failed" } else { "limit" };
            let limit = judged.limit?;
            Some((limit, format!("{word}: {} {limit} {}", judged.criterion, judged.unit)))
        })
        .collect()
    };
    let figures = &run.figures;
    let cameras = |column, kind: &str| -> Vec<Curve> {
        let cameras = figures.cameras.iter().enumerate();
        let curves = cameras.map(|(number, camera)| {
            Curve::new(format!("{}{kind}", camera.id), number, &camera.series, column)
        });
        curves.filter(|curve| !curve.pieces.is_empty()).collect()
    };
    let wanted = figures.detector.wanted;
    let fps = if wanted { camera_column::FPS_INFERRED } else { camera_column::FPS_IN };
    let times = if wanted {
        let detector = &figures.detector.series;
        // Below the cameras' colours, which mean the same in this panel and the one above.
        let mut p95 = Curve::new("inference p95", 0, detector, detector_column::P95);
        p95.colour = BLACK;
        let mut curves = cameras(camera_column::LATENCY_P95, " picture to MQTT p95");
        curves.insert(0, p95);
        curves
    } else {
        cameras(camera_column::READ_BACK_P95, " camera to read-back p95")
    };
    let mut machine = Curve::new("machine, % of all cores", 0, &run.process, crate::MACHINE);
    machine.colour = GREY;
    [
        Panel {
            title: "CPU, %".into(),
            curves: vec![machine, Curve::new("daemon, % of one core", 0, &run.process, crate::CPU)],
            limits: limits(&["max-cpu-percent"]),
        },
        Panel {
            title: "resident memory, MiB".into(),
            curves: vec![Curve::new("daemon", 0, &run.process, crate::RSS)],
            limits: limits(&["max-memory-mib"]),
        },
        Panel {
            title: if wanted { "pictures through the model, fps" } else { "pictures received, fps" }.into(),
            curves: cameras(fps, ""),
            limits: limits(&["min-fps", "max-fps"]),
        },
        Panel {
            title: "time, ms".into(),
            curves: times,
            limits: if wanted { limits(&["max-inference-p95-ms", "max-latency-p95-ms"]) } else { Vec::new() },
        },
    ]
}

/// Seconds in the unit of the axis, and its name.
fn time_unit(seconds: f64) -> (f64, &'static str) {
    match seconds {
        s if s <= 300.0 => (1.0, "s"),
        s if s <= 3.0 * 3600.0 => (60.0, "min"),
        _ => (3600.0, "h"),
    }
}

fn paint_panel(area: &Area<'_>, panel: &Panel, run: &Run) -> Result<(), Box<dyn std::error::Error>> {
    let (unit_s, unit) = time_unit(run.measured_s);
    let end = (run.measured_s / unit_s).max(f64::MIN_POSITIVE);
    let highest = panel.curves.iter().map(Curve::highest).fold(0.0, f64::max);
    let (near, far): (Vec<_>, Vec<_>) =
        panel.limits.iter().partition(|(limit, _)| highest == 0.0 || *limit <= FAR * highest);
    let top = near.iter().map(|(limit, _)| *limit).fold(highest, f64::max);
    let top = if top > 0.0 { top * 1.12 } else { 1.0 };
    let mut title = panel.title.clone();
    for (_, words) in far {
        title.push_str(&format!("   ({words}, far above)"));
    }
    if panel.curves.iter().all(|curve| curve.pieces.is_empty()) {
        title.push_str("   (nothing measured)");
    }
    let (chart_area, legend_area) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut chart = ChartBuilder::on(&chart_area)
        .margin(8)
        .margin_right(14)
        .caption(printable(&title), (FONT, 16))
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(unit).x_labels(11).y_labels(6).label_style((FONT, 12)).axis_desc_style((FONT, 12));
    mesh.light_line_style(WHITE).bold_line_style(RGBColor(225, 225, 225));
    mesh.y_label_formatter(&|value| compact(*value)).x_label_formatter(&|value| compact(*value)).draw()?;

    for (limit, _) in &near {
        let points = [(0.0, *limit), (end, *limit)];
        chart.draw_series(DashedLineSeries::new(points, 8, 5, LIMIT.stroke_width(1)))?;
    }
    for curve in &panel.curves {
        let dots = u32::from(curve.pieces.iter().map(Vec::len).sum::<usize>() < DOTS) * 2;
        for points in &curve.pieces {
            let points = points.iter().map(|(at_s, value)| (at_s / unit_s, *value));
            let style = curve.colour.stroke_width(2).filled();
            chart.draw_series(LineSeries::new(points, style).point_size(dots))?;
        }
    }
    for crash in &run.crashes {
        let at = crash.t_s / unit_s;
        chart.draw_series(DashedLineSeries::new([(at, 0.0), (at, top)], 3, 3, BLACK.stroke_width(1)))?;
    }
    let limits = near.iter().map(|(_, words)| (LIMIT, true, words.as_str()));
    let curves = panel.curves.iter().filter(|curve| !curve.pieces.is_empty());
    let curves: Vec<_> = curves.map(|curve| (curve.colour, false, curve.name.as_str())).collect();
    let more = curves.len().saturating_sub(NAMED + 1);
    let more = (more > 0).then(|| format!("{more} more"));
    let crashes = (!run.crashes.is_empty()).then_some((BLACK, true, "the daemon ended"));
    let entries = curves.iter().copied().take(NAMED + 1);
    let entries = entries.chain(more.as_deref().map(|words| (GREY, false, words)));
    paint_legend(&legend_area, entries.chain(limits).chain(crashes))
}

/// Beside the chart, where it hides nothing: colour, dashed or not, words.
fn paint_legend<'a>(
    area: &Area<'_>,
    entries: impl Iterator<Item = (RGBColor, bool, &'a str)>,
) -> Result<(), Box<dyn std::error::Error>> {
    for ((colour, dashed, words), y) in entries.zip((44..).step_by(17)) {
        let line = [(0, y), (20, y)];
        if dashed {
            area.draw(&plotters::element::DashedPathElement::new(line, 5, 3, colour.stroke_width(1)))?;
        } else {
            area.draw(&PathElement::new(line, colour.stroke_width(2)))?;
        }
        let words: String = printable(words).chars().take(LEGEND_CHARACTERS).collect();
        area.draw(&Text::new(words, (26, y - 7), (FONT, 12).into_font()))?;
    }
    Ok(())
}

/// A number of an axis, without the tail that halves and tenths leave in binary.
fn compact(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
