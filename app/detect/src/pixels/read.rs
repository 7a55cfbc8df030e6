//! What the nodes of a graph say, as far as it is needed to tell the sizes of its maps.

use std::collections::HashMap;

use rten_onnx::onnx::{DataType, NodeProto, TensorProto, ValueInfoProto};

use super::{EACH, MAX_SIDE, Map, PAIRS};

/// Longest side of a kernel.
const MAX_KERNEL: usize = 64;

/// A tensor that is the same for each picture.
#[derive(Clone, Debug, Default)]
pub(super) struct Constant {
    pub sides: Vec<usize>,
    /// Its values, where they are a few integers.
    pub integers: Option<Vec<i64>>,
}

impl Constant {
    pub(super) fn new(tensor: &TensorProto) -> Option<Constant> {
        let sides: Option<Vec<usize>> =
            tensor.dims.iter().map(|&side| usize::try_from(side).ok().filter(|&side| side >= 1)).collect();
        let sides = sides?;
        let few = sides.iter().try_fold(1_usize, |all, &side| all.checked_mul(side))? <= 256;
        let integers = (few && tensor.data_type == Some(DataType::INT64)).then(|| match &tensor.raw_data {
            Some(raw) => raw.borrow().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect(),
            None => tensor.int64_data.clone(),
        });
        Some(Constant { sides, integers })
    }

    /// A single one, that has no axes to speak of.
    pub(super) fn is_number(&self) -> bool {
        matches!(self.sides[..], [] | [1])
    }
}

/// Weights `[filters, channels, rows, columns]` as `[rows * columns * channels, filters]`, of the same kind.
pub(super) fn as_matrix(weights: &TensorProto) -> Option<(DataType, Vec<u8>)> {
    let [filters, channels, rows, columns] = <[usize; 4]>::try_from(Constant::new(weights)?.sides).ok()?;
    let kind = weights.data_type?;
    let size = match kind {
        DataType::FLOAT => 4,
        DataType::FLOAT16 => 2,
        _ => return None,
    };
    let (raw, floats);
    let bytes: &[u8] = if let Some(cell) = &weights.raw_data {
        raw = cell.borrow();
        &raw
    } else {
        floats = weights.float_data.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        &floats
    };
    let taps = rows.checked_mul(columns)?;
    let count = [filters, channels, size].iter().try_fold(taps, |all, &side| all.checked_mul(side))?;
    if bytes.len() != count {
        return None;
    }
    let mut matrix = Vec::with_capacity(count);
    for tap in 0..taps {
        for channel in 0..channels {
            for filter in 0..filters {
                let at = ((filter * channels + channel) * taps + tap) * size;
                matrix.extend_from_slice(&bytes[at..at + size]);
            }
        }
    }
    Some((kind, matrix))
}

/// An input of the graph that is a map of one picture.
pub(super) fn input_map(input: &ValueInfoProto) -> Option<(String, Map)> {
    let tensor = input.r#type.as_ref()?.tensor_type.as_ref()?;
    let shape = tensor.shape.as_ref()?;
    let sides: Option<Vec<usize>> =
        shape.dim.iter().map(|side| side.dim_value.and_then(|size| usize::try_from(size).ok())).collect();
    match (tensor.elem_type, sides?.as_slice()) {
        (Some(DataType::FLOAT), &[1, channels, height, width]) => {
            Some((input.name.clone()?, Map::new(channels, height, width)?))
        }
        _ => None,
    }
}

/// Kernel, steps and padding of a convolution or pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Window {
    pub rows: usize,
    pub columns: usize,
    pub down: usize,
    pub across: usize,
    /// Top, left, bottom, right.
    pub padding: [usize; 4],
    /// Channels that come out.
    pub filters: usize,
}

impl Window {
    pub(super) fn taps(&self) -> usize {
        self.rows * self.columns
    }

    pub(super) fn is_padded(&self) -> bool {
        self.padding != [0; 4]
    }

    pub(super) fn is_single_pixel(&self) -> bool {
        self.taps() == 1 && self.down == 1 && self.across == 1 && !self.is_padded()
    }

    /// The map that comes out.
    pub(super) fn convolved(&self, map: Map) -> Option<Map> {
        let [top, left, bottom, right] = self.padding;
        let height = (map.height + top + bottom).checked_sub(self.rows)? / self.down + 1;
        let width = (map.width + left + right).checked_sub(self.columns)? / self.across + 1;
        Map::new(self.filters, height, width)
    }
}

pub(super) struct Node<'a>(pub &'a NodeProto);

impl<'a> Node<'a> {
    pub(super) fn op(&self) -> &'a str {
        self.0.op_type.as_deref().unwrap_or_default()
    }

    pub(super) fn is_standard(&self) -> bool {
        matches!(self.0.domain.as_deref(), None | Some("" | "ai.onnx"))
    }

    pub(super) fn input(&self, index: usize) -> Option<&'a str> {
        self.0.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Its only output.
    pub(super) fn output(&self) -> Option<&'a str> {
        match self.0.output.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.0.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))?.i
    }

    fn integers(&self, name: &str) -> Option<&'a [i64]> {
        let found = self.0.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))?;
        Some(&found.ints)
    }

    fn has(&self, name: &str) -> bool {
        self.0.attribute.iter().any(|attribute| attribute.name.as_deref() == Some(name))
    }

    /// Of a convolution of all channels by constant weights, or a pool.
    pub(super) fn window(&self, map: Map, constants: &HashMap<String, Constant>) -> Option<Window> {
        let plain = self.integers("dilations").is_none_or(|steps| steps.iter().all(|&step| step == 1))
            && self.integer("ceil_mode").unwrap_or(0) == 0
            && !self.has("auto_pad");
        let (rows, columns, filters) = if self.op() == "Conv" {
            let &[filters, channels, rows, columns] = constants.get(self.input(1)?)?.sides.as_slice() else {
                return None;
            };
            if channels != map.channels || self.integer("group").unwrap_or(1) != 1 {
                return None;
            }
            (rows, columns, filters)
        } else {
            let &[rows, columns] = self.integers("kernel_shape")? else { return None };
            (side(rows)?, side(columns)?, map.channels)
        };
        let [down, across] = match self.integers("strides") {
            None | Some([]) => [1, 1],
            Some(&[down, across]) => [side(down)?, side(across)?],
            Some(_) => return None,
        };
        let padding = match self.integers("pads") {
            None | Some([]) => [0; 4],
            Some(&[top, left, bottom, right]) => {
                [margin(top)?, margin(left)?, margin(bottom)?, margin(right)?]
            }
            Some(_) => return None,
        };
        let sound = plain && (1..=MAX_KERNEL).contains(&rows) && (1..=MAX_KERNEL).contains(&columns);
        sound.then_some(Window { rows, columns, down, across, padding, filters })
    }

    /// Channels of each output of a `Split` along them.
    pub(super) fn split_channels(
        &self,
        map: Map,
        constants: &HashMap<String, Constant>,
    ) -> Option<Vec<usize>> {
        let count = self.0.output.len();
        let sizes: Vec<usize> = match (self.input(1), self.integers("split")) {
            (Some(name), _) => {
                constants.get(name)?.integers.as_ref()?.iter().map(|&size| side(size)).collect()
            }
            (None, Some(sizes)) => sizes.iter().map(|&size| side(size)).collect(),
            (None, None) => {
                map.channels.is_multiple_of(count.max(1)).then(|| vec![map.channels / count; count])
            }
        }?;
        let whole = sizes.len() == count && sizes.iter().sum::<usize>() == map.channels;
        (whole && self.is_of_channels()).then_some(sizes)
    }

    /// Its axis is that of the channels.
    fn is_of_channels(&self) -> bool {
        self.integer("axis") == Some(1)
    }

    /// The size of what comes out first, where it is a map and that can be told.
    pub(super) fn output_map(
        &self,
        maps: &HashMap<String, Map>,
        constants: &HashMap<String, Constant>,
    ) -> Option<Map> {
        if !self.is_standard() {
            return None;
        }
        let first = || maps.get(self.input(0)?).copied();
        match self.op() {
            "Conv" | "MaxPool" | "AveragePool" => {
                let map = first()?;
                self.window(map, constants)?.convolved(map)
            }
            op if EACH.contains(&op) => first(),
            op if PAIRS.contains(&op) && self.0.input.len() == 2 => {
                let (a, b) = (self.input(0)?, self.input(1)?);
                let fits = |map: Map, other: &str| match (maps.get(other), constants.get(other)) {
                    (Some(&other), _) => other == map,
                    (None, Some(constant)) => {
                        constant.is_number() || constant.sides == [1, map.channels, 1, 1]
                    }
                    (None, None) => false,
                };
                match (maps.get(a), maps.get(b)) {
                    (Some(&map), _) if fits(map, b) => Some(map),
                    (None, Some(&map)) if fits(map, a) => Some(map),
                    _ => None,
                }
            }
            "Concat" => {
                let map = first()?;
                let mut channels = 0;
                for name in &self.0.input {
                    let part = maps.get(name)?;
                    if (part.height, part.width) != (map.height, map.width) {
                        return None;
                    }
                    channels += part.channels;
                }
                Map::new(channels, map.height, map.width).filter(|_| self.is_of_channels())
            }
            // Resizing, written as a product with fixed weights on either side.
            "MatMul" => {
                let (a, b) = (self.input(0)?, self.input(1)?);
                let weights = |name: &str| match constants.get(name)?.sides[..] {
                    [rows, columns] => Some((rows, columns)),
                    _ => None,
                };
                match (maps.get(a), maps.get(b)) {
                    (Some(map), None) => {
                        let (_, width) = weights(b).filter(|&(rows, _)| rows == map.width)?;
                        Map::new(map.channels, map.height, width)
                    }
                    (None, Some(map)) => {
                        let (height, _) = weights(a).filter(|&(_, columns)| columns == map.height)?;
                        Map::new(map.channels, height, map.width)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What is the same for each picture, where this node makes such a tensor.
    pub(super) fn constant(&self, constants: &HashMap<String, Constant>) -> Option<Constant> {
        match self.op() {
            "Constant" => {
                let value =
                    self.0.attribute.iter().find(|attribute| attribute.name.as_deref() == Some("value"));
                Constant::new(value?.t.as_ref()?)
            }
            // Weights are often stored in half precision.
            "Cast" if self.integer("to") != Some(i64::from(DataType::FLOAT.0)) => None,
            "Cast" | "Identity" => constants.get(self.input(0)?).cloned(),
            _ => None,
        }
    }
}

fn side(size: i64) -> Option<usize> {
    usize::try_from(size).ok().filter(|size| (1..=MAX_SIDE).contains(size))
}

fn margin(size: i64) -> Option<usize> {
    usize::try_from(size).ok().filter(|&size| size <= MAX_KERNEL)
}
