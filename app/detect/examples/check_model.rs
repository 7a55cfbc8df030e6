//! Says whether a model fits, and what it costs: `cargo run --release -p detect --example check_model -- FILE [LABELS]`.
//!
//! Without a label file the names come from the model. ORT_DYLIB_PATH names a libonnxruntime; without one only rten is
//! tried.

use std::time::Duration;

use detect::{BackendChoice, Detector, LabelSource, LoadOptions, ModelSource};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments.next().ok_or("usage: check_model FILE.onnx [LABELS]")?;
    let labels = arguments.next().map_or(LabelSource::Model, |path| LabelSource::File(path.into()));
    let source = ModelSource::File(file.into());
    for backend in [BackendChoice::Rten, BackendChoice::Ort] {
        let options = LoadOptions { backend, ..LoadOptions::default() };
        let loaded = match detect::load(&source, &labels, &options) {
            Ok(loaded) => loaded,
            Err(error) => {
                println!("refused: {error}");
                continue;
            }
        };
        println!(
            "{}: {:?}, output [{}, {}] read as {:?}, {} labels, {:?}",
            loaded.chosen.backend,
            loaded.backend.input(),
            loaded.rows,
            loaded.columns,
            loaded.head.layout(),
            loaded.labels.len(),
            loaded.notes,
        );
        let mut detector = Detector::of(loaded, 0.25, clock::Clock::system());
        for cost in detector.measure((1280, 720), 50, Duration::from_secs(3))?.by_batch {
            println!("  {:?} a picture in batches of {}, p95 {:?}", cost.p50, cost.batch, cost.p95);
        }
    }
    Ok(())
}
