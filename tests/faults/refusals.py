"""What a user reads when a call is refused."""

import pytest

from foodgen.core.errors import UserError


def refused(call, *arguments):
    """What a user reads when a call is refused: one line, as the command line prints it."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700
    return str(caught.value)
