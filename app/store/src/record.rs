//! How fragments lie in a segment file.
//!
//! ```text
//!  segment:  "KVSSPOOL" version number crc | record | record | ...
//!  record:   magic kind meta_length body_length head_crc | meta | body_crc body
//!
//!  fragment:     meta = name, times, sums, identity tag, stream header      body = the Cluster element, as it is sent
//!  undated:      meta = likewise, with times since boot, the boot, and all of the cluster but its payloads
//!  settlements:  meta = names with what became of them                      no body
//!  stamps:       meta = runs with what is to be added to their times        no body; in a file of its own
//! ```
//!
//! With a key (`seal.rs`) meta and body are sealed, in segments of version 2: the release before leaves those alone.
//!
//! A record says everything of its fragment: any other may be missing. Numbers are little-endian. Readers leave out what
//! follows the fields that they know, and kinds that they do not know, so a later release may add both.

use bytes::Bytes;
use kvs::cluster_sums::ClusterSums;
use kvs::fragmenter::{FragmentEnd, FragmentSummary, StreamHeader};
use kvs::identity::Sha256Sum;
use kvs::stamping::{BootId, Estimate, FootageClock, RunStamp};
use kvs::upload::{Settled, Whole};
use kvs::{FragmentId, FragmentNumber, RunId};
use media::ProducerTimestamp;

use crate::seal::{KeyId, Keys, Opened, SEAL, SEAL_HEAD};

/// Of the segment, in front of its first record.
pub(crate) const SEGMENT_HEAD: usize = 24;
/// Of a record, in front of its meta.
pub(crate) const RECORD_HEAD: usize = 24;
/// Between meta and body.
const BODY_SUM: usize = 4;
/// No meta is longer: a stream header has a few parameter sets.
const MOST_META: usize = 1 << 20;
/// KVS takes 50 MB.
const MOST_BODY: u64 = 64 << 20;
const SEGMENT_MAGIC: &[u8; 8] = b"KVSSPOOL";
const SEGMENT_VERSION: u32 = 1;
/// Its records are sealed.
const SEALED_VERSION: u32 = 2;
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"\xf7KSR";

/// The first bytes of segment `number`; `sealed`: a release that knows no keys shall leave it alone.
pub(crate) fn segment_head(number: u64, sealed: bool) -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(SEGMENT_MAGIC);
    let version = if sealed { SEALED_VERSION } else { SEGMENT_VERSION };
    head[8..12].copy_from_slice(&version.to_le_bytes());
    head[12..20].copy_from_slice(&number.to_le_bytes());
    let sum = crc32fast::hash(&head[..20]);
    head[20..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHead {
    Number(u64),
    /// Of a later release.
    Version(u32),
    Damaged,
}

pub(crate) fn read_segment_head(bytes: &[u8]) -> SegmentHead {
    let Some(head) = bytes.get(..SEGMENT_HEAD) else { return SegmentHead::Damaged };
    let mut fields = Fields(&head[8..]);
    let (version, number, sum) = (fields.u32(), fields.u64(), fields.u32());
    if head[..8] != SEGMENT_MAGIC[..] || sum != Some(crc32fast::hash(&head[..20])) {
        return SegmentHead::Damaged;
    }
    match (version, number) {
        (Some(SEGMENT_VERSION | SEALED_VERSION), Some(number)) => SegmentHead::Number(number),
        (Some(version), _) => SegmentHead::Version(version),
        _ => SegmentHead::Damaged,
    }
}

/// The head of a record: what it is and how long its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    kind: u8,
    meta: usize,
    pub(crate) body: u64,
    meta_sum: u32,
}

const FRAGMENT: u8 = 1;
const SETTLEMENTS: u8 = 2;
/// Beside one of them: meta and body are sealed.
const SEALED: u8 = 0x10;
/// A kind of its own: a release that does not know it must not send it with such times.
const UNDATED: u8 = 3;
const STAMPS: u8 = 4;

impl Head {
    fn is_sealed(&self) -> bool {
        self.kind & SEALED != 0
    }

    /// Of the whole record.
    pub(crate) fn length(&self) -> u64 {
        (RECORD_HEAD + self.meta) as u64 + if self.body == 0 { 0 } else { BODY_SUM as u64 + self.body }
    }

    /// From the start of the record up to its body.
    pub(crate) fn before_body(&self) -> usize {
        RECORD_HEAD + self.meta + if self.body == 0 { 0 } else { BODY_SUM }
    }
}

/// `None`: there is no record here.
pub(crate) fn read_head(bytes: &[u8]) -> Option<Head> {
    let head = bytes.get(..RECORD_HEAD)?;
    let mut fields = Fields(&head[4..]);
    let kind = fields.bytes(4)?[0];
    let (meta, body) = (fields.u32()? as usize, u64::from(fields.u32()?));
    let (meta_sum, sum) = (fields.u32()?, fields.u32()?);
    let good = head[..4] == RECORD_MAGIC
        && sum == crc32fast::hash(&head[..20])
        && meta <= MOST_META
        && body <= MOST_BODY;
    good.then_some(Head { kind, meta, body, meta_sum })
}

/// What the meta of a record says.
#[derive(Debug)]
pub(crate) enum Meta {
    Fragment(Box<FragmentMeta>),
    Settlements(Vec<(FragmentId, Settled)>),
    /// Sealed with a key that is not there.
    Locked(KeyId),
    Stamps(Vec<RunStamp>),
    /// Of a later release.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct FragmentMeta {
    /// A local recording, not to be sent.
    pub(crate) local: bool,
    pub(crate) header: StreamHeader,
    pub(crate) end: FragmentEnd,
    /// Its times are since boot.
    pub(crate) undated: Option<Undated>,
}

/// What it takes to give a fragment its time.
#[derive(Debug)]
pub(crate) struct Undated {
    /// The latest real time that was known when it was recorded; 0: none.
    pub(crate) after_ms: u64,
    /// All of its cluster but the payloads.
    pub(crate) heads: Bytes,
}

/// `bytes` begin with the record. `None`: it is damaged.
pub(crate) fn read_meta(head: &Head, bytes: &[u8], keys: &Keys) -> Option<Meta> {
    let meta = bytes.get(RECORD_HEAD..RECORD_HEAD + head.meta)?;
    if crc32fast::hash(meta) != head.meta_sum {
        return None;
    }
    let mut opened = Vec::new();
    let meta = if head.is_sealed() {
        opened.extend_from_slice(meta);
        match keys.open(&mut opened, &[head.kind]) {
            Opened::Bytes(length) => &opened[SEAL_HEAD..SEAL_HEAD + length],
            Opened::Locked(id) => return Some(Meta::Locked(id)),
            Opened::Damaged => return None,
        }
    } else {
        meta
    };
    match head.kind & !SEALED {
        FRAGMENT => read_fragment(&mut Fields(meta)).map(|fragment| Meta::Fragment(Box::new(fragment))),
        UNDATED => read_undated(meta).map(|fragment| Meta::Fragment(Box::new(fragment))),
        STAMPS => read_stamps(meta).map(Meta::Stamps),
        SETTLEMENTS => read_settlements(meta).map(Meta::Settlements),
        _ => Some(Meta::Unknown),
    }
}

/// The key with which the record is sealed that `bytes` begin with; of a damaged one nobody knows.
pub(crate) fn key_of(head: &Head, bytes: &[u8]) -> Option<KeyId> {
    let meta = bytes.get(RECORD_HEAD..RECORD_HEAD + head.meta).filter(|_| head.is_sealed())?;
    (crc32fast::hash(meta) == head.meta_sum).then(|| KeyId::of(meta)).flatten()
}

/// The body of a record: `start` are its first bytes, `bytes` the sum of the body and the body. `None`: it is damaged, or nobody
/// has its key.
pub(crate) fn read_body(head: &Head, start: &[u8], mut bytes: Vec<u8>, keys: &Keys) -> Option<Bytes> {
    let sum = Fields(&bytes).u32()?;
    let body = bytes.get(BODY_SUM..)?;
    if body.len() as u64 != head.body || crc32fast::hash(body) != sum {
        return None;
    }
    if !head.is_sealed() {
        return Some(Bytes::from(bytes).slice(BODY_SUM..));
    }
    let bound_to = start.get(RECORD_HEAD..RECORD_HEAD + SEAL_HEAD)?;
    let Opened::Bytes(length) = keys.open(&mut bytes[BODY_SUM..], bound_to) else { return None };
    let from = BODY_SUM + SEAL_HEAD;
    Some(Bytes::from(bytes).slice(from..from + length))
}

/// Appends the record of a fragment; `local`: it is not to be sent. `after_ms`: the latest real time that is known.
pub(crate) fn write_fragment(
    buffer: &mut Vec<u8>,
    fragment: &Whole,
    local: bool,
    after_ms: u64,
    keys: &Keys,
) {
    let mut meta = Vec::with_capacity(1024);
    let StreamHeader { bytes, video_only, has_audio } = &*fragment.header;
    let FragmentEnd { summary, tag, closing } = &fragment.end;
    put_id(&mut meta, summary.id);
    for number in [
        summary.timecode.as_millis(),
        summary.duration_ms,
        summary.blocks.into(),
        summary.audio_blocks.into(),
        summary.cluster_bytes,
        summary.around_bytes,
    ] {
        meta.extend(number.to_le_bytes());
    }
    meta.extend(summary.sums.payload.0);
    meta.extend(summary.sums.heads.0);
    meta.push(
        u8::from(summary.forced) | u8::from(*closing) << 1 | u8::from(*has_audio) << 2 | u8::from(local) << 3,
    );
    for text in [tag, bytes, video_only] {
        put_bytes(&mut meta, text);
    }
    let kind = match summary.clock {
        FootageClock::Boot(BootId(boot)) => {
            meta.extend(boot.to_le_bytes());
            meta.extend(after_ms.to_le_bytes());
            put_bytes(&mut meta, &fragment.heads());
            UNDATED
        }
        FootageClock::Utc | FootageClock::Estimated(_) => FRAGMENT,
    };
    let body: usize = fragment.pieces.iter().map(Bytes::len).sum();
    if !keys.seals() {
        put_head(buffer, kind, &meta, body);
        let mut sum = crc32fast::Hasher::new();
        fragment.pieces.iter().for_each(|piece| sum.update(piece));
        buffer.extend(sum.finalize().to_le_bytes());
        fragment.pieces.iter().for_each(|piece| buffer.extend_from_slice(piece));
        return;
    }
    let meta = sealed(&meta, kind | SEALED, keys);
    put_head(buffer, kind | SEALED, &meta, body + SEAL);
    let sum_at = buffer.len();
    buffer.extend([0; BODY_SUM + SEAL_HEAD]);
    fragment.pieces.iter().for_each(|piece| buffer.extend_from_slice(piece));
    keys.seal(buffer, sum_at + BODY_SUM, &meta[..SEAL_HEAD]);
    let sum = crc32fast::hash(&buffer[sum_at + BODY_SUM..]);
    buffer[sum_at..sum_at + BODY_SUM].copy_from_slice(&sum.to_le_bytes());
}

fn sealed(meta: &[u8], kind: u8, keys: &Keys) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(meta.len() + SEAL);
    sealed.extend([0; SEAL_HEAD]);
    sealed.extend_from_slice(meta);
    keys.seal(&mut sealed, 0, &[kind]);
    sealed
}

/// Appends a record of what became of fragments.
pub(crate) fn write_settlements(buffer: &mut Vec<u8>, settled: &[(FragmentId, Settled)], keys: &Keys) {
    let mut meta = Vec::with_capacity(settled.len() * 40);
    for (id, settled) in settled {
        put_id(&mut meta, *id);
        let (state, number) = match settled {
            Settled::Persisted(number) => (1, number.map(|number| number.to_string()).unwrap_or_default()),
            Settled::Refused => (2, String::new()),
            Settled::Wanted => (3, String::new()),
        };
        meta.push(state);
        put_bytes(&mut meta, number.as_bytes());
    }
    if keys.seals() {
        let kind = SETTLEMENTS | SEALED;
        put_head(buffer, kind, &sealed(&meta, kind, keys), 0);
    } else {
        put_head(buffer, SETTLEMENTS, &meta, 0);
    }
}

/// Appends a record of the times of what was recorded without a clock.
pub(crate) fn write_stamps(buffer: &mut Vec<u8>, stamps: &[RunStamp]) {
    let mut meta = Vec::with_capacity(stamps.len() * 25);
    for RunStamp { run, offset_ms, estimate } in stamps {
        meta.extend(run.as_u64().to_le_bytes());
        meta.extend(offset_ms.to_le_bytes());
        let (kind, earlier_ms) = match estimate {
            None => (0, 0),
            Some(Estimate { earlier_ms: Some(earlier_ms) }) => (1, *earlier_ms),
            Some(Estimate { earlier_ms: None }) => (2, 0),
        };
        meta.push(kind);
        meta.extend(earlier_ms.to_le_bytes());
    }
    put_head(buffer, STAMPS, &meta, 0);
}

fn put_head(buffer: &mut Vec<u8>, kind: u8, meta: &[u8], body: usize) {
    let start = buffer.len();
    buffer.extend(RECORD_MAGIC);
    buffer.extend([kind, 0, 0, 0]);
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    buffer.extend(length(meta.len()));
    buffer.extend(length(body));
    buffer.extend(crc32fast::hash(meta).to_le_bytes());
    let sum = crc32fast::hash(&buffer[start..]);
    buffer.extend(sum.to_le_bytes());
    buffer.extend(meta);
}

fn put_id(meta: &mut Vec<u8>, id: FragmentId) {
    meta.extend(id.run.as_u64().to_le_bytes());
    meta.extend(id.sequence.to_le_bytes());
}

fn put_bytes(meta: &mut Vec<u8>, bytes: &[u8]) {
    meta.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    meta.extend(bytes);
}

fn read_undated(meta: &[u8]) -> Option<FragmentMeta> {
    let mut fields = Fields(meta);
    let mut fragment = read_fragment(&mut fields)?;
    let boot = BootId(fields.bytes(16)?.try_into().ok().map(u128::from_le_bytes)?);
    let (after_ms, heads) = (fields.u64()?, fields.text()?);
    fragment.end.summary.clock = FootageClock::Boot(boot);
    fragment.undated = Some(Undated { after_ms, heads });
    Some(fragment)
}

fn read_stamps(meta: &[u8]) -> Option<Vec<RunStamp>> {
    let (mut fields, mut all) = (Fields(meta), Vec::new());
    while !fields.0.is_empty() {
        let (run, offset_ms) = (RunId::from_u64(fields.u64()?)?, fields.u64()?.cast_signed());
        let (kind, earlier_ms) = (fields.bytes(1)?[0], fields.u64()?);
        let estimate = match kind {
            0 => None,
            1 => Some(Estimate { earlier_ms: Some(earlier_ms) }),
            _ => Some(Estimate { earlier_ms: None }),
        };
        all.push(RunStamp { run, offset_ms, estimate });
    }
    Some(all)
}

fn read_fragment(fields: &mut Fields<'_>) -> Option<FragmentMeta> {
    let id = fields.id()?;
    let timecode = ProducerTimestamp::from_millis(fields.u64()?);
    let duration_ms = fields.u64()?;
    let (blocks, audio_blocks) = (fields.u64()?.try_into().ok()?, fields.u64()?.try_into().ok()?);
    let (cluster_bytes, around_bytes) = (fields.u64()?, fields.u64()?);
    let sums = ClusterSums { payload: fields.sum()?, heads: fields.sum()? };
    let flags = fields.bytes(1)?[0];
    let is_set = |bit: u8| flags & 1 << bit != 0;
    let (tag, bytes, video_only) = (fields.text()?, fields.text()?, fields.text()?);
    let summary = FragmentSummary {
        id,
        timecode,
        clock: FootageClock::Utc,
        duration_ms,
        blocks,
        audio_blocks,
        cluster_bytes,
        around_bytes,
        sums,
        forced: is_set(0),
    };
    let header = StreamHeader { bytes, video_only, has_audio: is_set(2) };
    let end = FragmentEnd { summary, tag, closing: is_set(1) };
    Some(FragmentMeta { local: is_set(3), header, end, undated: None })
}

fn read_settlements(meta: &[u8]) -> Option<Vec<(FragmentId, Settled)>> {
    let (mut fields, mut all) = (Fields(meta), Vec::new());
    while !fields.0.is_empty() {
        let (id, state, number) = (fields.id()?, fields.bytes(1)?[0], fields.text()?);
        let number = std::str::from_utf8(&number).ok().and_then(|text| text.parse::<FragmentNumber>().ok());
        match state {
            1 => all.push((id, Settled::Persisted(number))),
            2 => all.push((id, Settled::Refused)),
            3 => all.push((id, Settled::Wanted)),
            _ => {}
        }
    }
    Some(all)
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, left) = self.0.split_at_checked(length)?;
        self.0 = left;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn id(&mut self) -> Option<FragmentId> {
        Some(FragmentId { run: RunId::from_u64(self.u64()?)?, sequence: self.u64()? })
    }

    fn sum(&mut self) -> Option<Sha256Sum> {
        self.bytes(32)?.try_into().ok().map(Sha256Sum)
    }

    fn text(&mut self) -> Option<Bytes> {
        let length = self.u32()? as usize;
        self.bytes(length).map(Bytes::copy_from_slice)
    }
}
