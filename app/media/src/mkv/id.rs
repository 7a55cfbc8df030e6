//! Element ids as they stand on the wire, length marker included (RFC 8794 and RFC 9559).

/// Defines one constant per element and [`name_of`] from the same table.
macro_rules! ids {
    ($($constant:ident = $id:literal, $name:literal;)*) => {
        $(#[doc = $name] pub const $constant: u32 = $id;)*

        /// Name of a known element as in RFC 9559, `None` for others.
        pub fn name_of(id: u32) -> Option<&'static str> {
            match id {
                $($constant => Some($name),)*
                _ => None,
            }
        }
    };
}

ids! {
    EBML = 0x1A45_DFA3, "EBML";
    EBML_VERSION = 0x4286, "EBMLVersion";
    EBML_READ_VERSION = 0x42F7, "EBMLReadVersion";
    EBML_MAX_ID_LENGTH = 0x42F2, "EBMLMaxIDLength";
    EBML_MAX_SIZE_LENGTH = 0x42F3, "EBMLMaxSizeLength";
    DOC_TYPE = 0x4282, "DocType";
    DOC_TYPE_VERSION = 0x4287, "DocTypeVersion";
    DOC_TYPE_READ_VERSION = 0x4285, "DocTypeReadVersion";
    VOID = 0xEC, "Void";
    CRC_32 = 0xBF, "CRC-32";

    SEGMENT = 0x1853_8067, "Segment";
    SEEK_HEAD = 0x114D_9B74, "SeekHead";
    INFO = 0x1549_A966, "Info";
    TRACKS = 0x1654_AE6B, "Tracks";
    CLUSTER = 0x1F43_B675, "Cluster";
    CUES = 0x1C53_BB6B, "Cues";
    ATTACHMENTS = 0x1941_A469, "Attachments";
    CHAPTERS = 0x1043_A770, "Chapters";
    TAGS = 0x1254_C367, "Tags";

    SEGMENT_UID = 0x73A4, "SegmentUID";
    TIMECODE_SCALE = 0x2A_D7B1, "TimestampScale";
    DURATION = 0x4489, "Duration";
    TITLE = 0x7BA9, "Title";
    MUXING_APP = 0x4D80, "MuxingApp";
    WRITING_APP = 0x5741, "WritingApp";

    TRACK_ENTRY = 0xAE, "TrackEntry";
    TRACK_NUMBER = 0xD7, "TrackNumber";
    TRACK_UID = 0x73C5, "TrackUID";
    TRACK_TYPE = 0x83, "TrackType";
    NAME = 0x536E, "Name";
    CODEC_ID = 0x86, "CodecID";
    CODEC_PRIVATE = 0x63A2, "CodecPrivate";
    VIDEO = 0xE0, "Video";
    PIXEL_WIDTH = 0xB0, "PixelWidth";
    PIXEL_HEIGHT = 0xBA, "PixelHeight";
    AUDIO = 0xE1, "Audio";
    SAMPLING_FREQUENCY = 0xB5, "SamplingFrequency";
    CHANNELS = 0x9F, "Channels";

    TIMECODE = 0xE7, "Timestamp";
    POSITION = 0xA7, "Position";
    PREV_SIZE = 0xAB, "PrevSize";
    SIMPLE_BLOCK = 0xA3, "SimpleBlock";
    BLOCK_GROUP = 0xA0, "BlockGroup";
    BLOCK = 0xA1, "Block";
    BLOCK_DURATION = 0x9B, "BlockDuration";
    REFERENCE_BLOCK = 0xFB, "ReferenceBlock";

    TAG = 0x7373, "Tag";
    TARGETS = 0x63C0, "Targets";
    SIMPLE_TAG = 0x67C8, "SimpleTag";
    TAG_NAME = 0x45A3, "TagName";
    TAG_STRING = 0x4487, "TagString";
}

/// Children of a Segment. Meeting one inside a Cluster of unknown size means that the Cluster has ended.
pub(crate) fn is_segment_child(id: u32) -> bool {
    matches!(id, SEEK_HEAD | INFO | TRACKS | CLUSTER | CUES | ATTACHMENTS | CHAPTERS | TAGS)
}

/// Children that only a Cluster has.
pub(crate) fn is_cluster_child(id: u32) -> bool {
    matches!(id, TIMECODE | POSITION | PREV_SIZE | SIMPLE_BLOCK | BLOCK_GROUP)
}

/// Writes an id with its name, for error messages: `Cluster (0x1F43B675)`.
pub(crate) struct Named(pub(crate) u32);

impl std::fmt::Display for Named {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match name_of(self.0) {
            Some(name) => write!(out, "{name} (0x{:X})", self.0),
            None => write!(out, "unknown element 0x{:X}", self.0),
        }
    }
}
