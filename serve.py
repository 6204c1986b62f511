"""Open a page to sample and to watch runs: python3 serve.py exp.config_path=configs/serve.yaml [key=value …]"""

from foodgen.commands import cli
from foodgen.commands.serve import main

__all__ = ["main"]

if __name__ == "__main__":
    cli.script("serve")
