"""Holds `tailor config schema` against the jsonschema package: the schema is one, and it says of every file what
`tailor config validate` says.

Run:    python tests/golden/config_schema_check.py TAILOR [--refused] FILE...    by a test where jsonschema is there
Needs:  jsonschema, pyyaml
"""
import json
import re
import subprocess
import sys

import jsonschema
import yaml


class Loader(yaml.SafeLoader):
    """Numbers as YAML 1.2 has them: 2e-4 is one."""


Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
                             list("-+.0123456789"))
Loader.yaml_implicit_resolvers = {
    first: sorted(rules, key=lambda rule: rule[0] != "tag:yaml.org,2002:int")
    for first, rules in Loader.yaml_implicit_resolvers.items()}


def main():
    tailor, files = sys.argv[1], sys.argv[2:]
    refused = files[:1] == ["--refused"]
    schema = json.loads(subprocess.run([tailor, "config", "schema"], check=True, capture_output=True, text=True).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for file in files[refused:]:
        with open(file) as stream:
            value = yaml.load(stream, Loader)
        errors = [f"{'/'.join(map(str, e.path))}: {e.message[:120]}" for e in validator.iter_errors(value)]
        code = subprocess.run([tailor, "config", "validate", file], capture_output=True).returncode
        if bool(errors) != refused or (code != 0) != refused:
            sys.exit(f"{file}: schema says {errors or 'nothing'}, tailor ends with {code}")
    print(f"schema: {len(schema['properties'])} properties; {len(files) - refused} file(s) as expected")


if __name__ == "__main__":
    main()
