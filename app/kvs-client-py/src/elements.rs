//! Elements of Matroska by name and type. The names are those that scripts for AWS's library compare with, which are older
//! than RFC 9559's: `Timecode` where that says Timestamp.

/// What the body of an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Master,
    Unsigned,
    Signed,
    Float,
    Text,
    /// Nanoseconds since the beginning of 2001.
    Date,
    Binary,
}

pub(crate) const EBML: u32 = 0x1A45_DFA3;
pub(crate) const SEGMENT: u32 = 0x1853_8067;
pub(crate) const CLUSTER: u32 = 0x1F43_B675;
/// Children of a Segment: each ends a Cluster that does not say how long it is.
const TOP: [u32; 8] =
    [0x114D_9B74, 0x1549_A966, 0x1654_AE6B, CLUSTER, 0x1C53_BB6B, 0x1941_A469, 0x1043_A770, 0x1254_C367];

pub(crate) fn is_top(id: u32) -> bool {
    TOP.contains(&id)
}

/// `UnknownElement`, with a body of bytes, is what is not in the table.
pub(crate) fn of(id: u32) -> (&'static str, Kind) {
    use Kind::{Binary, Date, Float, Master, Signed, Text, Unsigned};
    match id {
        EBML => ("EBML", Master),
        0x4286 => ("EBMLVersion", Unsigned),
        0x42F7 => ("EBMLReadVersion", Unsigned),
        0x42F2 => ("EBMLMaxIDLength", Unsigned),
        0x42F3 => ("EBMLMaxSizeLength", Unsigned),
        0x4282 => ("DocType", Text),
        0x4287 => ("DocTypeVersion", Unsigned),
        0x4285 => ("DocTypeReadVersion", Unsigned),
        0xEC => ("Void", Binary),
        0xBF => ("CRC-32", Binary),

        SEGMENT => ("Segment", Master),
        0x114D_9B74 => ("SeekHead", Master),
        0x4DBB => ("Seek", Master),
        0x53AB => ("SeekID", Binary),
        0x53AC => ("SeekPosition", Unsigned),

        0x1549_A966 => ("Info", Master),
        0x73A4 => ("SegmentUID", Binary),
        0x7384 => ("SegmentFilename", Text),
        0x3C_B923 => ("PrevUID", Binary),
        0x3E_B923 => ("NextUID", Binary),
        0x2A_D7B1 => ("TimecodeScale", Unsigned),
        0x4489 => ("Duration", Float),
        0x4461 => ("DateUTC", Date),
        0x7BA9 => ("Title", Text),
        0x4D80 => ("MuxingApp", Text),
        0x5741 => ("WritingApp", Text),

        CLUSTER => ("Cluster", Master),
        0xE7 => ("Timecode", Unsigned),
        0xA7 => ("Position", Unsigned),
        0xAB => ("PrevSize", Unsigned),
        0xA3 => ("SimpleBlock", Binary),
        0xA0 => ("BlockGroup", Master),
        0xA1 => ("Block", Binary),
        0x75A1 => ("BlockAdditions", Master),
        0xA6 => ("BlockMore", Master),
        0xEE => ("BlockAddID", Unsigned),
        0xA5 => ("BlockAdditional", Binary),
        0x9B => ("BlockDuration", Unsigned),
        0xFA => ("ReferencePriority", Unsigned),
        0xFB => ("ReferenceBlock", Signed),
        0xA4 => ("CodecState", Binary),
        0x75A2 => ("DiscardPadding", Signed),

        0x1654_AE6B => ("Tracks", Master),
        0xAE => ("TrackEntry", Master),
        0xD7 => ("TrackNumber", Unsigned),
        0x73C5 => ("TrackUID", Unsigned),
        0x83 => ("TrackType", Unsigned),
        0xB9 => ("FlagEnabled", Unsigned),
        0x88 => ("FlagDefault", Unsigned),
        0x55AA => ("FlagForced", Unsigned),
        0x9C => ("FlagLacing", Unsigned),
        0x6DE7 => ("MinCache", Unsigned),
        0x6DF8 => ("MaxCache", Unsigned),
        0x23_E383 => ("DefaultDuration", Unsigned),
        0x23_314F => ("TrackTimecodeScale", Float),
        0x55EE => ("MaxBlockAdditionID", Unsigned),
        0x536E => ("Name", Text),
        0x22_B59C => ("Language", Text),
        0x86 => ("CodecID", Text),
        0x63A2 => ("CodecPrivate", Binary),
        0x25_8688 => ("CodecName", Text),
        0x56AA => ("CodecDelay", Unsigned),
        0x56BB => ("SeekPreRoll", Unsigned),
        0xE0 => ("Video", Master),
        0x9A => ("FlagInterlaced", Unsigned),
        0x53B8 => ("StereoMode", Unsigned),
        0xB0 => ("PixelWidth", Unsigned),
        0xBA => ("PixelHeight", Unsigned),
        0x54B0 => ("DisplayWidth", Unsigned),
        0x54BA => ("DisplayHeight", Unsigned),
        0x54B2 => ("DisplayUnit", Unsigned),
        0x54B3 => ("AspectRatioType", Unsigned),
        0x2E_B524 => ("ColourSpace", Binary),
        0xE1 => ("Audio", Master),
        0xB5 => ("SamplingFrequency", Float),
        0x78B5 => ("OutputSamplingFrequency", Float),
        0x9F => ("Channels", Unsigned),
        0x6264 => ("BitDepth", Unsigned),

        0x1C53_BB6B => ("Cues", Master),
        0xBB => ("CuePoint", Master),
        0xB3 => ("CueTime", Unsigned),
        0xB7 => ("CueTrackPositions", Master),
        0xF7 => ("CueTrack", Unsigned),
        0xF1 => ("CueClusterPosition", Unsigned),
        0x1941_A469 => ("Attachments", Master),
        0x1043_A770 => ("Chapters", Master),

        0x1254_C367 => ("Tags", Master),
        0x7373 => ("Tag", Master),
        0x63C0 => ("Targets", Master),
        0x68CA => ("TargetTypeValue", Unsigned),
        0x63CA => ("TargetType", Text),
        0x63C5 => ("TagTrackUID", Unsigned),
        0x67C8 => ("SimpleTag", Master),
        0x45A3 => ("TagName", Text),
        0x447A => ("TagLanguage", Text),
        0x4484 => ("TagDefault", Unsigned),
        0x4487 => ("TagString", Text),
        0x4485 => ("TagBinary", Binary),
        _ => ("UnknownElement", Binary),
    }
}
