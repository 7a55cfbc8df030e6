//! Pictures with painted patches, small models, and the library of ONNX Runtime for the tests.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};

use detect::{BackendChoice, LabelSource, LoadError, LoadOptions, Loaded, ModelSource};
use vision::{Colour, Matrix, Picture, Plane, Planes};

/// A file of `tests/models`.
pub(crate) fn model(name: &str) -> ModelSource {
    ModelSource::File(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name))
}

pub(crate) const LABELS: LabelSource = LabelSource::BuiltIn("person\nvehicle");

pub(crate) fn rten() -> LoadOptions {
    LoadOptions { backend: BackendChoice::Rten, ..LoadOptions::default() }
}

/// Options that use the real ONNX Runtime.
pub(crate) fn ort() -> LoadOptions {
    LoadOptions { backend: BackendChoice::Ort, library: Some(onnxruntime()), ..LoadOptions::default() }
}

pub(crate) fn load(model_file: &str, options: &LoadOptions) -> Result<Loaded, LoadError> {
    detect::load(&model(model_file), &LABELS, options)
}

/// A real libonnxruntime: the one that KVS_EDGE_TEST_ONNXRUNTIME names, else the one in `target/onnxruntime`.
pub(crate) fn onnxruntime() -> PathBuf {
    if let Some(named) = std::env::var_os("KVS_EDGE_TEST_ONNXRUNTIME") {
        return named.into();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/onnxruntime/onnxruntime/capi");
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = files.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
    });
    found.max().unwrap_or_else(|| {
        panic!(
            "no libonnxruntime in {}: run `python3 -m pip install --target target/onnxruntime onnxruntime==1.31.1` in \
             the root of the repository, or name one in KVS_EDGE_TEST_ONNXRUNTIME",
            folder.display()
        )
    })
}

pub(crate) const RED: [u8; 3] = [76, 85, 255];
pub(crate) const BLUE: [u8; 3] = [29, 255, 107];
pub(crate) const WHITE: [u8; 3] = [255, 128, 128];
pub(crate) const BLACK: [u8; 3] = [0, 128, 128];

/// A black picture, full range BT.601, even sides, in planes of Y, U, V.
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    planes: [Vec<u8>; 3],
    interleaved: Vec<u8>,
}

impl Canvas {
    pub(crate) fn new(width: usize, height: usize) -> Canvas {
        let mut canvas =
            Canvas { width, height, planes: Default::default(), interleaved: vec![128; width * height / 2] };
        canvas.planes =
            [vec![0; width * height], vec![128; width * height / 4], vec![128; width * height / 4]];
        canvas
    }

    /// Paints a rectangle; all numbers even.
    pub(crate) fn paint(mut self, [x, y, w, h]: [usize; 4], colour: [u8; 3]) -> Canvas {
        for row in y..y + h {
            self.planes[0][row * self.width + x..][..w].fill(colour[0]);
        }
        for row in y / 2..(y + h) / 2 {
            for column in x / 2..(x + w) / 2 {
                let at = row * self.width / 2 + column;
                (self.planes[1][at], self.planes[2][at]) = (colour[1], colour[2]);
                self.interleaved[2 * at..][..2].copy_from_slice(&colour[1..]);
            }
        }
        self
    }

    /// Paints patch (`column`, `row`) of a grid of 4 x 2, which is what the models look at.
    pub(crate) fn patch(self, column: usize, row: usize, colour: [u8; 3]) -> Canvas {
        let (w, h) = (self.width / 4, self.height / 2);
        self.paint([column * w, row * h, w, h], colour)
    }

    pub(crate) fn i420(&self) -> Picture<'_> {
        let [y, u, v] = &self.planes;
        let plane = |bytes, stride| Plane { bytes, stride };
        self.picture(Planes::I420 {
            y: plane(y, self.width),
            u: plane(u, self.width / 2),
            v: plane(v, self.width / 2),
        })
    }

    pub(crate) fn nv12(&self) -> Picture<'_> {
        self.picture(Planes::Nv12 {
            y: Plane { bytes: &self.planes[0], stride: self.width },
            uv: Plane { bytes: &self.interleaved, stride: self.width },
        })
    }

    fn picture<'a>(&self, planes: Planes<'a>) -> Picture<'a> {
        let colour = Colour { matrix: Matrix::Bt601, full_range: true };
        Picture::new(self.width, self.height, planes, colour).expect("the planes are large enough")
    }
}
