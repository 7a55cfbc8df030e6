"""Holds kas files against kas's own schema, and each pinned repository against the files that name it."""

import json
import sys
from importlib.resources import files

import jsonschema
import yaml

schema = json.loads((files("kas") / "schema-kas.json").read_text())
wrong = 0
named, pinned = set(), set()
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file)
    for error in jsonschema.Draft7Validator(schema).iter_errors(content):
        where = "/".join(str(part) for part in error.absolute_path)
        print(f"{path}: {where or 'top'}: {error.message}", file=sys.stderr)
        wrong += 1
    for name, repo in (content.get("repos") or {}).items():
        if repo and "url" in repo:
            named.add(name)
            if "commit" in repo:
                pinned.add(name)
    pinned |= set((content.get("overrides", {}).get("repos") or {}))
for name in sorted(named - pinned):
    print(f"{name}: found no commit, expected one in base.lock.yml or beside its url", file=sys.stderr)
    wrong += 1
sys.exit(1 if wrong else 0)
