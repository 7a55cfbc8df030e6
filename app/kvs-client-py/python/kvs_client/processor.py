"""What can be made of a fragment."""

from __future__ import annotations

import io
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from ._native import jpegs, pictures
from .sources import as_array

_SEGMENT, _TAGS, _TAG, _SIMPLE_TAG = 0x18538067, 0x1254C367, 0x7373, 0x67C8
_TAG_NAME, _TAG_STRING, _TAG_BINARY = 0x45A3, 0x4487, 0x4485

# What Amazon Connect records: L16, mono.
_SAMPLE_BYTES, _SAMPLES_PER_SECOND = 2, 8000


class KvsFragmentProcessor:
    """Tags, files and sound of fragments, as `KvsConsumerLibrary` hands them on. It has no state: one is enough for
    all streams and threads."""

    def get_fragment_tags(self, fragment_dom: Any) -> Dict[str, Union[str, bytearray]]:
        """All tags by name, those of KVS too; of two with one name the last.

        Raises KeyError where the fragment has no Segment."""
        segment = next((element for element in fragment_dom if element.id == _SEGMENT), None)
        if segment is None:
            raise KeyError("the fragment has no Segment element")
        found: Dict[str, Union[str, bytearray]] = {}
        for tags in segment:
            if tags.id != _TAGS:
                continue
            for tag in tags:
                if tag.id != _TAG:
                    continue
                for simple_tag in tag:
                    if simple_tag.id == _SIMPLE_TAG:
                        values = {element.id: element for element in simple_tag}
                        value = values.get(_TAG_STRING, values.get(_TAG_BINARY))
                        if _TAG_NAME in values:
                            found[values[_TAG_NAME].value] = "" if value is None else value.value
        return found

    def get_fragment_dom_pretty_string(self, fragment_dom: Any) -> str:
        """The tree of elements as lines of text: offset, size, name, value."""
        return str(fragment_dom.pretty())

    # The name that scripts have.
    get_fragement_dom_pretty_string = get_fragment_dom_pretty_string

    def save_fragment_as_local_mkv(self, fragment_bytes: Union[bytes, bytearray], file_name_path: str) -> None:
        """A Matroska file that any player opens."""
        with open(file_name_path, "wb") as file:
            file.write(fragment_bytes)

    def get_frames_as_ndarray(self, fragment_bytes: Union[bytes, bytearray], one_in_frames_ratio: int) -> List[Any]:
        """Every `one_in_frames_ratio`-th frame as a numpy array of height x width x 3 bytes, red first; the first one is
        among them. None where the fragment has no pictures. Raises HLSStreamError where they cannot be decoded."""
        found = pictures(bytes(fragment_bytes), int(one_in_frames_ratio))
        return [as_array(*picture) for picture in found]

    def save_frames_as_jpeg(
        self, fragment_bytes: Union[bytes, bytearray], one_in_frames_ratio: int, jpg_file_base_path: str
    ) -> List[str]:
        """The same as files `jpg_file_base_path`-0.jpg, -1.jpg, ...; returns their paths."""
        paths = []
        for index, jpeg in enumerate(jpegs(bytes(fragment_bytes), int(one_in_frames_ratio))):
            paths.append(f"{jpg_file_base_path}-{index}.jpg")
            with open(paths[-1], "wb") as file:
                file.write(jpeg)
        return paths

    def get_track_number_by_name(self, fragment_dom: Any, track_name: str) -> Optional[int]:
        """`None`: the fragment has no such track."""
        for entry in _below(fragment_dom, "Tracks", "TrackEntry"):
            values = {element.name: element for element in entry}
            if "Name" in values and values["Name"].value == track_name:
                return values["TrackNumber"].value if "TrackNumber" in values else 0
        return None

    def get_audio_track_number_from_simple_block(self, mkv_element: Any) -> Optional[int]:
        """The track that a SimpleBlock is of; `None` for any other element."""
        block = _block(mkv_element)
        return None if block is None else block[0]

    def get_raw_audio_track_from_simple_block(self, mkv_element: Any) -> Optional[bytearray]:
        """What a SimpleBlock holds, without its head; `None` for any other element."""
        block = _block(mkv_element)
        return None if block is None else block[1]

    def get_track_bytearray(self, mkv_dom: Any, track_nr: int) -> bytearray:
        """What all blocks of a track hold, in order."""
        joined = bytearray()
        for element in _below(mkv_dom, "Cluster", "SimpleBlock"):
            track, payload = _block(element) or (None, b"")
            if track == track_nr:
                # Half a sample would shift all that follow.
                joined += payload[: len(payload) - len(payload) % _SAMPLE_BYTES]
        return joined

    def convert_track_to_wav(self, track_bytearray: Union[bytes, bytearray]) -> io.BytesIO:
        """8000 samples a second, 16 bits, mono, as Amazon Connect records."""
        # Here, because few need it.
        import wave

        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setframerate(_SAMPLES_PER_SECOND)
            writer.setsampwidth(_SAMPLE_BYTES)
            writer.writeframes(track_bytearray)
        return file

    def save_connect_fragment_audio_track_as_wav(
        self, fragment_dom: Any, track_nr: int, file_name_path: str
    ) -> None:
        """The sound of a track by its number."""
        with open(file_name_path, "wb") as file:
            file.write(self.convert_track_to_wav(self.get_track_bytearray(fragment_dom, track_nr)).getvalue())

    def save_connect_fragment_audio_track_from_customer_as_wav(
        self, fragment_dom: Any, file_name_path_part: str
    ) -> None:
        """`file_name_path_part`-AUDIO_FROM_CUSTOMER.wav; nothing where there is no such track."""
        self._save_side(fragment_dom, "AUDIO_FROM_CUSTOMER", file_name_path_part)

    def save_connect_fragment_audio_track_to_customer_as_wav(
        self, fragment_dom: Any, file_name_path_part: str
    ) -> None:
        """`file_name_path_part`-AUDIO_TO_CUSTOMER.wav; nothing where there is no such track."""
        self._save_side(fragment_dom, "AUDIO_TO_CUSTOMER", file_name_path_part)

    def _save_side(self, fragment_dom: Any, name: str, path: str) -> None:
        number = self.get_track_number_by_name(fragment_dom, name)
        if number:
            self.save_connect_fragment_audio_track_as_wav(fragment_dom, number, f"{path}-{name}.wav")


# The name that scripts have.
KvsFragementProcessor = KvsFragmentProcessor


def _below(fragment_dom: Any, parent: str, name: str) -> Iterator[Any]:
    for segment in fragment_dom:
        for element in segment:
            if element.name == parent:
                yield from (child for child in element if child.name == name)


def _block(element: Any) -> Optional[Tuple[int, bytearray]]:
    """Track and payload: behind the track's number, of 1 byte or more, are 2 bytes of time and 1 of flags."""
    if element.name != "SimpleBlock":
        return None
    body = element.value
    length = 9 - body[0].bit_length() if body else 9
    if length > 8 or len(body) < length + 3:
        return None
    track = int.from_bytes(body[:length], "big") & ~(1 << (7 * length))
    return track, body[length + 3 :]
