"""JSON that anyone may have written: one ValueError of one line for all that is not plain, bounded JSON."""

import json

import pytest

from structprune import strict_json


def test_plain_json_reads_as_json_does():
    text = '{"a": [1, -2.5, true, null, "ü \\ud83d\\ude00"], "b": {"c": {}}, "": 9223372036854775807}'
    assert strict_json.parse(text) == json.loads(text)
    assert strict_json.parse("[" * 150 + "]" * 150) == json.loads("[" * 150 + "]" * 150)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' comes twice"),
        ('[{"a": {"b": 1, "b": 1}}]', "the key 'b' comes twice"),
        ("[NaN]", "NaN is not a number in JSON"),
        ("[-Infinity]", "-Infinity is not a number in JSON"),
        ("[1e999]", "too large for a float"),
        ("[9223372036854775808]", "64 bits"),
        ("[" + "9" * 5000 + "]", r"64 bits|integer string conversion"),
        ("[" * 201 + "]" * 201, "nested deeper than 200 levels"),
        ("[" * 100_000, "nested deeper than 200 levels"),
        ('{"a":' * 100_000, "nested deeper than 200 levels"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\udc00": 1}', "half of a surrogate pair"),
        ("[1] 2", "Extra data"),
        ("\ufeff[1]", "BOM"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        strict_json.parse(text)
    assert "\n" not in str(caught.value)


def test_bounds_on_size_and_amount(monkeypatch):
    monkeypatch.setattr(strict_json, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="101 characters, over the limit of 100"):
        strict_json.parse('"' + "a" * 99 + '"')
    monkeypatch.setattr(strict_json, "MAX_VALUES", 10)
    with pytest.raises(ValueError, match="more than 10 values"):
        strict_json.parse("[" + "[]," * 10 + "[]]")


def test_what_can_t_be_read_back_is_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.dump({"a": float("nan")})
    with pytest.raises(TypeError):
        strict_json.dump({"a": {1}})
