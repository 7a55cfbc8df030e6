//! A fragment as the tree of its elements, as scripts for AWS's library walk it: `for element in document`, `element.id`,
//! `.name`, `.value`, `.offset`, `.size`, `.payloadOffset`, an index into the children. Nothing is looked at before it is
//! asked for.

use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use kvs_client::kvs::read::documents;
use media::mkv::ebml::{Header, parse_header};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyIterator, PyList};

use crate::HLSStreamError;
use crate::elements::{self, Kind};

/// What is deeper than any Matroska is none.
const DEPTH_LIMIT: usize = 16;

/// The bytes that a tree is of.
pub(crate) struct Text {
    document: documents::Document,
    bytes: OnceLock<Bytes>,
    /// The same as a file of Python, for scripts that seek in it.
    stream: Mutex<Option<Py<PyAny>>>,
}

impl Text {
    pub(crate) fn new(document: documents::Document) -> Self {
        Self { document, bytes: OnceLock::new(), stream: Mutex::default() }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get_or_init(|| self.document.bytes())
    }
}

/// Where an element stands in the document.
#[derive(Clone, Copy)]
struct Place {
    id: u32,
    at: usize,
    body: usize,
    end: usize,
}

type Walked<T> = Result<T, String>;

/// The elements from `at` to `end`.
fn walk(bytes: &[u8], mut at: usize, end: usize, depth: usize) -> Walked<Vec<Place>> {
    let mut found = Vec::new();
    while at < end {
        let place = place(bytes, at, end, depth)?;
        at = place.end;
        found.push(place);
    }
    Ok(found)
}

fn place(bytes: &[u8], at: usize, end: usize, depth: usize) -> Walked<Place> {
    if depth > DEPTH_LIMIT {
        return Err(format!("elements are nested more than {DEPTH_LIMIT} deep at byte {at}"));
    }
    let Header { id, size, length } = parse_header(&bytes[at..end])
        .map_err(|_| format!("no element begins at byte {at}: found {:#04x}", bytes[at]))?;
    let body = at + length;
    let until = match size {
        Some(size) => {
            let until = usize::try_from(size).ok().and_then(|size| body.checked_add(size));
            until.filter(|until| *until <= end).ok_or_else(|| {
                format!("the element at byte {at} claims {size} bytes, {} are left", end.saturating_sub(body))
            })?
        }
        None if id == elements::SEGMENT => open_end(bytes, body, end, depth, |id| id == elements::EBML)?,
        None if id == elements::CLUSTER => {
            open_end(bytes, body, end, depth, |id| elements::is_top(id) || id == elements::EBML)?
        }
        None => return Err(format!("element 0x{id:X} at byte {at} does not say its size")),
    };
    Ok(Place { id, at, body, end: until })
}

/// Where an element that does not say its size ends: before the first that cannot be in it.
fn open_end(
    bytes: &[u8],
    mut at: usize,
    end: usize,
    depth: usize,
    is_behind: fn(u32) -> bool,
) -> Walked<usize> {
    while at < end {
        let child = place(bytes, at, end, depth + 1)?;
        if is_behind(child.id) {
            break;
        }
        at = child.end;
    }
    Ok(at)
}

fn no_matroska(why: String) -> PyErr {
    HLSStreamError::new_err(format!("the fragment is no Matroska: {why}"))
}

/// A whole fragment: what stands on its top level, an EBML header and a Segment.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct Document {
    text: Arc<Text>,
}

/// One element: a master, which has others in it, or a value.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct Element {
    text: Arc<Text>,
    place: Place,
    depth: usize,
}

impl Document {
    pub(crate) fn new(text: Arc<Text>) -> Self {
        Self { text }
    }

    fn elements(&self) -> PyResult<Vec<Element>> {
        let bytes = self.text.bytes();
        let places = walk(bytes, 0, bytes.len(), 0).map_err(no_matroska)?;
        let element = |place| Element { text: self.text.clone(), place, depth: 0 };
        Ok(places.into_iter().map(element).collect())
    }
}

#[pymethods]
impl Document {
    #[classattr]
    fn name() -> &'static str {
        "MatroskaDocument"
    }

    /// As the EBML header says it.
    #[classattr]
    fn r#type() -> &'static str {
        "matroska"
    }

    #[classattr]
    fn offset() -> usize {
        0
    }

    #[getter]
    fn size(&self) -> usize {
        self.text.document.size_bytes()
    }

    /// The elements on the top level.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.elements()?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.value(py)?.try_iter()
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.elements()?.len())
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.value(py)?.as_any().get_item(index)
    }

    #[allow(non_snake_case)]
    fn getRaw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.text.bytes())
    }

    /// All values by name; a list where a name occurs more than once.
    fn dump<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dump(py, self.elements()?)
    }

    /// The tree as lines of text: offset, size of the whole element, name, value.
    fn pretty(&self) -> PyResult<String> {
        let mut lines = String::new();
        pretty(&self.elements()?, &mut lines)?;
        Ok(lines)
    }

    /// Nothing is kept, so there is nothing to forget.
    #[pyo3(signature = (recurse=false))]
    fn gc(&self, recurse: bool) -> usize {
        let _ = recurse;
        0
    }

    fn __repr__(&self) -> String {
        format!("<Document of {} bytes>", self.size())
    }
}

#[pymethods]
impl Element {
    #[getter]
    fn id(&self) -> u32 {
        self.place.id
    }

    #[getter]
    fn name(&self) -> &'static str {
        elements::of(self.place.id).0
    }

    /// Of its first byte in the fragment.
    #[getter]
    fn offset(&self) -> usize {
        self.place.at
    }

    /// Of its body, in bytes.
    #[getter]
    fn size(&self) -> usize {
        self.place.end - self.place.body
    }

    /// Of the first byte of its body in the fragment.
    #[getter]
    #[allow(non_snake_case)]
    fn payloadOffset(&self) -> usize {
        self.place.body
    }

    /// int, float, str, datetime, bytearray, or the list of the elements in it.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let body = self.body();
        Ok(match elements::of(self.place.id).1 {
            Kind::Master => self.list(py)?.into_any(),
            Kind::Unsigned => whole(self.place, body)?.into_pyobject(py)?.into_any(),
            Kind::Signed => signed(self.place, body)?.into_pyobject(py)?.into_any(),
            Kind::Float => float(self.place, body)?.into_pyobject(py)?.into_any(),
            Kind::Text => text(body).into_pyobject(py)?.into_any(),
            Kind::Date => date(py, signed(self.place, body)?)?,
            Kind::Binary => PyByteArray::new(py, body).into_any(),
        })
    }

    /// The fragment as a file, the same for all its elements.
    #[getter]
    fn stream(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(stream) = &*self.text.stream.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(stream.clone_ref(py));
        }
        let bytes = PyBytes::new(py, self.text.bytes());
        let made = py.import("io")?.call_method1("BytesIO", (bytes,))?.unbind();
        let mut stream = self.text.stream.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stream.get_or_insert(made).clone_ref(py))
    }

    /// The next `size` bytes of a file, where the body is bytes.
    fn parse<'py>(&self, stream: &Bound<'py, PyAny>, size: usize) -> PyResult<Bound<'py, PyAny>> {
        if elements::of(self.place.id).1 != Kind::Binary {
            return Err(PyTypeError::new_err(format!("{} is not bytes: take its value", self.name())));
        }
        Ok(PyByteArray::from(&stream.call_method1("read", (size,))?)?.into_any())
    }

    /// All of it, header and body.
    #[allow(non_snake_case)]
    fn getRaw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.text.bytes()[self.place.at..self.place.end])
    }

    #[allow(non_snake_case)]
    fn getRawValue<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.body())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.list(py)?.try_iter()
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(match elements::of(self.place.id).1 {
            Kind::Master => self.elements()?.len(),
            _ => self.size(),
        })
    }

    /// An element that is empty is one all the same.
    fn __bool__(&self) -> bool {
        true
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.list(py)?.as_any().get_item(index)
    }

    /// Its value by its name, as `Document.dump`.
    fn dump<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match elements::of(self.place.id).1 {
            Kind::Master => Ok(dump(py, self.elements()?)?.into_any()),
            _ => self.value(py),
        }
    }

    /// Nothing is kept, so there is nothing to forget.
    #[pyo3(signature = (recurse=false))]
    fn gc(&self, recurse: bool) -> usize {
        let _ = recurse;
        0
    }

    fn __repr__(&self) -> String {
        format!(
            "<{} (ID:0x{:X}), offset {}, size {}>",
            self.name(),
            self.place.id,
            self.place.at,
            self.size()
        )
    }
}

impl Element {
    fn body(&self) -> &[u8] {
        &self.text.bytes()[self.place.body..self.place.end]
    }

    /// None in what is no master.
    fn elements(&self) -> PyResult<Vec<Element>> {
        if elements::of(self.place.id).1 != Kind::Master {
            return Ok(Vec::new());
        }
        let depth = self.depth + 1;
        let places = walk(self.text.bytes(), self.place.body, self.place.end, depth).map_err(no_matroska)?;
        Ok(places.into_iter().map(|place| Element { text: self.text.clone(), place, depth }).collect())
    }

    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.elements()?)
    }
}

fn dump<'py>(py: Python<'py>, elements: Vec<Element>) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for element in elements {
        let (name, value) = (element.name(), element.dump(py)?);
        match all.get_item(name)? {
            None => all.set_item(name, value)?,
            Some(more) if more.cast::<PyList>().is_ok() => more.cast::<PyList>()?.append(value)?,
            Some(first) => all.set_item(name, PyList::new(py, [first, value])?)?,
        }
    }
    Ok(all)
}

fn pretty(elements: &[Element], lines: &mut String) -> PyResult<()> {
    for element in elements {
        let (name, kind) = elements::of(element.place.id);
        let (at, size) = (element.place.at, element.place.end - element.place.at);
        let _ = write!(lines, "{at:>9} {size:>9} {}{name}", "  ".repeat(element.depth));
        if name == "UnknownElement" {
            let _ = write!(lines, " 0x{:X}", element.place.id);
        }
        let (place, body) = (element.place, element.body());
        let _ = match kind {
            Kind::Master => writeln!(lines),
            Kind::Unsigned => writeln!(lines, ": {}", whole(place, body)?),
            Kind::Signed => writeln!(lines, ": {}", signed(place, body)?),
            Kind::Float => writeln!(lines, ": {}", float(place, body)?),
            Kind::Text => writeln!(lines, ": {}", text(body)),
            Kind::Date => writeln!(lines, ": {} ns after 2001-01-01", signed(place, body)?),
            Kind::Binary => writeln!(lines, ": {} bytes", body.len()),
        };
        pretty(&element.elements()?, lines)?;
    }
    Ok(())
}

fn wrong_length(place: Place, found: usize) -> PyErr {
    no_matroska(format!("{} at byte {} has {found} bytes", elements::of(place.id).0, place.at))
}

fn whole(place: Place, body: &[u8]) -> PyResult<u64> {
    if body.len() > 8 {
        return Err(wrong_length(place, body.len()));
    }
    Ok(body.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn signed(place: Place, body: &[u8]) -> PyResult<i64> {
    let negative = body.first().is_some_and(|byte| byte & 0x80 != 0);
    let value = whole(place, body)?;
    let unused = 64 - 8 * body.len();
    let filled = if negative && unused > 0 { value | u64::MAX << (64 - unused) } else { value };
    Ok(filled.cast_signed())
}

fn float(place: Place, body: &[u8]) -> PyResult<f64> {
    match body.len() {
        0 => Ok(0.0),
        4 => Ok(f32::from_be_bytes(body.try_into().expect("4 bytes")).into()),
        8 => Ok(f64::from_be_bytes(body.try_into().expect("8 bytes"))),
        found => Err(wrong_length(place, found)),
    }
}

/// Up to the first zero byte, which pads; what is no UTF-8 is replaced.
fn text(body: &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

fn date<'py>(py: Python<'py>, nanoseconds: i64) -> PyResult<Bound<'py, PyAny>> {
    let datetime = py.import("datetime")?;
    let passed = PyDict::new(py);
    passed.set_item("microseconds", nanoseconds / 1000)?;
    let utc = datetime.getattr("timezone")?.getattr("utc")?;
    let begin = datetime.call_method1("datetime", (2001, 1, 1, 0, 0, 0, 0, utc))?;
    begin.call_method1("__add__", (datetime.call_method("timedelta", (), Some(&passed))?,))
}
