"""The digests must cover files that exist: a renamed file would leave changes unseen."""

import pytest

from streams.evaluate.code_state import _ROOT, CHOICE_CODE, POLICY_CODE, SOURCE_CODE, code_digest


@pytest.mark.parametrize("pattern", POLICY_CODE)
def test_every_pattern_names_a_file(pattern: str) -> None:
    assert list(_ROOT.glob(pattern))


def test_digests_differ_by_what_they_cover() -> None:
    assert len({code_digest(), code_digest(SOURCE_CODE), code_digest(CHOICE_CODE), code_digest(POLICY_CODE)}) == 4
    assert code_digest(SOURCE_CODE) == code_digest(tuple(reversed(SOURCE_CODE)))
