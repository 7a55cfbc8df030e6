//! Nodes and constants of the graph that is written.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use rten_onnx::onnx::{AttributeProto, AttributeType, DataType, NodeProto, TensorProto};

use super::Map;
use super::read::Window;

/// Begins all names that are new.
pub(super) const PREFIX: &str = "pixels:";

#[derive(Default)]
pub(super) struct Emitter {
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<TensorProto>,
    names: usize,
    /// Rows to gather, which convolutions of one size share.
    gathers: HashMap<(usize, usize, Window, usize, usize), String>,
}

impl Emitter {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("{PREFIX}{}", self.names)
    }

    fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.name();
        self.node_to(op, inputs, attributes, &output);
        output
    }

    fn node_to(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, output: &str) {
        self.nodes.push(NodeProto {
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    fn tensor(&mut self, sides: &[usize], kind: DataType, bytes: Vec<u8>) -> String {
        let name = self.name();
        self.initializers.push(TensorProto {
            name: Some(name.clone()),
            dims: sides.iter().map(|&side| integer(side)).collect(),
            data_type: Some(kind),
            raw_data: Some(RefCell::new(bytes)),
            ..TensorProto::default()
        });
        name
    }

    fn shape(&mut self, sides: &[usize]) -> String {
        let bytes = sides.iter().flat_map(|&side| integer(side).to_le_bytes()).collect();
        self.tensor(&[sides.len()], DataType::INT64, bytes)
    }

    fn reshaped(&mut self, value: &str, sides: &[usize]) -> String {
        let shape = self.shape(sides);
        self.node("Reshape", &[value, &shape], Vec::new())
    }

    /// `[pixels, channels]` of a map.
    pub(super) fn pixels(&mut self, planes: &str, map: Map) -> String {
        // Transposed first: what comes out is nobody else's, so that it changes its shape without a copy.
        let last = self.node("Transpose", &[planes], vec![integers("perm", &[0, 2, 3, 1])]);
        self.reshaped(&last, &[map.pixels(), map.channels])
    }

    /// The map `name` of its pixels.
    pub(super) fn planes(&mut self, pixels: &str, map: Map, name: &str) {
        let first = self.node("Transpose", &[pixels], vec![integers("perm", &[1, 0])]);
        let shape = self.shape(&[1, map.channels, map.height, map.width]);
        self.node_to("Reshape", &[&first, &shape], Vec::new(), name);
    }

    /// A matrix in float32 or float16, as float32.
    pub(super) fn matrix(&mut self, sides: [usize; 2], kind: DataType, bytes: Vec<u8>) -> String {
        let matrix = self.tensor(&sides, kind, bytes);
        if kind == DataType::FLOAT {
            return matrix;
        }
        self.node("Cast", &[&matrix], vec![number("to", i64::from(DataType::FLOAT.0))])
    }

    /// With a pixel of zeros behind the last, for what lies outside of the map.
    pub(super) fn padded(&mut self, pixels: &str, map: Map, window: &Window) -> String {
        if !window.is_padded() {
            return pixels.to_owned();
        }
        let zeros = self.tensor(&[1, map.channels], DataType::FLOAT, vec![0; 4 * map.channels]);
        self.node("Concat", &[pixels, &zeros], vec![number("axis", 0)])
    }

    /// The same pixels, for the next band. rten does what can be done in place last, and what it can do first at once: if
    /// all bands read the same value it would gather all of them before the first product, and need memory for all. Two
    /// such steps, which cost nothing, are what the product of the band before it takes to come first.
    pub(super) fn after_band(&mut self, padded: &str, map: Map, window: &Window) -> String {
        let pixels = map.pixels() + usize::from(window.is_padded());
        let flat = self.reshaped(padded, &[pixels * map.channels]);
        self.reshaped(&flat, &[pixels, map.channels])
    }

    /// The pixels under the kernel for each place of these rows of a map `width` wide, one behind another.
    pub(super) fn gathered(
        &mut self,
        padded: &str,
        map: Map,
        window: &Window,
        width: usize,
        rows: Range<usize>,
    ) -> String {
        let places = rows.len() * width;
        // Of no matter for where they are.
        let key = (map.height, map.width, Window { filters: 0, ..*window }, rows.start, rows.end);
        let which = if let Some(found) = self.gathers.get(&key) {
            found.clone()
        } else {
            let bytes = rows
                .flat_map(|y| (0..width).map(move |x| (y, x)))
                .flat_map(|(y, x)| under_kernel(map, window, y, x))
                .flat_map(|pixel| i32::try_from(pixel).unwrap_or(i32::MAX).to_le_bytes())
                .collect();
            let name = self.tensor(&[places, window.taps()], DataType::INT32, bytes);
            self.gathers.insert(key, name.clone());
            name
        };
        let gathered = self.node("Gather", &[padded, &which], vec![number("axis", 0)]);
        self.reshaped(&gathered, &[places, window.taps() * map.channels])
    }

    pub(super) fn product(&mut self, rows: &str, weights: &str, bias: Option<&str>) -> String {
        let product = self.node("MatMul", &[rows, weights], Vec::new());
        match bias {
            Some(bias) => self.node("Add", &[&product, bias], Vec::new()),
            None => product,
        }
    }

    /// Bands of rows, one below another.
    pub(super) fn stacked(&mut self, parts: Vec<String>) -> String {
        match <[String; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.node("Concat", &parts, vec![number("axis", 0)])
            }
        }
    }

    /// The same node, with these inputs replaced. Returns the names of its outputs.
    pub(super) fn on_pixels(
        &mut self,
        node: &NodeProto,
        replaced: &[(usize, String)],
        outputs: usize,
    ) -> Vec<String> {
        let mut node = node.clone();
        for (index, name) in replaced {
            node.input[*index].clone_from(name);
        }
        node.output = (0..outputs).map(|_| self.name()).collect();
        let names = node.output.clone();
        self.nodes.push(node);
        names
    }
}

/// Numbers of the pixels; that of the zeros where there is none.
fn under_kernel(map: Map, window: &Window, y: usize, x: usize) -> impl Iterator<Item = usize> {
    let window = *window;
    let [top, left, ..] = window.padding;
    let inside = |at: usize, before: usize, size: usize| at.checked_sub(before).filter(|&at| at < size);
    (0..window.rows).flat_map(move |row| {
        let row = inside(y * window.down + row, top, map.height);
        (0..window.columns).map(move |column| {
            match (row, inside(x * window.across + column, left, map.width)) {
                (Some(row), Some(column)) => row * map.width + column,
                _ => map.pixels(),
            }
        })
    })
}

fn integer(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn number(name: &str, value: i64) -> AttributeProto {
    let (name, r#type) = (Some(name.to_owned()), Some(AttributeType::INT));
    AttributeProto { name, i: Some(value), r#type, ..AttributeProto::default() }
}

fn integers(name: &str, values: &[i64]) -> AttributeProto {
    let (name, r#type) = (Some(name.to_owned()), Some(AttributeType::INTS));
    AttributeProto { name, ints: values.to_vec(), r#type, ..AttributeProto::default() }
}
