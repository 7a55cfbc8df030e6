//! From a configuration to a backend that has run once.
//!
//! Order: the file, its header, the labels, the backend, one run on a grey picture. Every step refuses with its own
//! message, so that a model that loads is a model that works; what only the run can show (real shapes, a batch size that
//! the file only pretends, values that are no numbers) is found here and not at the first camera.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

use vision::head::{Head, HeadError};

use crate::backend::{Backend, BackendError, Input, InputFormat, InputSpec, Output};
use crate::labels::{self, LabelsError};
#[cfg(feature = "ort")]
use crate::library::{self, Search};
use crate::model::{self, Declared, MAX_MODEL_BYTES, ModelError};
use crate::onnx::{self, Header, OnnxError};
#[cfg(feature = "ort")]
use crate::ort::{LibraryError, Ort, OrtError};
use crate::pixels;
use crate::rten::Rten;

/// Where the model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    File(PathBuf),
    /// In the program, with the name that messages use.
    BuiltIn {
        name: &'static str,
        bytes: &'static [u8],
    },
}

/// Where the names of the classes come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LabelSource {
    /// The model's metadata, `names`.
    #[default]
    Model,
    File(PathBuf),
    /// In the program; the text of a label file.
    BuiltIn(&'static str),
}

/// Which backend is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// ONNX Runtime where its library is found and runs the model, else rten.
    #[default]
    Auto,
    Rten,
    Ort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    pub backend: BackendChoice,
    /// Library of ONNX Runtime; absent: `ORT_DYLIB_PATH`, else what is installed.
    pub library: Option<PathBuf>,
    /// Threads that one inference may use, at least 1.
    pub threads: usize,
    /// Width and height for models that leave their input size open, pixels.
    pub input_size: Option<(usize, usize)>,
    /// Most pictures in one call, where the model takes any number; 1..=64.
    pub max_batch: usize,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            backend: BackendChoice::Auto,
            library: None,
            threads: 1,
            input_size: None,
            max_batch: 8,
        }
    }
}

/// A model that has run, and how it came to run on this backend.
pub struct Loaded {
    pub backend: Box<dyn Backend>,
    /// Reads its output.
    pub head: Head,
    /// Names of its classes, in their order.
    pub labels: Vec<String>,
    pub chosen: Chosen,
    /// File, or name of the built-in model.
    pub model: String,
    /// Size of the model file.
    pub model_bytes: usize,
    /// Shape of the output for one picture.
    pub rows: usize,
    pub columns: usize,
    /// Something about the model that works but could be better; for the log.
    pub notes: Vec<String>,
}

/// Which backend runs the model, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// `rten` or `ort`.
    pub backend: &'static str,
    pub because: String,
    /// The library that was opened, and what it says about itself.
    pub library: Option<(PathBuf, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("model {model}: {source}")]
    Read { model: String, source: std::io::Error },
    #[error("model {model} has more than {MAX_MODEL_BYTES} bytes")]
    TooLarge { model: String },
    #[error("model {model}: {source}")]
    Onnx { model: String, source: OnnxError },
    #[error("model {model}: {source}")]
    Model { model: String, source: ModelError },
    #[error("labels {labels}: {source}")]
    ReadLabels { labels: String, source: std::io::Error },
    #[error("labels {labels}: {source}")]
    Labels { labels: String, source: LabelsError },
    #[error("model {model} does not name its classes; give a label file, one name a line")]
    NoLabels { model: String },
    #[error("model {model} names {classes} classes, the labels {labels} are {found}")]
    LabelCount { model: String, classes: usize, labels: String, found: usize },
    #[error("model {model}, labels {labels}: {source}")]
    Head { model: String, labels: String, source: HeadError },
    #[error("model {model}: {source}")]
    Backend { model: String, source: BackendError },
    #[cfg(feature = "ort")]
    #[error("ONNX Runtime: {0}")]
    Library(#[from] LibraryError),
    #[error(
        "no libonnxruntime found in {searched}; name one in the configuration, or use the backend \"rten\""
    )]
    NoLibrary { searched: String },
    #[error("this program was built without ONNX Runtime (feature `ort`); use the backend \"rten\"")]
    NotBuilt,
}

/// Loads the model, runs it and returns what it is. Takes milliseconds to seconds: not for a thread that others wait for.
pub fn load(
    source: &ModelSource,
    label_source: &LabelSource,
    options: &LoadOptions,
) -> Result<Loaded, LoadError> {
    let (model, file) = read_model(source)?;
    let wrong = |source| LoadError::Model { model: model.clone(), source };
    let header =
        onnx::read_header(&file).map_err(|source| LoadError::Onnx { model: model.clone(), source })?;
    let declared = model::check_header(&header, options.input_size, options.max_batch).map_err(wrong)?;
    let (labels_name, labels) = read_labels(label_source, &model, &header)?;
    let found = labels.len();
    if let Some(Ok(own)) = header.metadata("names").map(labels::parse_metadata)
        && own.len() != found
    {
        return Err(LoadError::LabelCount { model, classes: own.len(), labels: labels_name, found });
    }

    let (opened, chosen) = choose(&model, &file, &declared, options)?;
    let Opened { backend, output, notes } = opened;
    let (rows, columns) = (output.rows, output.columns);
    let head = Head::detect(rows, columns, found).map_err(|source| LoadError::Head {
        model: model.clone(),
        labels: labels_name,
        source,
    })?;
    model::check_values(&output, head.layout()).map_err(wrong)?;
    Ok(Loaded { backend, head, labels, chosen, model, model_bytes: file.len(), rows, columns, notes })
}

fn read_model(source: &ModelSource) -> Result<(String, Cow<'static, [u8]>), LoadError> {
    match source {
        ModelSource::BuiltIn { name, bytes } => Ok(((*name).to_owned(), Cow::Borrowed(*bytes))),
        ModelSource::File(path) => {
            let model = path.display().to_string();
            let bytes = read_file(path, MAX_MODEL_BYTES)
                .map_err(|source| LoadError::Read { model: model.clone(), source })?;
            match bytes {
                Some(bytes) => Ok((model, Cow::Owned(bytes))),
                None => Err(LoadError::TooLarge { model }),
            }
        }
    }
}

/// The whole file, or nothing when it has more than `limit` bytes. A device or a pipe that never ends does no harm.
fn read_file(path: &Path, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((u64::try_from(read).unwrap_or(u64::MAX) <= limit).then_some(bytes))
}

/// Largest label file: far more than `MAX_LABELS` of the longest.
const MAX_LABELS_FILE_BYTES: u64 = 1 << 20;

/// The labels, and where they come from in words.
fn read_labels(
    source: &LabelSource,
    model: &str,
    header: &Header,
) -> Result<(String, Vec<String>), LoadError> {
    let (name, parsed) = match source {
        LabelSource::Model => {
            let names =
                header.metadata("names").ok_or_else(|| LoadError::NoLabels { model: model.to_owned() })?;
            ("in its metadata".to_owned(), labels::parse_metadata(names))
        }
        LabelSource::BuiltIn(text) => ("built in".to_owned(), labels::parse(text.as_bytes())),
        LabelSource::File(path) => {
            let name = path.display().to_string();
            let bytes = read_file(path, MAX_LABELS_FILE_BYTES)
                .map_err(|source| LoadError::ReadLabels { labels: name.clone(), source })?;
            (name, bytes.ok_or(LabelsError::TooMany).and_then(|bytes| labels::parse(&bytes)))
        }
    };
    match parsed {
        Ok(labels) => Ok((name, labels)),
        Err(source) => Err(LoadError::Labels { labels: name, source }),
    }
}

/// A backend and what it gave for one grey picture.
struct Opened {
    backend: Box<dyn Backend>,
    output: Output,
    notes: Vec<String>,
}

/// Grey of the border that detectors are trained with.
const GREY: u8 = 114;

/// Builds a backend by `build` and runs it, with two pictures as well where the file says that it takes any number.
fn open<E: From<BackendError>>(
    declared: &Declared,
    build: impl Fn(InputSpec) -> Result<Box<dyn Backend>, E>,
) -> Result<Opened, E> {
    let spec = declared.spec;
    let mut backend = build(spec)?;
    let mut output = Output::default();
    let mut notes = Vec::new();
    if spec.max_batch > 1 {
        run_grey(backend.as_mut(), 1, &mut output)?;
        let shape = (output.rows, output.columns);
        let both = run_grey(backend.as_mut(), 2, &mut output);
        if both.is_ok() && shape == (output.rows, output.columns) {
            run_grey(backend.as_mut(), 1, &mut output)?;
            return Ok(Opened { backend, output, notes });
        }
        let reason = both.map_or_else(|error| error.to_string(), |()| "another shape came out".to_owned());
        notes.push(format!("the model says that it takes any number of pictures, but not two: {reason}"));
        backend = build(InputSpec { max_batch: 1, ..spec })?;
    }
    run_grey(backend.as_mut(), 1, &mut output)?;
    Ok(Opened { backend, output, notes })
}

fn run_grey(backend: &mut dyn Backend, batch: usize, output: &mut Output) -> Result<(), BackendError> {
    let spec = backend.input();
    let len = batch * spec.picture_len();
    match spec.format {
        InputFormat::F32Nchw => backend.run(Input::F32(&vec![f32::from(GREY) / 255.0; len]), batch, output),
        InputFormat::U8Nhwc => backend.run(Input::U8(&vec![GREY; len]), batch, output),
    }
}

fn open_rten(
    model: &str,
    file: &[u8],
    declared: &Declared,
    options: &LoadOptions,
) -> Result<Opened, LoadError> {
    let open = |file: &[u8], packed: bool| {
        open(declared, |spec| {
            let rten = Rten::new(file, spec, options.threads.max(1), packed)?;
            Ok::<_, BackendError>(Box::new(rten) as Box<dyn Backend>)
        })
    };
    // Each band of each convolution would hold its weights once more, and saves no time by it.
    if let Some(written) = pixels::rewrite(file) {
        match open(&written, false) {
            Ok(opened) => return Ok(opened),
            // As the file is written, it runs or says by itself what is wrong with it.
            Err(error) => tracing::debug!(model, %error, "does not run with its maps as pixels"),
        }
    }
    open(file, true).map_err(|source| LoadError::Backend { model: model.to_owned(), source })
}

#[cfg(not(feature = "ort"))]
fn choose(
    model: &str,
    file: &[u8],
    declared: &Declared,
    options: &LoadOptions,
) -> Result<(Opened, Chosen), LoadError> {
    let because = match options.backend {
        BackendChoice::Rten => "named in the configuration",
        BackendChoice::Auto => "this program was built without ONNX Runtime",
        BackendChoice::Ort => return Err(LoadError::NotBuilt),
    };
    let opened = open_rten(model, file, declared, options)?;
    Ok((opened, Chosen { backend: "rten", because: because.to_owned(), library: None }))
}

#[cfg(feature = "ort")]
fn choose(
    model: &str,
    file: &[u8],
    declared: &Declared,
    options: &LoadOptions,
) -> Result<(Opened, Chosen), LoadError> {
    let rten = |because: String| -> Result<(Opened, Chosen), LoadError> {
        let opened = open_rten(model, file, declared, options)?;
        Ok((opened, Chosen { backend: "rten", because, library: None }))
    };
    if options.backend == BackendChoice::Rten {
        return rten("named in the configuration".to_owned());
    }
    let forced = options.backend == BackendChoice::Ort;
    let (library, why) = match library::search(options.library.as_deref()) {
        Search::Found(library, why) => (library, why),
        Search::NotFound { searched } if forced => return Err(LoadError::NoLibrary { searched }),
        Search::NotFound { searched } => return rten(format!("no libonnxruntime found in {searched}")),
    };
    let opened = open(declared, |spec| {
        Ok::<_, OrtError>(
            Box::new(Ort::new(&library, file, spec, options.threads.max(1))?) as Box<dyn Backend>
        )
    });
    match opened {
        Ok(opened) => {
            let because = if forced {
                "named in the configuration".to_owned()
            } else {
                format!("its library is {why}")
            };
            Ok((opened, Chosen { backend: "ort", because, library: Some((library, Ort::about())) }))
        }
        Err(OrtError::Library(error)) if forced => Err(LoadError::Library(error)),
        Err(OrtError::Backend(source)) if forced => {
            Err(LoadError::Backend { model: model.to_owned(), source })
        }
        Err(OrtError::Library(error)) => rten(format!("the libonnxruntime {why} does not open: {error}")),
        Err(OrtError::Backend(error)) => rten(format!("ONNX Runtime does not run this model: {error}")),
    }
}
