use std::cell::RefCell;

use proptest::prelude::*;
use rten::ModelOptions;
use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, TypeProtoTensor, ValueInfoProto,
};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use super::*;
use crate::onnx::read_header;

/// A graph with the input `x` and the output `y`.
struct Sketch {
    map: Map,
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    state: u32,
}

fn port(name: &str, sides: &[usize]) -> ValueInfoProto {
    let side = |&size: &usize| Dimension { dim_value: i64::try_from(size).ok(), dim_param: None };
    let shape = TensorShapeProto { dim: sides.iter().map(side).collect() };
    let tensor = TypeProtoTensor { elem_type: Some(DataType::FLOAT), shape: Some(shape) };
    let kind = TypeProto { tensor_type: Some(tensor), sequence: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind) }
}

fn integers(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.to_vec(),
        r#type: Some(AttributeType::INTS),
        ..AttributeProto::default()
    }
}

fn axis(value: i64) -> AttributeProto {
    AttributeProto {
        name: Some("axis".to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::INT),
        ..AttributeProto::default()
    }
}

impl Sketch {
    fn new(channels: usize, height: usize, width: usize) -> Sketch {
        Sketch { map: Map { channels, height, width }, nodes: Vec::new(), weights: Vec::new(), state: 1 }
    }

    fn noise(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u8::try_from(self.state >> 24).expect("a byte")) / 255.0 - 0.5
    }

    fn tensor(&mut self, name: &str, sides: &[i64]) {
        let count: i64 = sides.iter().product();
        let bytes = (0..count).flat_map(|_| self.noise().to_le_bytes()).collect();
        self.weights.push(TensorProto {
            name: Some(name.to_owned()),
            dims: sides.to_vec(),
            data_type: Some(DataType::FLOAT),
            raw_data: Some(RefCell::new(bytes)),
            ..TensorProto::default()
        });
    }

    fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> Sketch {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (input, output) = (names(inputs), names(outputs));
        let op_type = Some(op.to_owned());
        self.nodes.push(NodeProto { op_type, input, output, attribute, ..NodeProto::default() });
        self
    }

    /// With the weights `[filters, channels, rows, columns]`, padded by half of the kernel, and a bias.
    fn conv(mut self, input: &str, output: &str, sides: [i64; 4], stride: i64) -> Sketch {
        let (weights, bias) = (format!("{output}.w"), format!("{output}.b"));
        self.tensor(&weights, &sides);
        self.tensor(&bias, &sides[..1]);
        let [_, _, rows, columns] = sides;
        let pads = integers("pads", &[rows / 2, columns / 2, rows / 2, columns / 2]);
        let strides = integers("strides", &[stride, stride]);
        let size = integers("kernel_shape", &[rows, columns]);
        self.node("Conv", &[input, &weights, &bias], &[output], vec![size, pads, strides])
    }

    fn file(self) -> Vec<u8> {
        let Map { channels, height, width } = self.map;
        let graph = GraphProto {
            node: self.nodes,
            initializer: self.weights,
            input: vec![port("x", &[1, channels, height, width])],
            output: vec![port("y", &[])],
            value_info: Vec::new(),
        };
        let opset = OperatorSetIdProto { domain: None, version: Some(13) };
        let model = ModelProto {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![opset],
            ..ModelProto::default()
        };
        model.write_buf().expect("it is written")
    }
}

fn run(file: Vec<u8>, map: Map) -> Tensor<f32> {
    let model = ModelOptions::with_all_ops().load(file).expect("rten loads it");
    let mut sketch = Sketch::new(1, 1, 1);
    let values: Vec<f32> = (0..map.channels * map.pixels()).map(|_| sketch.noise()).collect();
    let input = NdTensor::from_data([1, map.channels, map.height, map.width], values);
    let (from, to) = (model.node_id("x").expect("an input"), model.node_id("y").expect("an output"));
    let [output] = model.run_n(vec![(from, input.view().into())], [to], None).expect("it runs");
    output.try_into().expect("floats")
}

/// Operators of the graph written anew; it computes the same.
fn same(sketch: Sketch, band_values: usize) -> Vec<String> {
    let map = sketch.map;
    let file = sketch.file();
    let written = rewrite_in_bands(&file, band_values).expect("something becomes faster");
    let graph = ModelProto::parse_buf(&written).expect("a model").graph.expect("a graph");
    let (expected, found) = (run(file, map), run(written, map));
    assert_eq!(found.shape(), expected.shape());
    let worst = found.iter().zip(expected.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
    graph.node.into_iter().filter_map(|node| node.op_type).collect()
}

fn count(ops: &[String], op: &str) -> usize {
    ops.iter().filter(|found| *found == op).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_convolution_of_any_size_computes_the_same(
        channels in 8_i64..12, filters in 1_i64..9, rows in 1_i64..6, columns in 1_i64..6,
        height in 5_usize..12, width in 5_usize..12, stride in 1_i64..4, band_values in 1_usize..20_000,
    ) {
        prop_assume!(rows * columns > 1);
        let sketch = Sketch::new(usize::try_from(channels).expect("few"), height, width);
        let ops = same(sketch.conv("x", "y", [filters, channels, rows, columns], stride), band_values);
        prop_assert_eq!(count(&ops, "Conv"), 0);
        prop_assert_eq!(count(&ops, "Gather"), count(&ops, "MatMul"));
    }

    #[test]
    fn no_bytes_make_it_panic(at in 0_usize..10_000, byte: u8, noise: Vec<u8>) {
        let mut file = Sketch::new(8, 6, 6).conv("x", "y", [4, 8, 3, 3], 1).file();
        let len = file.len();
        file[at % len] = byte;
        for file in [file, noise] {
            // Whoever loads a model has done this before.
            if read_header(&file).is_ok() {
                let _ = rewrite(&file);
            }
        }
    }
}

/// Convolutions of many channels one after another, as in the blocks of all detectors.
fn block() -> Sketch {
    Sketch::new(3, 24, 20)
        .conv("x", "a", [16, 3, 3, 3], 2)
        .node("Relu", &["a"], &["b"], Vec::new())
        .conv("b", "c", [16, 16, 3, 3], 1)
        .node("Sigmoid", &["c"], &["c.s"], Vec::new())
        .node("Mul", &["c", "c.s"], &["d"], Vec::new())
        .node("Split", &["d"], &["e", "f"], vec![axis(1)])
        .conv("e", "g", [8, 8, 3, 3], 1)
        .node("Add", &["g", "f"], &["h"], Vec::new())
        .node("Concat", &["f", "h", "b"], &["i"], vec![axis(1)])
        .conv("i", "j", [24, 32, 1, 1], 1)
}

#[test]
fn what_works_on_values_and_channels_stays_with_the_pixels() {
    let ops = same(block().conv("j", "k", [8, 24, 3, 3], 2).node("Relu", &["k"], &["y"], Vec::new()), 4096);
    // The first has too few channels. There is one way from planes to pixels, and one back.
    assert_eq!((count(&ops, "Conv"), count(&ops, "Transpose")), (1, 2), "{ops:?}");
    assert!(count(&ops, "Gather") > 3, "{ops:?}");
}

#[test]
fn what_reads_planes_gets_them() {
    let pool = |sketch: Sketch| {
        let size =
            vec![integers("kernel_shape", &[3, 3]), integers("strides", &[1; 2]), integers("pads", &[1; 4])];
        sketch.node("MaxPool", &["j"], &["k"], size)
    };
    let ops = same(pool(block()).conv("k", "y", [8, 24, 3, 3], 1), BAND_VALUES);
    assert_eq!((count(&ops, "Conv"), count(&ops, "MaxPool")), (1, 1), "{ops:?}");

    // Resized by fixed weights on either side; added to a map of pixels.
    let mut resized = pool(block());
    resized.tensor("across", &[10, 20]);
    resized.tensor("down", &[24, 12]);
    resized.tensor("half", &[]);
    let resized = resized
        .node("MatMul", &["k", "across"], &["l"], Vec::new())
        .node("MatMul", &["down", "l"], &["m"], Vec::new())
        .conv("j", "n", [24, 24, 3, 3], 1)
        .node("Mul", &["n", "half"], &["n.h"], Vec::new())
        .node("MatMul", &["n.h", "across"], &["o"], Vec::new())
        .node("MatMul", &["down", "o"], &["p"], Vec::new())
        .conv("p", "q", [24, 24, 3, 3], 1)
        .node("Add", &["m", "q"], &["r"], Vec::new())
        .conv("r", "y", [8, 24, 3, 3], 1);
    let ops = same(resized, BAND_VALUES);
    assert_eq!(count(&ops, "Conv"), 1, "{ops:?}");

    // Softmax works along an axis; the graph's output is one of the values inside, too.
    let sum = same(
        Sketch::new(8, 6, 5)
            .conv("x", "a", [8, 8, 3, 3], 1)
            .node("Softmax", &["a"], &["s"], vec![axis(1)])
            .node("Add", &["a", "s"], &["y"], Vec::new()),
        BAND_VALUES,
    );
    assert_eq!(count(&sum, "Softmax"), 1);
}

#[test]
fn what_would_not_become_faster_is_left_as_it_is() {
    let left = |sketch: Sketch| assert_eq!(rewrite(&sketch.file()), None);
    left(Sketch::new(3, 24, 20).conv("x", "y", [16, 3, 3, 3], 2));
    left(Sketch::new(16, 24, 20).conv("x", "y", [16, 16, 1, 1], 1));
    // Groups; weights that are no constants; channels that do not fit.
    let mut groups = Sketch::new(16, 8, 8);
    groups.tensor("w", &[16, 1, 3, 3]);
    let mut group = axis(16);
    group.name = Some("group".to_owned());
    left(groups.node("Conv", &["x", "w"], &["y"], vec![group]));
    left(Sketch::new(16, 8, 8).node("Conv", &["x", "x"], &["y"], Vec::new()));
    left(Sketch::new(16, 8, 8).conv("x", "y", [16, 8, 3, 3], 1));
    // Any number of pictures.
    let mut model =
        ModelProto::parse_buf(&Sketch::new(8, 6, 6).conv("x", "y", [4, 8, 3, 3], 1).file()).unwrap();
    model.graph.as_mut().unwrap().input = vec![port("x", &[2, 8, 6, 6])];
    assert_eq!(rewrite(&model.write_buf().unwrap()), None);
}

#[test]
fn weights_in_half_precision_stay_so_and_are_held_once() {
    let mut sketch = Sketch::new(8, 7, 6);
    // 0.5, 0.25, -0.5, 1.0 as float16.
    let halves = [0x3800_u16, 0x3400, 0xb800, 0x3c00, 0x3800];
    let bytes: Vec<u8> = halves.iter().cycle().take(4 * 8 * 9).flat_map(|half| half.to_le_bytes()).collect();
    sketch.weights.push(TensorProto {
        name: Some("half".to_owned()),
        dims: vec![4, 8, 3, 3],
        data_type: Some(DataType::FLOAT16),
        raw_data: Some(RefCell::new(bytes.clone())),
        ..TensorProto::default()
    });
    let mut to = axis(1);
    to.name = Some("to".to_owned());
    let size = integers("kernel_shape", &[3, 3]);
    let sketch =
        sketch.node("Cast", &["half"], &["w"], vec![to]).node("Conv", &["x", "w"], &["y"], vec![size]);
    let file = sketch.file();
    let written = ModelProto::parse_buf(&rewrite(&file).expect("it becomes faster")).expect("a model");
    let graph = written.graph.expect("a graph");
    let halves: Vec<&TensorProto> =
        graph.initializer.iter().filter(|tensor| tensor.data_type == Some(DataType::FLOAT16)).collect();
    let [matrix] = halves[..] else { panic!("{halves:?}") };
    assert_eq!((matrix.dims.as_slice(), bytes.len()), (&[72, 4][..], 2 * 72 * 4));
    assert_eq!(graph.node.iter().filter(|node| node.op_type.as_deref() == Some("Cast")).count(), 1);
    let map = Map { channels: 8, height: 7, width: 6 };
    let (expected, found) = (run(file.clone(), map), run(rewrite(&file).expect("it becomes faster"), map));
    let worst = found.iter().zip(expected.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}
