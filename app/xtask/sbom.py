"""Lists what a binary is made of, as CycloneDX: sbom.py BINARY METADATA CARGO_LOCK OUT

The crates are those that cargo-auditable has put into the binary itself, so that nothing is listed that is not in there. Licences
come from METADATA (`cargo metadata`), checksums from CARGO_LOCK. What is written is checked by CycloneDX's own schema.
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import struct
import sys
import tomllib
import uuid
import zlib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
LIMIT = 8 << 20


def section(binary: bytes, wanted: str) -> bytes:
    """The bytes of a section of a 64-bit little-endian ELF file."""
    if binary[:6] != b"\x7fELF\x02\x01":
        sys.exit("this is no 64-bit little-endian ELF file")
    table, = struct.unpack_from("<Q", binary, 0x28)
    size, count, names = struct.unpack_from("<HHH", binary, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", binary, table + size * index) for index in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, length in headers:
        begin = strings + name
        if binary[begin:binary.index(0, begin)] == wanted.encode():
            return binary[offset:offset + length]
    sys.exit(f"found no section {wanted}: build it by cargo auditable")


def crates(binary: bytes) -> list[dict]:
    """What cargo-auditable wrote down."""
    inflate = zlib.decompressobj()
    text = inflate.decompress(section(binary, ".dep-v0"), LIMIT)
    if not inflate.eof:
        sys.exit(f"the list in the binary is cut or longer than {LIMIT} bytes")
    return json.loads(text)["packages"]


def bundled(metadata: dict[tuple[str, str], dict], inside: list[dict]) -> list[dict]:
    """Programs of others in C that a crate brings along: SQLite. (ring's are its own, of the same version.)"""
    found = []
    for one in inside:
        if one["name"] == "libsqlite3-sys":
            folder = pathlib.Path(metadata[one["name"], one["version"]]["manifest_path"]).parent
            bindings = (folder / "sqlite3/bindgen_bundled_version.rs").read_text()
            version = re.search(r'SQLITE_VERSION: &(?:.*?) = c?b?"([0-9.]+)', bindings)[1]
            found.append({
                "type": "library",
                "bom-ref": "sqlite",
                "name": "sqlite",
                "version": version,
                "licenses": [{"expression": "blessing"}],
                "purl": f"pkg:generic/sqlite@{version}",
                "cpe": f"cpe:2.3:a:sqlite:sqlite:{version}:*:*:*:*:*:*:*",
            })
    return found


def main(binary: str, metadata: str, lock: str, out: str) -> None:
    program = pathlib.Path(binary).read_bytes()
    inside = crates(program)
    known = {
        (package["name"], package["version"]): package
        for package in json.loads(pathlib.Path(metadata).read_text())["packages"]
    }
    sums = {
        (package["name"], package["version"]): package.get("checksum")
        for package in tomllib.loads(pathlib.Path(lock).read_text())["package"]
    }

    def reference(one: dict) -> str:
        return f'{one["name"]}@{one["version"]}'

    def component(one: dict) -> dict:
        key = one["name"], one["version"]
        if key not in known:
            sys.exit(f"{reference(one)} is in the binary and not in Cargo.lock: build it anew")
        about = known[key]
        listed = {
            "type": "library",
            "bom-ref": reference(one),
            "name": one["name"],
            "version": one["version"],
            # What only helps to build is not in the binary.
            "scope": "excluded" if one.get("kind") == "build" else "required",
        }
        if about.get("description"):
            listed["description"] = " ".join(about["description"].split())
        if about.get("license"):
            # Old manifests write a stroke.
            listed["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", about["license"])}]
        if sums.get(key):
            listed["hashes"] = [{"alg": "SHA-256", "content": sums[key]}]
        if about.get("source") == CRATES_IO:
            listed["purl"] = f'pkg:cargo/{one["name"]}@{one["version"]}'
        if about.get("repository"):
            listed["externalReferences"] = [{"type": "vcs", "url": about["repository"]}]
        return listed

    root = next(one for one in inside if one.get("root"))
    others = [one for one in inside if not one.get("root")]
    hashed = hashlib.sha256(program).hexdigest()
    main_component = component(root) | {
        "type": "application",
        "hashes": [{"alg": "SHA-256", "content": hashed}],
    }
    del main_component["scope"]
    in_c = bundled(known, others)
    dependencies = [
        {
            "ref": reference(one),
            "dependsOn": sorted(
                {reference(inside[index]) for index in one.get("dependencies", [])}
                | ({"sqlite"} if one["name"] == "libsqlite3-sys" else set())
            ),
        }
        for one in inside
    ]
    made = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    text = json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            # The same binary has the same list.
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, hashed)}",
            "version": 1,
            "metadata": {
                "timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "lifecycles": [{"phase": "build"}],
                "component": main_component,
            },
            "components": [component(one) for one in others] + in_c,
            "dependencies": dependencies,
        },
        indent=1,
    )
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"this is not CycloneDX 1.6: {wrong}")
    pathlib.Path(out).write_text(text + "\n")


main(*sys.argv[1:])
