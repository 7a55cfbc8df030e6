//! Processor time of one inference: rten and ONNX Runtime in this process beside ONNX Runtime's own Python package.
//!
//! Run with `cargo bench -p detect --bench backends [-- MODEL.onnx ...]`; without names the shipped model. Same model, same
//! input, one thread each, in turns so that a busy moment of the machine hits all three. Processor time of all threads,
//! not wall time, median of the rounds. All three must agree on the output. Needs `python3` with the package
//! `onnxruntime`: `python3 -m pip install --target target/onnxruntime onnxruntime==1.31.1` in the root of the
//! repository, or a Python that has it in KVS_EDGE_BENCH_PYTHON; the library in there is the one that is loaded here.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clock::Clock;
use detect::{
    Backend, BackendChoice, Detector, Input, InputFormat, InputSpec, LabelSource, LoadOptions, Loaded,
    ModelSource, Output,
};
use vision::{Colour, Matrix, Picture, Plane, Planes};

const ROUNDS: usize = 15;
/// Each turn takes about so long.
const TURN: Duration = Duration::from_millis(150);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut models: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|argument| argument != "--bench").map(PathBuf::from).collect();
    if models.is_empty() {
        models.push(root.join("app/model/scene.onnx"));
    }
    println!(
        "{:<22} {:>9} {:>9} {:>9} | {:>11} {:>10} | {:>14}",
        "model", "rten ms", "ort ms", "python ms", "rten/python", "ort/python", "difference"
    );
    for model in &models {
        compare(&root, model)?;
    }
    println!("\nwhole detection of one 1920x1080 picture, wall time, median: letterbox, inference, boxes");
    for model in &models {
        for backend in [BackendChoice::Rten, BackendChoice::Ort] {
            whole(&root, model, backend)?;
        }
    }
    Ok(())
}

fn load(root: &Path, model: &Path, backend: BackendChoice) -> Result<Loaded> {
    let library = match std::env::var_os("ORT_DYLIB_PATH") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(Python::ask(root, LIBRARY)?),
    };
    let options = LoadOptions { backend, library: Some(library), ..LoadOptions::default() };
    Ok(detect::load(&ModelSource::File(model.to_owned()), &LabelSource::Model, &options)?)
}

fn compare(root: &Path, model: &Path) -> Result<()> {
    let mut rten = load(root, model, BackendChoice::Rten)?.backend;
    let mut ort = load(root, model, BackendChoice::Ort)?.backend;
    let input = noise(rten.input());
    let folder = tempfile::tempdir()?;
    let mut python = Python::start(root, model, &input, folder.path())?;

    let (mut from_rten, mut from_ort) = (Output::default(), Output::default());
    run(rten.as_mut(), &input, &mut from_rten, 1)?;
    run(ort.as_mut(), &input, &mut from_ort, 1)?;
    let from_python = python.output(folder.path())?;
    let difference =
        difference(&from_rten.values, &from_python).max(difference(&from_ort.values, &from_python));

    // So many inferences as fit in a turn of each.
    let per_turn = |time: Duration| (TURN.as_nanos() / time.as_nanos().max(1)).clamp(1, 1000);
    let counts = [
        usize::try_from(per_turn(run(rten.as_mut(), &input, &mut from_rten, 3)? / 3))?,
        usize::try_from(per_turn(run(ort.as_mut(), &input, &mut from_ort, 3)? / 3))?,
        usize::try_from(per_turn(python.run(3)? / 3))?,
    ];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        times[0]
            .push(run(rten.as_mut(), &input, &mut from_rten, counts[0])?.as_secs_f64() / as_f64(counts[0]));
        times[1].push(run(ort.as_mut(), &input, &mut from_ort, counts[1])?.as_secs_f64() / as_f64(counts[1]));
        times[2].push(python.run(counts[2])?.as_secs_f64() / as_f64(counts[2]));
    }
    let [rten, ort, python] = times.map(|times| median(times) * 1e3);
    println!(
        "{:<22} {rten:>9.2} {ort:>9.2} {python:>9.2} | {:>11.2} {:>10.2} | {difference:>14.1e}",
        model.file_stem().unwrap_or_default().to_string_lossy(),
        rten / python,
        ort / python,
    );
    Ok(())
}

/// Processor time of `count` inferences.
fn run(backend: &mut dyn Backend, input: &[f32], output: &mut Output, count: usize) -> Result<Duration> {
    let bytes: Vec<u8>;
    let input = match backend.input().format {
        InputFormat::F32Nchw => Input::F32(input),
        InputFormat::U8Nhwc => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
            let as_byte = |value: &f32| (value * 255.0) as u8;
            bytes = input.iter().map(as_byte).collect();
            Input::U8(&bytes)
        }
    };
    let before = processor_time()?;
    for _ in 0..count {
        backend.run(input, 1, output)?;
    }
    Ok(processor_time()? - before)
}

/// Of all threads of this process, in nanoseconds. None of them ends between two calls.
fn processor_time() -> Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().ok_or("no time in schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

fn noise(spec: InputSpec) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u8::try_from(state >> 24).unwrap_or_default()) / 255.0
    };
    (0..spec.picture_len()).map(|_| next()).collect()
}

/// Largest difference, relative to the largest value there is.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "outputs of different sizes");
    let largest = b.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).fold(0.0, |worst: f32, (a, b)| worst.max((a - b).abs())) / largest
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

/// A child that runs ONNX Runtime's Python package.
struct Python {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Reads the number of inferences, answers with the processor time that they took.
const SCRIPT: &str = "
import sys, time
import numpy, onnxruntime
model, folder = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry('session.intra_op.allow_spinning', '0')
session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
port = session.get_inputs()[0]
shape = [side if isinstance(side, int) else 1 for side in port.shape]
values = numpy.fromfile(folder + '/input', numpy.float32)
if port.type == 'tensor(uint8)':
    values = (values * 255).astype(numpy.uint8)
feed = {port.name: values.reshape(shape)}
session.run(None, feed)[0].tofile(folder + '/output')
print(flush=True)
for line in sys.stdin:
    before = time.process_time_ns()
    for _ in range(int(line)):
        session.run(None, feed)
    print(time.process_time_ns() - before, flush=True)
";

const LIBRARY: &str = "
import glob, os, onnxruntime
print(glob.glob(os.path.dirname(onnxruntime.__file__) + '/capi/libonnxruntime.so*')[0])
";

impl Python {
    fn command(root: &Path) -> Command {
        let name = std::env::var_os("KVS_EDGE_BENCH_PYTHON").unwrap_or_else(|| "python3".into());
        let mut command = Command::new(name);
        command.env("PYTHONPATH", root.join("target/onnxruntime")).arg("-c");
        command
    }

    fn ask(root: &Path, script: &str) -> Result<String> {
        let output = Python::command(root).arg(script).stderr(Stdio::inherit()).output()?;
        let answer = String::from_utf8(output.stdout)?.trim().to_owned();
        if answer.is_empty() {
            return Err("this Python has no package onnxruntime; see the head of this file".into());
        }
        Ok(answer)
    }

    fn start(root: &Path, model: &Path, input: &[f32], folder: &Path) -> Result<Python> {
        let bytes: Vec<u8> = input.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(folder.join("input"), bytes)?;
        let mut child = Python::command(root)
            .arg(SCRIPT)
            .args([model, folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut python = Python { child, stdin, stdout };
        python.line()?;
        Ok(python)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err("the Python process ended".into());
        }
        Ok(line.trim().to_owned())
    }

    fn output(&self, folder: &Path) -> Result<Vec<f32>> {
        let bytes = std::fs::read(folder.join("output"))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect())
    }

    fn run(&mut self, count: usize) -> Result<Duration> {
        writeln!(self.stdin, "{count}")?;
        Ok(Duration::from_nanos(self.line()?.parse()?))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn whole(root: &Path, model: &Path, backend: BackendChoice) -> Result<()> {
    let (width, height) = (1920, 1080);
    let luma: Vec<u8> = (0_u8..=255).cycle().step_by(7).take(width * height).collect();
    let chroma = vec![120; width * height / 4];
    let plane = |bytes, stride| Plane { bytes, stride };
    let planes =
        Planes::I420 { y: plane(&luma, width), u: plane(&chroma, width / 2), v: plane(&chroma, width / 2) };
    let colour = Colour { matrix: Matrix::Bt709, full_range: false };
    let picture = Picture::new(width, height, planes, colour)?;
    let clock = Clock::system();
    let mut detector = Detector::of(load(root, model, backend)?, 0.25, clock.clone());
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let start = clock.now();
    while parts[0].len() < 10 || clock.since(start) < Duration::from_secs(2) {
        let timing = detector.detect(&[picture], &mut [Vec::new()])?;
        for (part, time) in parts.iter_mut().zip([timing.prepare, timing.infer, timing.post]) {
            part.push(time.as_secs_f64() * 1e3);
        }
    }
    let [prepare, infer, post] = parts.map(median);
    let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    println!("{name:<22} {:<5} {prepare:>7.2} {infer:>7.2} {post:>7.2} ms", detector.backend());
    Ok(())
}
