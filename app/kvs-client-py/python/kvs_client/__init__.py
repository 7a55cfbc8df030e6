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

__all__ = [
    "Document",
    "Element",
    "Fragment",
    "FragmentParser",
    "FrameSourceError",
    "HLSStreamError",
    "KVSConnectionError",
    "KvsConsumerLibrary",
    "KvsFragementProcessor",
    "KvsFragmentProcessor",
    "__version__",
]
