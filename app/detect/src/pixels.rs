//! Convolutions as products of rows of pixels, for rten.
//!
//! rten gathers the input of a convolution value by value, channels outermost: half a nanosecond each, as much as half of
//! what a detector costs. Where a map lies with its channels innermost, `[pixels, channels]`, all channels of a pixel are
//! one piece of memory: rten's `Gather` copies them as such, and a convolution is a product of rows (the pixels under the
//! kernel, one behind another) with its weights.
//!
//! ```text
//!  x [1, C, H, W] --Transpose--> [H*W, C] --Gather--> [rows*W, 9*C] --MatMul--> [rows*W, K] --Concat--> [H*W, K]
//!                                   ^        bands of rows, for the cache and the memory                   |
//!                                   +---- LeakyRelu, Add, Concat, Split ... work on this as well ---------+
//! ```
//!
//! This module writes a model anew in this form before rten reads it. What works on single values or on channels stays
//! with the pixels; whatever else reads such a map gets it back as `[1, channels, height, width]`. A model of which
//! nothing is known to become faster (open sizes, batches, groups, no convolution of many channels) is left as it is.
//! ONNX Runtime, which gathers nothing, runs the file as it was written.

mod emit;
mod read;

use std::collections::{HashMap, HashSet};

use rten_onnx::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};

use emit::Emitter;
use read::{Constant, Node};

/// Channels below which a piece is too short to be worth a copy of its own.
const MIN_CHANNELS: usize = 8;
/// Values of one band, 2 MiB: the memory that this costs, and little enough to be near when the product reads it.
const BAND_VALUES: usize = 1 << 19;
/// Pixels that one convolution may gather; a detector of 640x640 has a million where it has most.
const MAX_GATHERED: usize = 1 << 21;
/// Longest side of a map, and most channels.
const MAX_SIDE: usize = 1 << 15;
/// Largest map.
const MAX_VALUES: usize = 1 << 30;
/// Largest file that is held in memory a few times for this.
const MAX_FILE_BYTES: usize = 64 << 20;

/// A value of shape `[1, channels, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Map {
    channels: usize,
    height: usize,
    width: usize,
}

impl Map {
    fn new(channels: usize, height: usize, width: usize) -> Option<Map> {
        let sides = [channels, height, width];
        let values = sides.iter().try_fold(1_usize, |all, &side| all.checked_mul(side))?;
        let sound = sides.iter().all(|side| (1..=MAX_SIDE).contains(side)) && values <= MAX_VALUES;
        sound.then_some(Map { channels, height, width })
    }

    fn pixels(self) -> usize {
        self.height * self.width
    }
}

/// The model written anew; nothing where it is best left as it is.
pub(crate) fn rewrite(file: &[u8]) -> Option<Vec<u8>> {
    if file.len() > MAX_FILE_BYTES {
        return None;
    }
    rewrite_in_bands(file, BAND_VALUES)
}

fn rewrite_in_bands(file: &[u8], band_values: usize) -> Option<Vec<u8>> {
    let mut model = ModelProto::parse_buf(file).ok()?;
    let mut graph = model.graph.take()?;
    model.graph = Some(Rewriter::new(&mut graph, band_values)?.graph(graph)?);
    model.write_buf().ok()
}

/// What is known of the values written so far.
struct Rewriter {
    band_values: usize,
    out: Emitter,
    /// Tensors of the file, and which of them a value is, perhaps in another precision.
    stored: Vec<TensorProto>,
    sources: HashMap<String, usize>,
    constants: HashMap<String, Constant>,
    /// Weights as a matrix, by their names in the file.
    matrices: HashMap<String, String>,
    maps: HashMap<String, Map>,
    /// Names of the `[pixels, channels]` forms that there are.
    pixels: HashMap<String, String>,
    /// Values that there are only as pixels so far.
    only_pixels: HashSet<String>,
    convolutions: usize,
}

impl Rewriter {
    fn new(graph: &mut GraphProto, band_values: usize) -> Option<Rewriter> {
        let nodes = &graph.node;
        let foreign = |name: &String| name.starts_with(emit::PREFIX);
        // Graphs inside a graph read values that they do not list.
        let nested = nodes.iter().any(|node| node.attribute.iter().any(|attribute| attribute.g.is_some()));
        let silent = nodes.iter().any(|node| node.output.is_empty());
        if nested || silent || nodes.iter().any(|node| node.output.iter().any(foreign)) {
            return None;
        }
        let stored = std::mem::take(&mut graph.initializer);
        let named = || stored.iter().filter_map(|tensor| Some((tensor.name.clone()?, tensor)));
        let sources = named().zip(0..).map(|((name, _), index)| (name, index)).collect();
        let constants: HashMap<String, Constant> =
            named().filter_map(|(name, tensor)| Some((name, Constant::new(tensor)?))).collect();
        let inputs = graph.input.iter().filter_map(read::input_map);
        let maps = inputs.filter(|(name, _)| !constants.contains_key(name)).collect();
        Some(Rewriter {
            band_values,
            out: Emitter::default(),
            stored,
            sources,
            constants,
            matrices: HashMap::new(),
            maps,
            pixels: HashMap::new(),
            only_pixels: HashSet::new(),
            convolutions: 0,
        })
    }

    fn graph(mut self, mut graph: GraphProto) -> Option<GraphProto> {
        for node in std::mem::take(&mut graph.node) {
            if self.as_pixels(&Node(&node)).is_none() {
                self.unchanged(node);
            }
        }
        for output in &graph.output {
            if let Some(name) = &output.name {
                self.need_planes(name);
            }
        }
        if self.convolutions == 0 {
            return None;
        }
        graph.node = self.out.nodes;
        graph.initializer = self.stored;
        graph.initializer.extend(self.out.initializers);
        // What it says of values that are gone is of no use, nor are weights in the form that nobody reads any more.
        graph.value_info.clear();
        let mut read: HashSet<&str> =
            graph.output.iter().filter_map(|output| output.name.as_deref()).collect();
        let mut kept = vec![false; graph.node.len()];
        for (node, kept) in graph.node.iter().zip(&mut kept).rev() {
            *kept = !self.sources.contains_key(&node.output[0]) || read.contains(node.output[0].as_str());
            if *kept {
                read.extend(node.input.iter().map(String::as_str));
            }
        }
        let kept_tensors: Vec<bool> = graph
            .initializer
            .iter()
            .map(|tensor| tensor.name.as_deref().is_none_or(|name| read.contains(name)))
            .collect();
        let (mut kept, mut kept_tensors) = (kept.into_iter(), kept_tensors.into_iter());
        graph.node.retain(|_| kept.next() != Some(false));
        graph.initializer.retain(|_| kept_tensors.next() != Some(false));
        Some(graph)
    }

    /// Writes the node so that it makes pixels; nothing where it cannot, or had better not.
    fn as_pixels(&mut self, node: &Node<'_>) -> Option<()> {
        if !node.is_standard() {
            return None;
        }
        match node.op() {
            "Conv" => self.convolution(node),
            op if EACH.contains(&op) => self.each(node),
            op if PAIRS.contains(&op) => self.pair(node),
            "Concat" => self.concat(node),
            "Split" => self.split(node),
            _ => None,
        }
    }

    /// Writes the node as it is, and what it reads in the form that it expects.
    fn unchanged(&mut self, node: NodeProto) {
        for name in &node.input {
            self.need_planes(name);
        }
        let view = Node(&node);
        if let Some(output) = node.output.first() {
            if let Some(map) = view.output_map(&self.maps, &self.constants) {
                self.maps.insert(output.clone(), map);
            }
            if let Some(constant) = view.constant(&self.constants) {
                self.constants.insert(output.clone(), constant);
                if let Some(&source) = view.input(0).and_then(|name| self.sources.get(name)) {
                    self.sources.insert(output.clone(), source);
                }
            }
        }
        self.out.nodes.push(node);
    }

    fn need_planes(&mut self, name: &str) {
        if self.only_pixels.remove(name)
            && let (Some(map), Some(pixels)) = (self.maps.get(name), self.pixels.get(name))
        {
            self.out.planes(pixels, *map, name);
        }
    }

    fn need_pixels(&mut self, name: &str, map: Map) -> String {
        if let Some(pixels) = self.pixels.get(name) {
            return pixels.clone();
        }
        let pixels = self.out.pixels(name, map);
        self.pixels.insert(name.to_owned(), pixels.clone());
        pixels
    }

    fn made(&mut self, output: &str, map: Map, pixels: String) {
        self.maps.insert(output.to_owned(), map);
        self.pixels.insert(output.to_owned(), pixels);
        self.only_pixels.insert(output.to_owned());
    }

    fn convolution(&mut self, node: &Node<'_>) -> Option<()> {
        let (input, output) = (node.input(0)?, node.output()?);
        let map = *self.maps.get(input)?;
        let window = node.window(map, &self.constants)?;
        let made = window.convolved(map)?;
        let single = window.is_single_pixel();
        // rten has a way of its own for these, as good from planes.
        let worth = if single { self.only_pixels.contains(input) } else { map.channels >= MIN_CHANNELS };
        let gathered = made.pixels().checked_mul(window.taps()).filter(|&count| count <= MAX_GATHERED)?;
        let bias = node.input(2);
        let fits = |name| self.constants.get(name).is_some_and(|bias| bias.sides == [made.channels]);
        if !worth || !bias.is_none_or(fits) {
            return None;
        }
        let weights = self.matrix(node.input(1)?, [window.taps() * map.channels, made.channels])?;
        let pixels = self.need_pixels(input, map);
        let name = if single {
            self.out.product(&pixels, &weights, bias)
        } else {
            let bands = gathered.saturating_mul(map.channels).div_ceil(self.band_values.max(1));
            let bands = bands.clamp(1, made.height);
            let mut padded = self.out.padded(&pixels, map, &window);
            let mut parts = Vec::new();
            for band in 0..bands {
                if band > 0 {
                    padded = self.out.after_band(&padded, map, &window);
                }
                let rows = made.height * band / bands..made.height * (band + 1) / bands;
                let gathered = self.out.gathered(&padded, map, &window, made.width, rows);
                parts.push(self.out.product(&gathered, &weights, bias));
            }
            self.out.stacked(parts)
        };
        self.made(output, made, name);
        self.convolutions += 1;
        Some(())
    }

    /// Weights as a matrix.
    fn matrix(&mut self, name: &str, sides: [usize; 2]) -> Option<String> {
        if let Some(found) = self.matrices.get(name) {
            return Some(found.clone());
        }
        let (kind, bytes) = read::as_matrix(&self.stored[*self.sources.get(name)?])?;
        let matrix = self.out.matrix(sides, kind, bytes);
        self.matrices.insert(name.to_owned(), matrix.clone());
        Some(matrix)
    }

    /// Of one map, each value for itself.
    fn each(&mut self, node: &Node<'_>) -> Option<()> {
        let (input, output) = (node.input(0)?, node.output()?);
        let map = *self.maps.get(input).filter(|_| self.only_pixels.contains(input))?;
        // Limits of a `Clip` and the like are single numbers.
        if !node.0.input[1..].iter().all(|name| name.is_empty() || self.is_number(name)) {
            return None;
        }
        let pixels = self.need_pixels(input, map);
        let name = self.out.on_pixels(node.0, &[(0, pixels)], 1).pop()?;
        self.made(output, map, name);
        Some(())
    }

    fn is_number(&self, name: &str) -> bool {
        self.constants.get(name).is_some_and(|constant| constant.is_number())
    }

    /// Of two maps of one size, or of one and a number.
    fn pair(&mut self, node: &Node<'_>) -> Option<()> {
        let (a, b, output) = (node.input(0)?, node.input(1)?, node.output()?);
        if node.0.input.len() != 2 || ![a, b].iter().any(|name| self.only_pixels.contains(*name)) {
            return None;
        }
        let map = *self.maps.get(a).or_else(|| self.maps.get(b))?;
        let mut replaced = Vec::new();
        for (index, name) in [a, b].into_iter().enumerate() {
            match self.maps.get(name) {
                Some(&other) if other == map => replaced.push((index, name)),
                None if self.is_number(name) => {}
                _ => return None,
            }
        }
        let replaced: Vec<_> =
            replaced.into_iter().map(|(index, name)| (index, self.need_pixels(name, map))).collect();
        let name = self.out.on_pixels(node.0, &replaced, 1).pop()?;
        self.made(output, map, name);
        Some(())
    }

    /// Of channels, which is the second axis in both forms.
    fn concat(&mut self, node: &Node<'_>) -> Option<()> {
        let output = node.output()?;
        let made = node.output_map(&self.maps, &self.constants)?;
        if !node.0.input.iter().any(|name| self.only_pixels.contains(name)) {
            return None;
        }
        let parts: Vec<_> = node.0.input.iter().map(|name| Some((name, *self.maps.get(name)?))).collect();
        let mut replaced = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let (name, map) = part?;
            replaced.push((index, self.need_pixels(name, map)));
        }
        let name = self.out.on_pixels(node.0, &replaced, 1).pop()?;
        self.made(output, made, name);
        Some(())
    }

    fn split(&mut self, node: &Node<'_>) -> Option<()> {
        let input = node.input(0)?;
        let map = *self.maps.get(input).filter(|_| self.only_pixels.contains(input))?;
        let parts = node.split_channels(map, &self.constants)?;
        let pixels = self.need_pixels(input, map);
        let names = self.out.on_pixels(node.0, &[(0, pixels)], parts.len());
        for ((output, channels), name) in node.0.output.iter().zip(parts).zip(names) {
            self.made(output, Map { channels, ..map }, name);
        }
        Some(())
    }
}

/// Operators of one map that work on each value for itself.
const EACH: [&str; 10] =
    ["LeakyRelu", "Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Clip", "Exp", "Softplus"];
/// Operators of two values of one shape.
const PAIRS: [&str; 6] = ["Add", "Mul", "Sub", "Div", "Max", "Min"];

#[cfg(test)]
mod tests;
