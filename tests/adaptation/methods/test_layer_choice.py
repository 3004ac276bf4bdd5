"""A choice of layers that cannot be meant is refused."""

import pytest

from adaptation.errors import ConfigError
from adaptation.methods.layer_choice import chosen_layers, first_half


def test_the_first_half_is_never_empty_and_holds_the_middle_layer() -> None:
    assert [sum(first_half(count)) for count in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert first_half(4) == (True, True, False, False)


@pytest.mark.parametrize(
    ("layers", "message"), [((True,), "expected 2 flags"), ((), "expected 2"), ((False,) * 2, "off")]
)
def test_flags_that_do_not_fit_or_choose_nothing_are_an_error(layers: tuple[bool, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_layers(layers, 2)
