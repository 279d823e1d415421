"""Dedupe keys: these bytes must never change, so that every message counts once forever."""

from hashlib import blake2b
from uuid import UUID

import pytest

from domain.shared.stream_keys import KEY_BYTES, dedupe_key, stream_id

MESSAGE_ID = "0198f0c2-7a3b-7c4d-8e5f-0123456789ab"
WORKER = "/photo-processing/worker-7"


def digest(source: str, message_id: str, size: int) -> bytes:
    return blake2b(f"{source}\0{message_id}".encode(), digest_size=size).digest()


@pytest.mark.parametrize(
    ("source", "message_id", "key"),
    [
        (WORKER, MESSAGE_ID, "0198f0c27a3b8ad0232c67f7f5649a5e"),
        (WORKER, "report 17", "ff75f20860ae75eca9e80b53cf461f6d"),
        ("", "", "7025e075d5e2f6cde3cc051a31f07660"),
    ],
)
def test_stored_keys_never_change(source: str, message_id: str, key: str) -> None:
    assert dedupe_key(source, message_id).hex() == key


def test_a_key_starts_with_the_time_of_a_uuid() -> None:
    key = dedupe_key(WORKER, MESSAGE_ID)
    assert key[:6] == UUID(MESSAGE_ID).bytes[:6]
    assert key[6:] == digest(WORKER, MESSAGE_ID, 10)


def test_later_uuids_sort_after_earlier_ones() -> None:
    earlier, later = MESSAGE_ID, MESSAGE_ID.replace("7a3b", "7a3c")
    assert dedupe_key(WORKER, earlier) < dedupe_key("/another", later)


@pytest.mark.parametrize(
    "message_id",
    [
        pytest.param("1042", id="a number"),
        pytest.param("", id="empty"),
        pytest.param(MESSAGE_ID.replace("-", ""), id="a UUID without hyphens"),
        pytest.param("{" + MESSAGE_ID + "}", id="a UUID in braces"),
        pytest.param("urn:uuid:" + MESSAGE_ID, id="a UUID as a name"),
        pytest.param(MESSAGE_ID[:-1], id="a digit short"),
        pytest.param("x198f0c2" + MESSAGE_ID[8:], id="not hexadecimal in front"),
        pytest.param("0198f0c2-7a3g" + MESSAGE_ID[13:], id="not hexadecimal in the second group"),
        pytest.param("01 8f0c2" + MESSAGE_ID[8:], id="a space among the digits"),
        pytest.param("01  f0c2" + MESSAGE_ID[8:], id="two spaces, which a lenient parser skips"),
        pytest.param("\N{ARABIC-INDIC DIGIT ZERO}198f0c2" + MESSAGE_ID[8:], id="a digit of another script"),
        pytest.param(MESSAGE_ID.replace("-", "_"), id="other separators"),
        pytest.param(MESSAGE_ID[:13] + "x" + MESSAGE_ID[14:], id="one other separator"),
        pytest.param("médaille d'or 🥇", id="not ASCII"),
        pytest.param("m" * 128, id="the longest"),
    ],
)
def test_any_other_id_is_hashed_completely(message_id: str) -> None:
    assert dedupe_key(WORKER, message_id) == digest(WORKER, message_id, 16)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("ab", "c"), ("a", "bc"), id="the border between source and id counts"),
        pytest.param(("", "abc"), ("abc", ""), id="even at the ends"),
        pytest.param((WORKER, MESSAGE_ID), ("/elsewhere", MESSAGE_ID), id="another source"),
        pytest.param((WORKER, MESSAGE_ID), (WORKER, MESSAGE_ID.upper()), id="case counts: ids are strings"),
        pytest.param((WORKER, "é"), (WORKER, "e\u0301"), id="so does the way a letter is composed"),
        pytest.param((WORKER, MESSAGE_ID), (WORKER, MESSAGE_ID[:-1] + "c"), id="the last digit"),
    ],
)
def test_different_messages_have_different_keys(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert dedupe_key(*one) != dedupe_key(*other)


def test_an_upper_case_uuid_is_still_a_uuid() -> None:
    assert dedupe_key(WORKER, MESSAGE_ID.upper())[:6] == UUID(MESSAGE_ID).bytes[:6]


@pytest.mark.parametrize("message_id", ["1", MESSAGE_ID, "🥇" * 36])
def test_a_key_has_sixteen_bytes(message_id: str) -> None:
    assert len(dedupe_key(WORKER, message_id)) == KEY_BYTES == 16


def test_a_stream_is_derived_from_the_platforms_id() -> None:
    assert stream_id("org-4711") == UUID("9da2e03a-8e69-5589-8fbb-a49d6e7d9d6d")
    assert stream_id("org-4711") != stream_id("ORG-4711")
    assert stream_id("org-é") != stream_id("org-e")
