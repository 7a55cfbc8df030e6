//! The fast backend: ONNX Runtime, when a shared library of it is there.
//!
//! Decisions, each measured (2 cores, shared):
//! * Idle threads of ONNX Runtime spin by default: on a busy box that costs twice the processor time and is slower
//!   than sleeping. Spinning is off.
//! * Operators run one after another, each on `threads` threads.
//!
//! One process holds one library and one environment for good: a library that was opened once is kept, and another one
//! is refused until the next start. A file that is no library, a library of something else and one that is too old are
//! ordinary errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef, ValueType};

use crate::backend::{Backend, BackendError, Input, InputSpec, Output, check_input, guarded, panic_text};

const NAME: &str = "ort";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    #[error("{path}: {message}")]
    Open { path: PathBuf, message: String },
    #[error("{path}: {opened} is open already; one process uses one ONNX Runtime, so this takes a restart")]
    Other { path: PathBuf, opened: PathBuf },
}

/// The library of this process.
enum Process {
    Nothing,
    Open(PathBuf, Environment),
    /// Loaded into the process, where it stays, but of no use.
    Broken(PathBuf, String),
}

static PROCESS: Mutex<Process> = Mutex::new(Process::Nothing);

/// Opens the library at `path`, or finds it open.
fn environment(path: &Path) -> Result<Environment, LibraryError> {
    let failed = |message: String| LibraryError::Open { path: path.to_owned(), message };
    let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    match &*process {
        Process::Open(opened, environment) if opened == path => return Ok(environment.clone()),
        Process::Broken(opened, message) if opened == path => return Err(failed(message.clone())),
        Process::Open(opened, _) | Process::Broken(opened, _) => {
            return Err(LibraryError::Other { path: path.to_owned(), opened: opened.clone() });
        }
        Process::Nothing => {}
    }
    // An error here leaves nothing behind. A library that gives no version makes it panic.
    let builder = catch_unwind(|| ort::init_from(path).map_err(|error| open_text(path, &error)))
        .unwrap_or_else(|panic| Err(panic_text(&*panic)))
        .map_err(failed)?;
    // From here on the library is in the process. One that lies about its version makes the binding panic.
    let built = catch_unwind(AssertUnwindSafe(|| {
        let builder = builder.with_name("kvs-edge").with_telemetry(false).with_logger(Arc::new(log));
        let environment = builder.build().map_err(|error| error.to_string())?;
        environment.set_log_level(LogLevel::Warning);
        Ok(environment)
    }))
    .unwrap_or_else(|panic| Err(panic_text(&*panic)));
    match built {
        Ok(environment) => {
            *process = Process::Open(path.to_owned(), environment.clone());
            Ok(environment)
        }
        Err(message) => {
            *process = Process::Broken(path.to_owned(), message.clone());
            Err(failed(message))
        }
    }
}

/// What the dynamic loader says is hidden one level below.
fn open_text(path: &Path, error: &ort::LoadDynamicError) -> String {
    let text = match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
        }
        _ => error.to_string(),
    };
    text.strip_prefix(&format!("{}: ", path.display())).map_or_else(|| text.clone(), str::to_owned)
}

/// What ONNX Runtime calls a warning is advice about models and processors; its errors come back as results too.
fn log(level: LogLevel, _category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::warn!(backend = NAME, place, "{message}"),
        LogLevel::Warning => tracing::debug!(backend = NAME, place, "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(backend = NAME, place, "{message}"),
    }
}

pub(crate) struct Ort {
    session: Session,
    spec: InputSpec,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OrtError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Ort {
    /// `threads` is at least 1.
    pub(crate) fn new(library: &Path, file: &[u8], spec: InputSpec, threads: usize) -> Result<Ort, OrtError> {
        let environment = environment(library)?;
        let session = guarded(
            || session(&environment, file, threads).map_err(|error| load_error(error.to_string())),
            load_error,
        )?;
        if let Some(output) = session.outputs().first()
            && let ValueType::Tensor { ty, .. } = output.dtype()
            && *ty != TensorElementType::Float32
        {
            return Err(BackendError::OutputType { backend: NAME, found: ty.to_string() }.into());
        }
        Ok(Ort { session, spec })
    }

    /// Version and build of the library that is open.
    pub(crate) fn about() -> String {
        catch_unwind(ort::info).map_or_else(|_| "unknown build".to_owned(), str::to_owned)
    }
}

fn session(environment: &Environment, file: &[u8], threads: usize) -> Result<Session, ort::Error> {
    Session::builder(environment)?
        .with_intra_threads(threads)?
        .with_intra_op_spinning(false)?
        .with_parallel_execution(false)?
        .with_log_level(LogLevel::Warning)?
        .commit_from_memory(file)
}

fn load_error(message: String) -> BackendError {
    BackendError::Load { backend: NAME, message }
}

fn run_error(message: String) -> BackendError {
    BackendError::Run { backend: NAME, message }
}

impl Backend for Ort {
    fn name(&self) -> &'static str {
        NAME
    }

    fn input(&self) -> InputSpec {
        self.spec
    }

    fn run(&mut self, input: Input<'_>, batch: usize, output: &mut Output) -> Result<(), BackendError> {
        check_input(NAME, &self.spec, input, batch)?;
        guarded(
            || {
                let failed = |error: ort::Error| run_error(error.to_string());
                let shape = self.spec.shape(batch);
                let results = match input {
                    Input::F32(values) => {
                        let tensor = TensorRef::from_array_view((shape, values)).map_err(failed)?;
                        self.session.run(ort::inputs![tensor])
                    }
                    Input::U8(values) => {
                        let tensor = TensorRef::from_array_view((shape, values)).map_err(failed)?;
                        self.session.run(ort::inputs![tensor])
                    }
                }
                .map_err(failed)?;
                let Some((_, result)) = results.iter().next() else {
                    return Err(run_error("no output".to_owned()));
                };
                let (shape, values) = result.try_extract_tensor::<f32>().map_err(|_| {
                    BackendError::OutputType { backend: NAME, found: result.dtype().to_string() }
                })?;
                // Negative sides do not occur in a result; as 0 they are refused.
                let shape: Vec<usize> =
                    shape.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
                output.fill(NAME, &shape, values, batch)
            },
            run_error,
        )
    }
}
