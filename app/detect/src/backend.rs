//! What a backend is: a loaded model that turns input tensors into output tensors.

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

/// The input of one call, pictures one behind another.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    F32(&'a [f32]),
    U8(&'a [u8]),
}

/// The output of one call: `[batch, rows, columns]`, as the model gives it. Reused from call to call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    pub values: Vec<f32>,
    pub rows: usize,
    pub columns: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("{backend}: inference failed: {message}")]
    Run { backend: &'static str, message: String },
    #[error("{backend}: output of shape {found:?}, expected {expected}")]
    Shape { backend: &'static str, found: Vec<usize>, expected: String },
    #[error("{backend}: output elements are {found}, expected float32; export the model again")]
    OutputType { backend: &'static str, found: String },
}

/// A loaded model. Lives on one thread at a time, which is not one of the asynchronous runtime.
pub trait Backend: Send {
    /// `rten`, `ort`, `tensorrt`.
    fn name(&self) -> &'static str;

    fn input(&self) -> InputSpec;

    /// Runs `batch` pictures, 1..=`max_batch`; `input` holds exactly so many.
    fn run(&mut self, input: Input<'_>, batch: usize, output: &mut Output) -> Result<(), BackendError>;
}
