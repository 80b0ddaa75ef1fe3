"""JSON schemas with texts that they allow and forbid, as the jsonschema package judges them.

    ~/.cache/tailor/peers/bin/python tests/golden/schema_golden.py > tests/golden/data/schema_cases.json
    ~/.cache/tailor/peers/bin/python tests/golden/schema_golden.py --check samples.jsonl     # of src/infer/schema_grammar_test.cpp

Valid instances are written by hand and printed in three ways; the grammar must allow them all. Invalid ones are these, changed
at random in one place, where the package says so; the grammar must allow none. --check reads lines {"schema", "text"} that
were sampled from grammars and says which of them the package does not accept.
"""
import copy
import json
import random
import sys

from jsonschema import Draft202012Validator

TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {
    "value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "required": ["value", "children"],
    "additionalProperties": False}}}
SHAPES = {"oneOf": [
    {"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "exclusiveMinimum": 0}}, "required": ["kind", "r"],
     "additionalProperties": False},
    {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "number"}}, "required": ["kind", "side"],
     "additionalProperties": False}]}

# A schema, instances that it allows (and the grammar, which is narrower, must).
CASES = [
    (True, [None, 1, "a", [1, [True]], {"a": {"b": []}}]),
    ({}, [False, 0.5, {"x": "y\"\\\n\u00e9"}]),
    ({"type": "null"}, [None]),
    ({"type": "boolean"}, [True, False]),
    ({"type": "string"}, ["", "a", "\u00e9\u4e2d\U0001f600", "tab\there", "quote\"back\\", "\u0001"]),
    ({"type": "string", "minLength": 2}, ["ab", "\u4e2d\u6587", "\n\n", "abcdef"]),
    ({"type": "string", "maxLength": 3}, ["", "abc", "\U0001f600\U0001f600\U0001f600", "\"\"\""]),
    ({"type": "string", "minLength": 2, "maxLength": 4}, ["ab", "abc", "a\\b", "\u00e9\u00e9\u00e9\u00e9"]),
    ({"type": "string", "minLength": 3, "maxLength": 200}, ["abc", "x" * 200, "a\nb"]),
    ({"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}, ["ABC-12", "XYZ-1234"]),
    ({"type": "string", "pattern": "b+"}, ["bc", "abbcd", "\"bc\""]),
    ({"type": "string", "pattern": "^a|b$"}, ["a", "abc", "cb", "b"]),
    ({"type": "string", "pattern": "^(\\w+\\s?)+$"}, ["a", "one two three"]),
    ({"type": "string", "pattern": "^[^\"]*\"$"}, ["\"", "ab\""]),
    ({"type": "string", "pattern": "^[a-z]*$", "minLength": 2, "maxLength": 5}, ["ab", "abcde"]),
    ({"type": "string", "pattern": "^x.*y$", "maxLength": 6}, ["xy", "xabcdy"]),
    ({"type": "integer"}, [0, 7, -12, 123456789012]),
    ({"type": "integer", "minimum": 3}, [3, 4, 10, 99999]),
    ({"type": "integer", "maximum": -3}, [-3, -10, -400]),
    ({"type": "integer", "minimum": -17, "maximum": 205}, [-17, -9, -1, 0, 9, 100, 199, 205]),
    ({"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 101}, [10, 55, 100]),
    ({"type": "integer", "minimum": 1.5, "maximum": 3.5}, [2, 3]),
    ({"type": "integer", "minimum": -9223372036854775808, "maximum": 9223372036854775807}, [0, -9223372036854775808, 9223372036854775807]),
    ({"type": "number"}, [0, -1, 1.5, -0.25, 1e10, 2.5e-7]),
    ({"type": "number", "minimum": 0, "maximum": 1}, [0, 0.0, 0.5, 1, 1.0, 0.999]),
    ({"type": "number", "exclusiveMinimum": 0}, [0.001, 1, 17.25]),
    ({"type": "number", "exclusiveMinimum": -2.5, "maximum": 10.75}, [-2.4, -0.5, 0, 9.99, 10.75, 10.5]),
    ({"type": "number", "maximum": -0.125}, [-0.125, -1, -30.5]),
    ({"enum": ["a", "ab", "abc", "\u00e9\"", 1, 1.5, None, True, [1, {"b": "c"}], {}]}, ["a", "ab", "abc", "\u00e9\"", 1, 1.5, None, True, [1, {"b": "c"}], {}]),
    ({"type": "string", "enum": ["x", 1, "y"]}, ["x", "y"]),
    ({"const": {"a": [1, "b"]}}, [{"a": [1, "b"]}]),
    ({"type": ["string", "null"]}, ["a", None]),
    ({"type": ["integer", "array"], "minimum": 5, "maxItems": 1}, [5, [], ["x"]]),
    ({"type": "array"}, [[], [1, "a", None]]),
    ({"type": "array", "items": {"type": "integer"}}, [[], [1], [1, 2, 3]]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, [[1, 2], [1, 2, 3]]),
    ({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1}, [["a"], ["a", "b", "a"]]),
    ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, [[]]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}, [[], ["a"], ["a", 1]]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": {"type": "null"}, "minItems": 1, "maxItems": 4},
     [["a"], ["a", 1], ["a", 1, None], ["a", 1, None, None]]),
    ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2}, [["a", 1]]),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": False}, [[1, 1]]),
    ({"type": "object"}, [{}, {"a": 1, "b": [{}]}]),
    ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": False},
     [{"a": "x", "b": 1}]),
    ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "null"}}, "additionalProperties": False},
     [{}, {"a": "x"}, {"b": 1}, {"c": None}, {"a": "", "c": None}, {"a": "x", "b": 1, "c": None}]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}, "d": {"type": "integer"}},
      "required": ["c"], "additionalProperties": False},
     [{"c": 1}, {"a": 1, "c": 1}, {"b": 1, "c": 1}, {"a": 1, "b": 1, "c": 1, "d": 1}, {"c": 1, "d": 2}]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}, "d": {"type": "integer"}},
      "required": ["a", "d"], "additionalProperties": False},
     [{"a": 1, "d": 1}, {"a": 1, "c": 1, "d": 1}, {"a": 1, "b": 1, "c": 1, "d": 1}]),
    ({"type": "object", "properties": {"ab": {"type": "integer"}, "a": {"type": "string"}}, "required": ["ab"], "additionalProperties": {"type": "boolean"}},
     [{"ab": 1}, {"ab": 1, "a": "x", "abc": True, "b": False}, {"ab": 2, "": True, "\u00e9": False}]),
    ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}, [{}, {"a": "x"}, {"b": 1}, {"a": "x", "b": 1, "c": 2}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2}, [{}, {"x": 1}, {"x": 1, "y": 2}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}, [{"x": 1}, {"x": 1, "y": 2}]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "minProperties": 1, "additionalProperties": False},
     [{"a": 1}, {"b": 1}, {"a": 1, "b": 2}]),
    ({"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}}, [{"x": 1}, {"x": 1, "y": 2}]),
    ({"properties": {"n": {"minimum": 2}}, "required": ["n"], "type": "object", "additionalProperties": False}, [{"n": 2}, {"n": 3.5}]),
    ({"anyOf": [{"type": "integer", "minimum": 10}, {"type": "string", "maxLength": 2}]}, [10, "ab", ""]),
    ({"type": "object", "properties": {"t": {"type": "string"}}, "additionalProperties": False,
      "anyOf": [{"required": ["t"]}, {"properties": {"t": False}}]}, [{"t": "x"}, {}]),
    (SHAPES, [{"kind": "circle", "r": 2.5}, {"kind": "square", "side": -1}]),
    ({"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}, ["a", 3, None]),
    ({"oneOf": [{"enum": [1, 2]}, {"enum": [3]}, {"type": "string"}]}, [1, 2, 3, "x"]),
    ({"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 30}, {"type": ["number", "string"]}]}, [2, 30]),
    ({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"a": {"minimum": 5}, "b": {"type": "string"}}, "required": ["b"], "additionalProperties": False}]}, [{"a": 5, "b": "x"}]),
    ({"type": "object", "properties": {"p": {"$ref": "#/$defs/P", "description": "d"}, "q": {"allOf": [{"$ref": "#/$defs/P"}]}}, "required": ["p", "q"],
      "additionalProperties": False, "$defs": {"P": {"enum": ["u", "v"]}}}, [{"p": "u", "q": "v"}]),
    ({"$ref": "#/$defs/a~1b/prefixItems/0", "$defs": {"a/b": {"prefixItems": [{"type": "boolean"}]}}}, [True]),
    ({"$ref": "#/$defs/P", "minimum": 4, "$defs": {"P": {"type": "integer", "maximum": 8}}}, [4, 8]),
    (TREE, [{"value": 1, "children": []}, {"value": 1, "children": [{"value": 2, "children": [{"value": 3, "children": []}]}]}]),
    ({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"], "additionalProperties": False},
     [{"next": None}, {"next": {"next": {"next": None}}}]),
    ({"type": "object", "properties": {"we\"ird\n": {"type": "integer"}, "\u00e9": {"type": "integer"}}, "required": ["we\"ird\n", "\u00e9"],
      "additionalProperties": False}, [{"we\"ird\n": 1, "\u00e9": 2}]),
    ({"type": "string", "format": "date"}, ["2024-02-28", "1999-12-31"]),
    ({"type": "string", "format": "date-time"}, ["2024-02-28T23:59:59Z", "2024-01-01T00:00:00.25+02:00"]),
    ({"type": "string", "format": "ipv4"}, ["0.0.0.0", "192.168.1.255"]),
    ({"type": "string", "format": "ipv6"}, ["2001:db8:0:0:0:0:0:1"]),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"]),
    ({"type": "string", "format": "email"}, ["ann.lee+x@mail.example.com"]),
    ({"type": "string", "format": "colour"}, ["red"]),
]
OTHERS = [None, True, -1, 0, 1, 2.5, 7, 1000, "", "a", "zz", "x" * 300, [], [1], {}, {"a": 1}]


def texts(instance):
    return sorted({json.dumps(instance, ensure_ascii=False), json.dumps(instance, ensure_ascii=False, separators=(",", ":")),
                   json.dumps(instance, ensure_ascii=False, indent=2)})


def places(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed(instance, rng):
    """The instance with one value replaced, left out or added."""
    value = {"top": copy.deepcopy(instance)}
    path = ("top", *rng.choice(list(places(instance))))
    owner = value
    for key in path[:-1]:
        owner = owner[key]
    at = owner[path[-1]]
    how = rng.randrange(6)
    if how == 0 and len(path) > 1:
        del owner[path[-1]]
    elif how == 1 and isinstance(at, dict):
        at[rng.choice(["zz", "a", "b", "ab"])] = rng.choice(OTHERS)
    elif how == 1 and isinstance(at, list):
        at.append(rng.choice(OTHERS))
    elif how == 2 and isinstance(at, (int, float)) and not isinstance(at, bool):
        owner[path[-1]] = at + rng.choice([-1000, -10, -1, -0.5, 0.5, 1, 10, 1000])
    elif how == 3 and isinstance(at, str):
        owner[path[-1]] = rng.choice([at + "x", at[:-1], at.upper(), "\u00e9" + at, at + "\n"])
    else:
        owner[path[-1]] = rng.choice(OTHERS)
    return value["top"]


def make():
    rng = random.Random(5)
    cases = []
    for schema, instances in CASES:
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema)
        for instance in instances:
            assert validator.is_valid(instance), (schema, instance)
        wrong = []
        for _ in range(200):
            instance = changed(rng.choice(instances), rng)
            text = json.dumps(instance, ensure_ascii=False)
            if not validator.is_valid(instance) and text not in wrong:
                wrong.append(text)
        cases.append({"schema": schema, "valid": [t for i in instances for t in texts(i)], "invalid": wrong[:25]})
    print("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]")


def check(path):
    count = bad = 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            count += 1
            validator = Draft202012Validator(row["schema"], format_checker=Draft202012Validator.FORMAT_CHECKER)
            errors = [e.message for e in validator.iter_errors(json.loads(row["text"]))]
            if errors:
                bad += 1
                print(f"{row['schema']}\n  {row['text']}\n  {errors[0]}")
    print(f"{count} texts, {bad} not accepted")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(check(sys.argv[2]) if sys.argv[1:2] == ["--check"] else make())
