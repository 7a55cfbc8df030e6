"""check.py FOLDER: holds the kas files there against kas's own schema, and merges each that names a machine as kas does, with its
locks: every repository then has a commit, and no branch or commit of another series."""

import sys
import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import yaml
from kas.includehandler import IncludeHandler


class Offline(IncludeHandler):
    """Needs no git to know the repository: the layer lies at its top."""

    def __init__(self, path):
        super().__init__([str(path)])
        self.top_repo_path = str(path.resolve().parent.parent.parent)

    def ensure_from_same_repo(self):
        pass


def schema_errors(paths):
    schema = json.loads((files("kas") / "schema-kas.json").read_text())
    for path in paths:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            yield f"{path.name}: {error}"
            continue
        for error in jsonschema.Draft7Validator(schema).iter_errors(content):
            where = "/".join(str(part) for part in error.absolute_path)
            yield f"{path.name}: {where or 'top'}: {error.message}"


def series_of(path):
    return "wrynose" if "wrynose" in path.name else "scarthgap"


def pin_errors(paths):
    locked = {}
    for path in paths:
        if path.name.endswith(".lock.yml"):
            for name, repo in yaml.safe_load(path.read_text(encoding="utf-8"))["overrides"]["repos"].items():
                locked[name, repo["commit"]] = series_of(path)
    for path in paths:
        if path.name.endswith(".lock.yml"):
            continue
        config, _ = Offline(path).get_config()
        if "machine" not in config:
            continue
        series = series_of(path)
        for name, repo in config["repos"].items():
            if not repo or "url" not in repo:
                continue
            commit = config.get("overrides", {}).get("repos", {}).get(name, {}).get("commit") or repo.get("commit")
            if not commit:
                yield f"{path.name}: {name}: found no commit, expected one in a lock file"
            # meta-rust-bin has one branch for all series.
            elif name != "meta-rust-bin" and locked.get((name, commit), series) != series:
                yield f"{path.name}: {name}: found commit {commit} of {locked[name, commit]}, expected one of {series}"
            if repo.get("branch") in ("scarthgap", "wrynose") and repo["branch"] != series:
                yield f"{path.name}: {name}: found branch {repo['branch']}, expected {series}"


def main(folder):
    paths = sorted(Path(folder).glob("*.yml"))
    errors = list(schema_errors(paths)) if paths else [f"{folder}: found no kas file"]
    errors = errors or list(pin_errors(paths))
    for error in errors:
        print(f"kas: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


main(sys.argv[1])
