"""data-partition.py LAYOUT.xml: adds the data partition to a flash layout of NVIDIA's, in place.

The layout itself is NVIDIA's and comes with its sources; this adds one partition behind all others, named `data`, formatted, and
filling what the disk has left. UDA, which NVIDIA reserves, stays as it is.
"""

import sys
import xml.etree.ElementTree as ET

NAME = "data"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
# The least that flashing tools count with; in the end it is what is left.
SIZE = 1 << 30
FILL_TO_END = 0x800


class Wrong(Exception):
    pass


def text(partition, name):
    found = partition.find(name)
    return "" if found is None or found.text is None else found.text.strip()


def add(layout):
    """Returns the layout with the partition."""
    try:
        root = ET.fromstring(layout)
    except ET.ParseError as error:
        raise Wrong(f"found no XML ({error})") from error
    for device in root.iter("device"):
        partitions = device.findall("partition")
        names = [partition.get("name") for partition in partitions]
        if "APP" in names:
            break
    else:
        raise Wrong("found no partition APP, expected the layout of the disk with the root file systems")
    if "APP_b" not in names:
        raise Wrong("found no partition APP_b, expected two slots: is USE_REDUNDANT_FLASH_LAYOUT_DEFAULT on?")
    if NAME in names:
        raise Wrong(f"found a partition {NAME} already")
    for partition in partitions:
        attribute = text(partition, "allocation_attribute")
        # Only one can fill the disk.
        if attribute and int(attribute, 16) & FILL_TO_END:
            partition.find("allocation_attribute").text = f" {int(attribute, 16) & ~FILL_TO_END:#x} "
    new = ET.Element("partition", name=NAME, type="data")
    numbers = [int(partition.get("id")) for partition in partitions if partition.get("id")]
    if numbers:
        new.set("id", str(max(numbers) + 1))
    for name, value in [
        ("allocation_policy", "sequential"),
        ("filesystem_type", "ext4"),
        ("size", SIZE),
        ("file_system_attribute", 0),
        ("allocation_attribute", f"{8 | FILL_TO_END:#x}"),
        ("partition_type_guid", LINUX),
        ("percent_reserved", 0),
        ("align_boundary", 16384),
    ]:
        ET.SubElement(new, name).text = f" {value} "
    backup = [at for at, child in enumerate(device) if child.get("type") in ("secondary_gpt", "GPT")]
    device.insert(backup[0] if backup else len(device), new)
    ET.indent(root, "    ")
    return '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def main(path):
    try:
        with open(path, encoding="utf-8") as file:
            layout = add(file.read())
    except (OSError, ValueError, Wrong) as error:
        sys.exit(f"data-partition.py: {path}: {error}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(layout)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
