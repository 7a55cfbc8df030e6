//! What a backend is: a loaded model that turns input tensors into output tensors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Element type and order of the input tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// `[batch, 3, height, width]`, red, green, blue, 0.0..=1.0.
    F32Nchw,
    /// `[batch, height, width, 3]`, red, green, blue, 0..=255; the model converts by itself.
    U8Nhwc,
}

/// What the model wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputSpec {
    pub format: InputFormat,
    /// Pixels.
    pub width: usize,
    pub height: usize,
    /// Most pictures in one call; 1 where the model has a fixed batch of one.
    pub max_batch: usize,
}

impl InputSpec {
    /// Elements of one picture.
    pub fn picture_len(&self) -> usize {
        3 * self.width * self.height
    }

    /// The shape of a tensor of `batch` pictures.
    pub fn shape(&self, batch: usize) -> [usize; 4] {
        match self.format {
            InputFormat::F32Nchw => [batch, 3, self.height, self.width],
            InputFormat::U8Nhwc => [batch, self.height, self.width, 3],
        }
    }
}

/// The input of one call, pictures one behind another.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    F32(&'a [f32]),
    U8(&'a [u8]),
}

impl Input<'_> {
    fn len(&self) -> usize {
        match self {
            Input::F32(values) => values.len(),
            Input::U8(values) => values.len(),
        }
    }

    fn format(&self) -> InputFormat {
        match self {
            Input::F32(_) => InputFormat::F32Nchw,
            Input::U8(_) => InputFormat::U8Nhwc,
        }
    }
}

/// The output of one call: `[batch, rows, columns]`, as the model returns it. Reused from call to call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    pub values: Vec<f32>,
    pub rows: usize,
    pub columns: usize,
}

impl Output {
    /// Takes over what a backend gave; refuses any other rank, batch and number of values.
    pub fn fill(
        &mut self,
        backend: &'static str,
        shape: &[usize],
        values: &[f32],
        batch: usize,
    ) -> Result<(), BackendError> {
        match *shape {
            [found, rows, columns]
                if found == batch
                    && rows > 0
                    && columns > 0
                    && values.len() / batch / rows == columns
                    && values.len() == batch * rows * columns =>
            {
                (self.rows, self.columns) = (rows, columns);
                self.values.clear();
                self.values.extend_from_slice(values);
                Ok(())
            }
            _ => Err(BackendError::Shape {
                backend,
                found: shape.to_vec(),
                expected: format!("[{batch}, rows, columns]"),
            }),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("{backend}: the model does not load: {message}")]
    Load { backend: &'static str, message: String },
    #[error("{backend}: inference failed: {message}")]
    Run { backend: &'static str, message: String },
    #[error("{backend}: output of shape {found:?}, expected {expected}")]
    Shape { backend: &'static str, found: Vec<usize>, expected: String },
    #[error("{backend}: output elements are {found}, expected float32; export the model again")]
    OutputType { backend: &'static str, found: String },
    #[error("{backend}: an input of {found} elements as {format:?}, expected {expected}")]
    Input { backend: &'static str, found: usize, format: InputFormat, expected: String },
}

/// A loaded model. Lives on one thread at a time, which is not one of the asynchronous runtime.
pub trait Backend: Send {
    /// `rten`, `ort`, `tensorrt`.
    fn name(&self) -> &'static str;

    fn input(&self) -> InputSpec;

    /// Runs `batch` pictures, 1..=`max_batch`; `input` holds exactly so many.
    fn run(&mut self, input: Input<'_>, batch: usize, output: &mut Output) -> Result<(), BackendError>;
}

/// Every backend begins `run` with this.
pub(crate) fn check_input(
    backend: &'static str,
    spec: &InputSpec,
    input: Input<'_>,
    batch: usize,
) -> Result<(), BackendError> {
    let fits = (1..=spec.max_batch).contains(&batch)
        && input.format() == spec.format
        && input.len() == batch * spec.picture_len();
    if fits {
        return Ok(());
    }
    Err(BackendError::Input {
        backend,
        found: input.len(),
        format: input.format(),
        expected: format!("{:?} as {:?}, batch at most {}", spec.shape(batch), spec.format, spec.max_batch),
    })
}

/// Runs library code on a model that a stranger made: a panic in it becomes an error of this model.
pub(crate) fn guarded<T>(
    call: impl FnOnce() -> Result<T, BackendError>,
    error: impl FnOnce(String) -> BackendError,
) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(error(panic_text(&*panic))))
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("the library panicked: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_of_another_shape_is_refused() {
        let check = |shape: &[usize], values: usize, batch: usize, fits: bool| {
            let found = Output::default().fill("test", shape, &vec![0.0; values], batch);
            assert_eq!(found.is_ok(), fits, "{shape:?} {values} {batch}: {found:?}");
        };
        check(&[1, 6, 10], 60, 1, true);
        check(&[2, 6, 10], 120, 2, true);
        check(&[1, 6, 10], 120, 2, false);
        check(&[6, 10], 60, 1, false);
        check(&[1, 6, 10], 61, 1, false);
        check(&[1, 0, 10], 0, 1, false);
        check(&[1, 6, 5, 2], 60, 1, false);
        check(&[1, usize::MAX, 2], 60, 1, false);
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let found =
            guarded::<()>(|| panic!("so {}", 1), |message| BackendError::Run { backend: "test", message });
        std::panic::set_hook(hook);
        assert_eq!(found.unwrap_err().to_string(), "test: inference failed: the library panicked: so 1");
    }
}
