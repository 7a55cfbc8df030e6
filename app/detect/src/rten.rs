//! The backend that is always there: rten, pure Rust.
//!
//! One and a half times the processor time of ONNX Runtime where its convolutions may be written anew (`pixels`), twice
//! where they may not, a third of its memory, and nothing to install. Weak on depthwise convolutions (four times). It knows no float64: it computes in float32 and does not say so, which is why
//! the types of the model are checked before, in `model`.

use std::sync::Arc;

use rten::{DataType, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueType};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensorView, Tensor};

use crate::backend::{Backend, BackendError, Input, InputSpec, Output, check_input, guarded};

const NAME: &str = "rten";

pub(crate) struct Rten {
    model: Model,
    spec: InputSpec,
    input: NodeId,
    output: NodeId,
    options: RunOptions,
}

impl Rten {
    /// `threads` is at least 1. They belong to this model: rten's own pool takes every core. `packed`: fixed matrices are
    /// held once more, for each product in the order in which it wants them.
    pub(crate) fn new(
        file: &[u8],
        spec: InputSpec,
        threads: usize,
        packed: bool,
    ) -> Result<Rten, BackendError> {
        guarded(
            || {
                let load = |error: &dyn std::fmt::Display| load_error(error.to_string());
                // Helps products with a fixed matrix on their right; rten 0.27 does not do it for convolutions.
                let model = ModelOptions::with_all_ops()
                    .prepack_weights(packed)
                    .load(file.to_vec())
                    .map_err(|error| load(&error))?;
                let (&[input], &[output]) = (model.input_ids(), model.output_ids()) else {
                    return Err(load(&"expected one input and one output"));
                };
                let options = RunOptions::default()
                    .with_thread_pool(Some(Arc::new(ThreadPool::with_num_threads(threads))));
                Ok(Rten { model, spec, input, output, options })
            },
            load_error,
        )
    }
}

fn load_error(message: String) -> BackendError {
    BackendError::Load { backend: NAME, message }
}

fn run_error(message: String) -> BackendError {
    BackendError::Run { backend: NAME, message }
}

impl Backend for Rten {
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
                let shape = self.spec.shape(batch);
                let view: ValueOrView<'_> = match input {
                    Input::F32(values) => NdTensorView::from_data(shape, values).into(),
                    Input::U8(values) => NdTensorView::from_data(shape, values).into(),
                };
                let results = self
                    .model
                    .run(vec![(self.input, view)], &[self.output], Some(self.options.clone()))
                    .map_err(|error| run_error(error.to_string()))?;
                let Some(result) = results.into_iter().next() else {
                    return Err(run_error("no output".to_owned()));
                };
                if result.dtype() != ValueType::Tensor(DataType::Float) {
                    return Err(BackendError::OutputType {
                        backend: NAME,
                        found: result.dtype().to_string(),
                    });
                }
                take(result, batch, output)
            },
            run_error,
        )
    }
}

fn take(result: Value, batch: usize, output: &mut Output) -> Result<(), BackendError> {
    let tensor: Tensor<f32> = result
        .try_into()
        .map_err(|_| BackendError::OutputType { backend: NAME, found: "not a tensor".to_owned() })?;
    // The last operator may have left it transposed.
    let values = tensor.to_contiguous();
    output.fill(NAME, tensor.shape().as_ref(), values.data(), batch)
}
