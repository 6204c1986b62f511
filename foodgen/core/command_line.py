"""What every script shares: arguments in, one clear line and an exit status out."""

import sys
from collections.abc import Callable, Sequence

from foodgen.core import distributed
from foodgen.core.errors import UserError


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Call `main` with the command line and exit: 0 or what it returns, 2 for a user's mistake."""
    try:
        status = main(sys.argv[1:])
        distributed.stop()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
