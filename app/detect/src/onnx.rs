//! Reads what an ONNX file says about itself: inputs, outputs, metadata.
//!
//! The backends could tell most of it, but each in its own words, and one of them turns float64 into float32 without
//! saying so. So that every refusal names the same thing in the same way, whatever backend runs the model, this module
//! walks the file once: it is a protobuf message (`onnx.proto`, IR version 3 to 12), of which few fields are needed.
//! Weights are skipped, nothing is copied but names, and every length is checked against what is left,
//! in what is of no interest here as well.

use std::collections::HashSet;

/// Element types of ONNX (`TensorProto.DataType`) that are told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    U8,
    F16,
    F64,
    /// By its number in `TensorProto.DataType`.
    Other(u64),
}

impl Element {
    fn new(number: u64) -> Element {
        match number {
            1 => Element::F32,
            2 => Element::U8,
            10 => Element::F16,
            11 => Element::F64,
            other => Element::Other(other),
        }
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Element::F32 => f.write_str("float32"),
            Element::U8 => f.write_str("uint8"),
            Element::F16 => f.write_str("float16"),
            Element::F64 => f.write_str("float64"),
            Element::Other(3) => f.write_str("int8"),
            Element::Other(6) => f.write_str("int32"),
            Element::Other(7) => f.write_str("int64"),
            Element::Other(16) => f.write_str("bfloat16"),
            Element::Other(number) => write!(f, "ONNX type {number}"),
        }
    }
}

/// One side of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    Fixed(usize),
    /// Decided by what is put in; with the name that the exporter gave it, which may be empty.
    Dynamic(String),
}

/// A shape as people write it: `[1, 3, height, 320]`, with `?` for a side without a name.
pub(crate) fn shape_text(shape: &[Dimension]) -> String {
    let sides: Vec<String> = shape
        .iter()
        .map(|side| match side {
            Dimension::Fixed(size) => size.to_string(),
            Dimension::Dynamic(name) if name.is_empty() => "?".to_owned(),
            Dimension::Dynamic(name) => name.clone(),
        })
        .collect();
    format!("[{}]", sides.join(", "))
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// Absent: not a tensor, or not said.
    pub element: Option<Element>,
    /// Absent: not said.
    pub shape: Option<Vec<Dimension>>,
}

/// What the file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Without those that have a default value in the file, as old exporters write it for each weight.
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Version of the standard operator set.
    pub opset: u64,
    pub metadata: Vec<(String, String)>,
    /// Weights in this other file, which a model of one file does not have.
    pub external_weights: Option<String>,
}

impl Header {
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    #[error("it is empty")]
    Empty,
    /// Text, a picture, a checkpoint of a training program.
    #[error("{0}")]
    Foreign(&'static str),
    #[error("broken off or damaged at byte {at} of {len}")]
    Damaged { at: usize, len: usize },
    #[error("it has no graph, so it is not an ONNX model")]
    NoGraph,
}

/// Longest name or metadata value that is kept, in bytes: `names` of thousands of labels fits.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Most inputs, outputs, metadata entries and dimensions that are read; a detector has a handful.
const MAX_ENTRIES: usize = 256;

pub fn read_header(file: &[u8]) -> Result<Header, OnnxError> {
    if file.is_empty() {
        return Err(OnnxError::Empty);
    }
    // Said by name, because these are the mistakes that people make.
    let known: [(&[u8], &str); 6] = [
        (b"PK\x03\x04", "it is a zip archive, perhaps a PyTorch checkpoint (.pt): export it to ONNX"),
        (b"\x7fELF", "it is a program or a library, not an ONNX model"),
        (b"version https://git-lfs", "it is a git-lfs pointer: the model itself was not fetched"),
        (b"<", "it is a web page or XML, not an ONNX model"),
        (b"{", "it is JSON, not an ONNX model"),
        (b"ftrt", "it is a TensorRT plan, not an ONNX model"),
    ];
    if let Some((_, what)) = known.iter().find(|(start, _)| file.starts_with(start)) {
        return Err(OnnxError::Foreign(what));
    }
    if file
        .iter()
        .take(256)
        .all(|&byte| byte == b'\n' || byte == b'\r' || byte == b'\t' || (32..127).contains(&byte))
    {
        return Err(OnnxError::Foreign("it is text, not an ONNX model"));
    }
    let mut header = Header::default();
    let mut with_default = HashSet::new();
    let mut graphs = 0;
    // ModelProto
    let mut fields = Fields::new(file, 0, file.len());
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (7, Value::Bytes(graph)) => {
                graphs += 1;
                graph_proto(graph, &mut header, &mut with_default)?;
            }
            (8, Value::Bytes(opset)) => opset_import(opset, &mut header)?,
            (14, Value::Bytes(entry)) if header.metadata.len() < MAX_ENTRIES => {
                let (mut key, mut text) = (String::new(), String::new());
                let mut fields = entry.fields();
                while let Some((number, value)) = fields.next()? {
                    match (number, value) {
                        (1, Value::Bytes(bytes)) => key = bytes.text(),
                        (2, Value::Bytes(bytes)) => text = bytes.text(),
                        _ => {}
                    }
                }
                header.metadata.push((key, text));
            }
            _ => {}
        }
    }
    if graphs != 1 {
        return Err(OnnxError::NoGraph);
    }
    header.inputs.retain(|input| !with_default.contains(&input.name));
    check(Fields::new(file, 0, file.len()), Message::Model, 0)?;
    Ok(header)
}

/// Messages whose fields the backends read.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Sequence,
    /// Without messages inside.
    Plain,
}

impl Message {
    /// What field `number` of this message is.
    fn field(self, number: u64) -> Option<Message> {
        use Message::{
            Attribute, Graph, Model, Node, Plain, Sequence, Shape, Tensor, TensorType, Type, ValueInfo,
        };
        match (self, number) {
            (Model, 7) | (Attribute, 6) => Some(Graph),
            (Model, 8 | 14) | (Tensor, 13) | (Shape, 1) => Some(Plain),
            (Graph, 1) => Some(Node),
            (Graph, 5) | (Attribute, 5) => Some(Tensor),
            (Graph, 11..=13) => Some(ValueInfo),
            (Node, 5) => Some(Attribute),
            (ValueInfo, 2) | (Sequence, 1) => Some(Type),
            (Type, 1) => Some(TensorType),
            (Type, 4) => Some(Sequence),
            (TensorType, 2) => Some(Shape),
            _ => None,
        }
    }
}

/// Deepest graph inside a graph, counted in messages.
const MAX_DEPTH: usize = 64;

/// Every length in the file is within what it is a part of. rten trusts them: one that reaches around the end of all
/// numbers takes it back in the file, for ever.
fn check(mut fields: Fields<'_>, message: Message, depth: usize) -> Result<(), OnnxError> {
    while let Some((number, value)) = fields.next()? {
        if let (Some(inner), Value::Bytes(bytes)) = (message.field(number), value) {
            if depth == MAX_DEPTH {
                return Err(fields.damaged());
            }
            check(bytes.fields(), inner, depth + 1)?;
        }
    }
    Ok(())
}

fn opset_import(opset: Slice<'_>, header: &mut Header) -> Result<(), OnnxError> {
    let (mut standard, mut version) = (true, 0);
    let mut fields = opset.fields();
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(domain)) => standard = domain.bytes.is_empty() || domain.bytes == b"ai.onnx",
            (2, Value::Varint(number)) => version = number,
            _ => {}
        }
    }
    if standard {
        header.opset = version;
    }
    Ok(())
}

fn graph_proto(
    graph: Slice<'_>,
    header: &mut Header,
    with_default: &mut HashSet<String>,
) -> Result<(), OnnxError> {
    let mut fields = graph.fields();
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (5, Value::Bytes(weights)) => initializer(weights, header, with_default)?,
            // Old files list every weight here.
            (11, Value::Bytes(port)) if header.inputs.len() < 65_536 => header.inputs.push(value_info(port)?),
            (12, Value::Bytes(port)) if header.outputs.len() < MAX_ENTRIES => {
                header.outputs.push(value_info(port)?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// `TensorProto`: only its name, and where its data is.
fn initializer(
    weights: Slice<'_>,
    header: &mut Header,
    with_default: &mut HashSet<String>,
) -> Result<(), OnnxError> {
    let mut fields = weights.fields();
    let (mut location, mut elsewhere) = (String::new(), false);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (8, Value::Bytes(name)) => {
                with_default.insert(name.text());
            }
            (13, Value::Bytes(entry)) => {
                let (mut key, mut text) = (String::new(), String::new());
                let mut fields = entry.fields();
                while let Some((number, value)) = fields.next()? {
                    match (number, value) {
                        (1, Value::Bytes(bytes)) => key = bytes.text(),
                        (2, Value::Bytes(bytes)) => text = bytes.text(),
                        _ => {}
                    }
                }
                if key == "location" {
                    location = text;
                }
            }
            (14, Value::Varint(1)) => elsewhere = true,
            _ => {}
        }
    }
    if elsewhere && header.external_weights.is_none() {
        header.external_weights = Some(location);
    }
    Ok(())
}

/// `ValueInfoProto`.
fn value_info(port: Slice<'_>) -> Result<Port, OnnxError> {
    let mut found = Port { name: String::new(), element: None, shape: None };
    let mut fields = port.fields();
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(name)) => found.name = name.text(),
            (2, Value::Bytes(kind)) => {
                let mut fields = kind.fields();
                while let Some((number, value)) = fields.next()? {
                    if let (1, Value::Bytes(tensor)) = (number, value) {
                        tensor_type(tensor, &mut found)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// `TypeProto.Tensor`.
fn tensor_type(tensor: Slice<'_>, port: &mut Port) -> Result<(), OnnxError> {
    let mut fields = tensor.fields();
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Varint(element)) => port.element = Some(Element::new(element)),
            (2, Value::Bytes(shape)) => {
                let mut sides = Vec::new();
                let mut fields = shape.fields();
                while let Some((number, value)) = fields.next()? {
                    if let (1, Value::Bytes(side)) = (number, value)
                        && sides.len() < MAX_ENTRIES
                    {
                        sides.push(dimension(side)?);
                    }
                }
                port.shape = Some(sides);
            }
            _ => {}
        }
    }
    Ok(())
}

fn dimension(side: Slice<'_>) -> Result<Dimension, OnnxError> {
    let mut found = Dimension::Dynamic(String::new());
    let mut fields = side.fields();
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            // Exporters write 0 and -1 for what they do not know.
            (1, Value::Varint(size)) => match usize::try_from(size) {
                Ok(size) if (1..=1 << 31).contains(&size) => found = Dimension::Fixed(size),
                _ => found = Dimension::Dynamic(String::new()),
            },
            (2, Value::Bytes(name)) => found = Dimension::Dynamic(name.text()),
            _ => {}
        }
    }
    Ok(found)
}

/// Bytes of the file, and where they begin in it.
#[derive(Clone, Copy)]
struct Slice<'a> {
    bytes: &'a [u8],
    at: usize,
    len: usize,
}

impl<'a> Slice<'a> {
    fn fields(self) -> Fields<'a> {
        Fields::new(self.bytes, self.at, self.len)
    }

    fn text(self) -> String {
        let end = self.bytes.len().min(MAX_TEXT_BYTES);
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }
}

enum Value<'a> {
    Varint(u64),
    Bytes(Slice<'a>),
    /// Four or eight bytes, which no field read here has.
    Fixed,
}

/// The fields of one message, one after another.
struct Fields<'a> {
    rest: &'a [u8],
    /// Position of `rest` in the file, and its length, for messages.
    at: usize,
    len: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], at: usize, len: usize) -> Fields<'a> {
        Fields { rest: bytes, at, len }
    }

    fn damaged(&self) -> OnnxError {
        OnnxError::Damaged { at: self.at, len: self.len }
    }

    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, OnnxError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| self.damaged())?;
                let at = self.at;
                Value::Bytes(Slice { bytes: self.take(length)?, at, len: self.len })
            }
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            _ => return Err(self.damaged()),
        };
        match tag >> 3 {
            0 => Err(self.damaged()),
            number => Ok(Some((number, value))),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], OnnxError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.damaged());
        };
        self.rest = rest;
        self.at += length;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).expect("seven bits"));
        out.extend_from_slice(bytes);
        out
    }

    fn port(name: &str, element: u8, sides: &[&[u8]]) -> Vec<u8> {
        let shape: Vec<u8> = sides.iter().flat_map(|side| field(1, side)).collect();
        let tensor = [vec![1 << 3, element], field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    }

    fn model() -> Vec<u8> {
        let weights = [field(8, b"w"), field(9, &[0; 200])].concat();
        let graph = [
            field(5, &weights),
            field(11, &port("w", 1, &[])),
            field(11, &port("images", 1, &[&[8, 1], &[8, 3], &field(2, b"height"), &[8, 0x80, 2]])),
            field(12, &port("output0", 11, &[&[8, 1], &[8, 6], &[8, 0]])),
        ]
        .concat();
        [
            vec![8, 8],
            field(8, &[&field(1, b"")[..], &[16, 17]].concat()),
            field(7, &graph),
            field(14, &[field(1, b"names"), field(2, b"{0: 'person'}")].concat()),
        ]
        .concat()
    }

    #[test]
    fn inputs_outputs_and_metadata_are_found_and_weights_are_no_inputs() {
        let header = read_header(&model()).unwrap();
        let fixed = Dimension::Fixed;
        assert_eq!(header.opset, 17);
        assert_eq!(header.metadata("names"), Some("{0: 'person'}"));
        let height = Dimension::Dynamic("height".to_owned());
        let shape = vec![fixed(1), fixed(3), height, fixed(256)];
        assert_eq!(
            header.inputs,
            [Port { name: "images".into(), element: Some(Element::F32), shape: Some(shape.clone()) }]
        );
        assert_eq!(shape_text(&shape), "[1, 3, height, 256]");
        assert_eq!(header.outputs[0].element, Some(Element::F64));
        assert_eq!(shape_text(header.outputs[0].shape.as_ref().unwrap()), "[1, 6, ?]");
    }

    #[test]
    fn what_is_not_onnx_is_called_by_its_name() {
        assert_eq!(read_header(b""), Err(OnnxError::Empty));
        let foreign = |bytes: &[u8]| match read_header(bytes) {
            Err(OnnxError::Foreign(what)) => what,
            other => panic!("{bytes:?}: {other:?}"),
        };
        assert!(foreign(b"PK\x03\x04\0\0").contains("checkpoint"));
        assert!(foreign(b"person\nvehicle\n").contains("text"));
        assert!(foreign(b"version https://git-lfs.github.com/spec/v1\n").contains("pointer"));
        assert_eq!(read_header(&[8, 8]), Err(OnnxError::NoGraph));
        assert!(matches!(read_header(&[0; 40]), Err(OnnxError::Damaged { .. })));
    }

    #[test]
    fn a_model_that_is_broken_off_anywhere_is_refused() {
        let whole = model();
        for len in 0..whole.len() {
            // Between two fields of the outermost message a cut cannot be seen, except by what is missing.
            if let Ok(header) = read_header(&whole[..len]) {
                assert!(header.metadata.is_empty() && header.inputs.len() == 1, "{len}");
            }
        }
    }

    #[test]
    fn a_length_beyond_its_message_is_refused_wherever_it_is() {
        let with = |graph: &[u8]| [model(), field(7, graph)].concat();
        // Of a documentation, which nobody reads, 2^64 - 8 bytes: whoever adds that goes eight back.
        let length = [[0xf8].as_slice(), &[0xff; 8], &[1]].concat();
        let long = [vec![6 << 3 | 2], length].concat();
        let inside = |bytes: &[u8], path: &[u8]| {
            path.iter().rev().fold(bytes.to_vec(), |bytes, &number| field(number, &bytes))
        };
        for path in [&[1][..], &[1, 5], &[1, 5, 5], &[1, 5, 6], &[1, 5, 6, 1], &[5], &[13, 2, 1, 2, 1]] {
            // One graph is all there may be: what is wrong inside of it is found first.
            let found = check_file(&with(&inside(&long, path)));
            assert!(matches!(found, Err(OnnxError::Damaged { .. })), "{path:?}: {found:?}");
            assert_eq!(check_file(&with(&inside(&[6 << 3 | 2, 0], path))), Ok(()), "{path:?}");
        }
        let deep = (0..40).fold(Vec::new(), |graph, _| field(1, &field(5, &field(6, &graph))));
        assert!(matches!(check_file(&with(&deep)), Err(OnnxError::Damaged { .. })));
    }

    fn check_file(file: &[u8]) -> Result<(), OnnxError> {
        check(Fields::new(file, 0, file.len()), Message::Model, 0)
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..300, byte: u8, noise: Vec<u8>) {
            let mut bytes = model();
            let len = bytes.len();
            bytes[at % len] = byte;
            let _ = read_header(&bytes);
            let _ = read_header(&noise);
        }
    }
}
