//! What a model must be, checked before any backend sees it, and once more on what it really returns.
//!
//! A detector is one picture in, one table of boxes out. Everything else is refused here with a message that names what
//! does not fit, because what a backend says about a wrong model helps nobody at a camera.

use vision::head::Layout;

use crate::backend::{InputFormat, InputSpec, Output};
use crate::onnx::{Dimension, Element, Header, Port, shape_text};

/// Largest model file, bytes. The largest YOLO11 has 230 MB in float32.
pub const MAX_MODEL_BYTES: u64 = 512 << 20;
/// Sides of the input, pixels.
pub const MIN_SIDE: usize = 16;
pub const MAX_SIDE: usize = 4096;
/// Most batches that are ever formed.
pub const MAX_BATCH: usize = 64;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error("its weights are in another file, {file:?}; export it as one file (external data off)")]
    ExternalWeights { file: String },
    #[error("it is for the task {task:?}, expected \"detect\"")]
    Task { task: String },
    #[error("it has {found} inputs ({names}), expected one: the picture")]
    Inputs { found: usize, names: String },
    #[error(
        "it has {found} outputs ({names}), expected one: [1, 4 + classes, boxes] or [1, boxes, 6]; export a detection \
         model with its head, not one for segmentation or with raw feature maps"
    )]
    Outputs { found: usize, names: String },
    #[error("input {name:?} has elements of {found}, expected float32 or uint8{hint}")]
    InputType { name: String, found: String, hint: &'static str },
    #[error("input {name:?} has the shape {found}, expected {expected}")]
    InputShape { name: String, found: String, expected: &'static str },
    #[error("input {name:?} takes {found} pictures at a time, expected 1 or any number; export with batch=1")]
    Batch { name: String, found: usize },
    #[error(
        "input {name:?} has the shape {found}, which leaves its size open; export the model with a fixed one \
         (imgsz=320 dynamic=False), or give the size to load it with"
    )]
    OpenSize { name: String, found: String },
    #[error(
        "input {name:?} is {width}x{height}, the configured input size is {wanted_width}x{wanted_height}"
    )]
    OtherSize { name: String, width: usize, height: usize, wanted_width: usize, wanted_height: usize },
    #[error("an input of {width}x{height} pixels, expected sides of {MIN_SIDE} to {MAX_SIDE}")]
    Size { width: usize, height: usize },
    #[error("output {name:?} has elements of {found}, expected float32; export the model again{hint}")]
    OutputType { name: String, found: String, hint: &'static str },
    #[error("output {name:?} has the shape {found}, expected [1, 4 + classes, boxes] or [1, boxes, 6]")]
    OutputShape { name: String, found: String },
    #[error("{bad} of {of} values for a grey picture are not finite numbers; the export is damaged")]
    NotFinite { bad: usize, of: usize },
    #[error(
        "scores from {low} to {high} for a grey picture, expected 0 to 1; export the model with its sigmoid"
    )]
    Scores { low: f32, high: f32 },
}

/// What the file's header says about the input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declared {
    pub spec: InputSpec,
    /// The batch may be any number, so the file says.
    pub any_batch: bool,
}

/// Checks the header. `size` is the input size (width, height) for models that leave it open.
pub(crate) fn check_header(
    header: &Header,
    size: Option<(usize, usize)>,
    max_batch: usize,
) -> Result<Declared, ModelError> {
    if let Some(file) = &header.external_weights {
        return Err(ModelError::ExternalWeights { file: file.clone() });
    }
    if let Some(task) = header.metadata("task")
        && task != "detect"
    {
        return Err(ModelError::Task { task: task.to_owned() });
    }
    let [input] = header.inputs.as_slice() else {
        return Err(ModelError::Inputs { found: header.inputs.len(), names: names(&header.inputs) });
    };
    let [output] = header.outputs.as_slice() else {
        return Err(ModelError::Outputs { found: header.outputs.len(), names: names(&header.outputs) });
    };
    check_output(output)?;
    check_port(input, size, max_batch)
}

fn names(ports: &[Port]) -> String {
    let some: Vec<&str> = ports.iter().take(6).map(|port| port.name.as_str()).collect();
    let more = if ports.len() > some.len() { ", ..." } else { "" };
    format!("{}{more}", some.join(", "))
}

fn check_output(output: &Port) -> Result<(), ModelError> {
    let name = output.name.clone();
    match output.element {
        Some(Element::F32) => {}
        Some(found) => {
            let hint = match found {
                Element::F64 => ": some constant of its head is float64",
                Element::F16 => " with half=False",
                _ => "",
            };
            return Err(ModelError::OutputType { name, found: found.to_string(), hint });
        }
        None => return Err(ModelError::OutputType { name, found: "no tensor".to_owned(), hint: "" }),
    }
    match &output.shape {
        Some(shape) if shape.len() != 3 => Err(ModelError::OutputShape { name, found: shape_text(shape) }),
        // Not said, or open: the first run will tell.
        _ => Ok(()),
    }
}

fn check_port(
    input: &Port,
    wanted: Option<(usize, usize)>,
    max_batch: usize,
) -> Result<Declared, ModelError> {
    let name = || input.name.clone();
    let format = match input.element {
        Some(Element::F32) => InputFormat::F32Nchw,
        Some(Element::U8) => InputFormat::U8Nhwc,
        Some(found) => {
            let hint = if found == Element::F16 { "; export with half=False" } else { "" };
            return Err(ModelError::InputType { name: name(), found: found.to_string(), hint });
        }
        None => return Err(ModelError::InputType { name: name(), found: "no tensor".to_owned(), hint: "" }),
    };
    let expected = match format {
        InputFormat::F32Nchw => "[batch, 3, height, width] for float32",
        InputFormat::U8Nhwc => "[batch, height, width, 3] for uint8",
    };
    let wrong = |found: String| ModelError::InputShape { name: name(), found, expected };
    let Some(shape) = &input.shape else {
        return Err(wrong("unknown".to_owned()));
    };
    let [batch, a, b, c] = shape.as_slice() else {
        return Err(wrong(shape_text(shape)));
    };
    let (channels, height, width) = match format {
        InputFormat::F32Nchw => (a, b, c),
        InputFormat::U8Nhwc => (c, a, b),
    };
    // A channel axis without a size can only be three.
    if matches!(channels, Dimension::Fixed(found) if *found != 3) {
        return Err(wrong(shape_text(shape)));
    }
    let any_batch = match batch {
        Dimension::Fixed(1) => false,
        Dimension::Fixed(found) => return Err(ModelError::Batch { name: name(), found: *found }),
        Dimension::Dynamic(_) => true,
    };
    let side = |declared: &Dimension, wanted: Option<usize>| match (declared, wanted) {
        (Dimension::Fixed(size), _) => Ok(*size),
        (Dimension::Dynamic(_), Some(size)) => Ok(size),
        (Dimension::Dynamic(_), None) => Err(ModelError::OpenSize { name: name(), found: shape_text(shape) }),
    };
    let width = side(width, wanted.map(|(width, _)| width))?;
    let height = side(height, wanted.map(|(_, height)| height))?;
    if let Some((wanted_width, wanted_height)) = wanted
        && (width, height) != (wanted_width, wanted_height)
    {
        return Err(ModelError::OtherSize { name: name(), width, height, wanted_width, wanted_height });
    }
    if [width, height].iter().any(|side| !(MIN_SIDE..=MAX_SIDE).contains(side)) {
        return Err(ModelError::Size { width, height });
    }
    let max_batch = if any_batch { max_batch.clamp(1, MAX_BATCH) } else { 1 };
    Ok(Declared { spec: InputSpec { format, width, height, max_batch }, any_batch })
}

/// Checks what came out for one grey picture, `[1, rows, columns]`, read as `layout`.
pub(crate) fn check_values(output: &Output, layout: Layout) -> Result<(), ModelError> {
    let bad = output.values.iter().filter(|value| !value.is_finite()).count();
    // A few infinite sides of hopeless boxes occur in sound models and are dropped later.
    if bad * 100 > output.values.len() {
        return Err(ModelError::NotFinite { bad, of: output.values.len() });
    }
    let (mut low, mut high) = (0.0_f32, 0.0_f32);
    let mut add = |score: f32| (low, high) = (low.min(score), high.max(score));
    match layout {
        Layout::Scored => output.values.iter().skip(4 * output.columns).copied().for_each(&mut add),
        Layout::EndToEnd => {
            output
                .values
                .chunks_exact(output.columns)
                .filter_map(|row| row.get(4))
                .copied()
                .for_each(&mut add);
        }
    }
    // Float32 sigmoids may round beyond 1.
    if low < -0.001 || high > 1.001 {
        return Err(ModelError::Scores { low, high });
    }
    Ok(())
}
