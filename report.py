"""Figures and tables of a report: python3 report.py exp.config_path=configs/report/diffusion.yaml [refresh=true]"""

from foodgen.commands import cli
from foodgen.commands.report import main

__all__ = ["main"]

if __name__ == "__main__":
    cli.script("report")
