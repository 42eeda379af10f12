from __future__ import annotations

import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tristream.store.lineage import LIBRARIES, canonical_json, digest, space_id, versions

DEFINITION = {
    "stream": "audio",
    "stream_schema": 1,
    "config": {"n_frames": 96, "hop_frames": 48, "widths": [8, 16]},
    "sampler": {"method": "adaptive", "n_samples": 180},
    "encoder_sha256": "ab" * 32,
    "model_sha256": "cd" * 32,
    "precision": "float32",
    "schema": 1,
}

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_a_space_is_named_by_sixteen_hex_digits_that_anybody_can_compute_again():
    text = json.dumps(DEFINITION, sort_keys=True, separators=(",", ":"))
    assert space_id(DEFINITION) == hashlib.sha256(text.encode()).hexdigest()[:16]


@given(st.dictionaries(st.text(), values, min_size=2), st.randoms(use_true_random=False))
def test_a_space_does_not_depend_on_the_order_of_its_keys(definition, shuffler: random.Random):
    keys = list(definition)
    shuffler.shuffle(keys)
    assert space_id({key: definition[key] for key in keys}) == space_id(definition)


def parts(value, path=()):
    if isinstance(value, dict):
        for key in value:
            yield from parts(value[key], (*path, key))
    else:
        yield path


def changed(definition, path):
    copy = json.loads(json.dumps(definition))
    *parents, key = path
    place = copy
    for parent in parents:
        place = place[parent]
    value = place[key]
    place[key] = (
        value + 1
        if isinstance(value, int)
        else [*value, 1]
        if isinstance(value, list)
        else value + "x"
    )
    return copy


@pytest.mark.parametrize("path", list(parts(DEFINITION)), ids=".".join)
def test_a_space_changes_with_every_part_of_its_definition(path):
    assert space_id(changed(DEFINITION, path)) != space_id(DEFINITION)
    fewer = {key: value for key, value in DEFINITION.items() if key != path[0]}
    assert space_id(fewer) != space_id(DEFINITION)


def test_equal_values_have_one_digest_whatever_their_type_in_python():
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})
    assert digest(["ä"]) != digest(["a"])
    assert digest([1]) != digest(["1"])
    assert digest([True]) != digest([1])


@given(values)
def test_canonical_json_says_all_there_is_to_say(value):
    assert json.loads(canonical_json(value)) == value


def test_a_number_that_is_not_one_has_no_digest():
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"rate": float("nan")})


def test_versions_name_every_library_whose_arithmetic_can_reach_a_result():
    found = versions()
    assert found.keys() == {"python", *LIBRARIES}
    assert found["numpy"] == __import__("numpy").__version__
    assert found["av"] != "absent"


def test_a_library_that_is_missing_is_said_to_be_absent(monkeypatch):
    monkeypatch.setattr("tristream.store.lineage.LIBRARIES", ("no-such-distribution",))
    assert versions()["no-such-distribution"] == "absent"
