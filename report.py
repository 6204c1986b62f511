"""Tables for the reports: python3 report.py exp.config_path=configs/reports/gan_sizes.yaml"""

from collections.abc import Sequence
from pathlib import Path

from foodgen import recipe
from foodgen.core import command_line, config
from foodgen.core.settings import Report


def main(arguments: Sequence[str]) -> None:
    """Write the table into its file, and show it."""
    settings = config.load(arguments, Report)
    text = recipe.report(settings)
    target = Path(settings.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    print(text, end="")
    print(f"written to {target}")


if __name__ == "__main__":
    command_line.run(main)
