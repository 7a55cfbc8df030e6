"""Amazon Kinesis Video Streams for consumers.

Frames of a stream as numpy arrays: KVSGetMediaFrameSource, KVSHLSFrameSource, create_frame_source.
Fragments by callbacks: KvsConsumerLibrary, KvsFragementProcessor.
The service's operations without boto3: kvs_client.session.
"""

from ._native import (
    Document,
    Element,
    Fragment,
    FragmentParser,
    FrameSourceError,
    HLSStreamError,
    KVSConnectionError,
    __version__,
)
from .consumer import KvsConsumerLibrary
from .processor import KvsFragementProcessor, KvsFragmentProcessor
from .sources import (
    ConnectionState,
    FrameResult,
    FrameSource,
    GetMediaStartSelectorType,
    KVSGetMediaFrameSource,
    KVSHLSFrameSource,
    PlaybackMode,
    create_frame_source,
)

__all__ = [
    "ConnectionState",
    "Document",
    "Element",
    "Fragment",
    "FragmentParser",
    "FrameResult",
    "FrameSource",
    "FrameSourceError",
    "GetMediaStartSelectorType",
    "HLSStreamError",
    "KVSConnectionError",
    "KVSGetMediaFrameSource",
    "KVSHLSFrameSource",
    "KvsConsumerLibrary",
    "KvsFragementProcessor",
    "KvsFragmentProcessor",
    "PlaybackMode",
    "__version__",
    "create_frame_source",
]
