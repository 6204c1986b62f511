"""The command `foodgen`: foodgen train exp.config_path=edm [key=value …]"""

from collections.abc import Callable, Sequence

from foodgen.commands import check, export, inference, prepare, report, serve, train
from foodgen.commands.help import describe_keys, describe_parts
from foodgen.core import command_line
from foodgen.core.errors import ConfigError
from foodgen.core.registry import suggestion
from foodgen.core.settings import Check, Config, ExportConfig, Prepare, Report, Serve

ALONE = ("check", "serve", "prepare")  # commands whose bundled configuration of the same name needs not be given
Command = tuple[Callable[[Sequence[str]], int | None], type, str]
COMMANDS: dict[str, Command] = {
    "train": (train.main, Config, "train a model"),
    "sample": (inference.main, Config, "sample images of a trained model, and score them"),
    "score": (inference.score, Config, "score a folder of images, inference.images"),
    "export": (export.main, ExportConfig, "write a checkpoint's averaged weights alone"),
    "check": (check.main, Check, "look for broken, wrong and repeated photos before a training"),
    "prepare": (prepare.main, Prepare, "make a set of small square photos"),
    "report": (report.main, Report, "make figures and tables of a report"),
    "serve": (serve.main, Serve, "open a page to sample from models and to watch runs"),
}


def usage() -> str:
    """What `foodgen --help` prints."""
    lines = [f"  {name:8} {summary}" for name, (*_, summary) in COMMANDS.items()]
    lines += ["  list     list registered parts: foodgen list samplers"]
    return "\n".join(
        [
            "usage: foodgen COMMAND exp.config_path=FILE_OR_NAME [key=value …]",
            *lines,
            "foodgen COMMAND --help lists a command's keys",
        ]
    )


def with_configuration(name: str, arguments: Sequence[str]) -> list[str]:
    """A command's arguments, with its bundled configuration where it has one and none is given."""
    given = any(argument.split("=")[0] == "exp.config_path" for argument in arguments)
    return [*arguments] if given or name not in ALONE else [f"exp.config_path={name}", *arguments]


def main(arguments: Sequence[str]) -> int | None:
    """Run a command; the exit status. Raises UserError."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "list":
        print(describe_parts(rest))
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"there is no command '{name}'; {suggestion(name, [*COMMANDS, 'list'])}")
    run, schema, summary = COMMANDS[name]
    if "--help" in rest or "-h" in rest:
        print(f"foodgen {name}: {summary}\n\n{describe_keys(schema)}")
        return 0
    return run(with_configuration(name, rest))


def script(name: str) -> None:
    """What the script of a command does with the command line."""
    command_line.run(lambda arguments: main([name, *arguments]))


def entry() -> None:
    """What the installed command does."""
    command_line.run(main)


if __name__ == "__main__":
    entry()
