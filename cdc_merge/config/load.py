"""A file → settings, or one report of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from cdc_merge.config.check_context import CheckContext
from cdc_merge.config.checks.file_checks import CHECKS
from cdc_merge.config.problems import ConfigProblem, path_text
from cdc_merge.config.problems import Path as Place
from cdc_merge.config.schema.file_schema import ConfigShape, PostgresShape
from cdc_merge.config.schema.schema_problems import shaped
from cdc_merge.config.settings import Secret, Settings
from cdc_merge.config.settings_builder import settings_of
from cdc_merge.config.warnings import WARNINGS
from cdc_merge.config.yaml_source import Document
from cdc_merge.errors import ConfigError

LARGEST_BYTES: Final = 4 * 1024 * 1024  # a configuration of this size is some other file
HINT: Final = "Mend these places; cdc-merge check-config lists what is left."


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """The settings of a file. ConfigError with every problem, each as `file:line: path: sentence (suggestion)`.

    `environment` gives the values of `${NAME}` and the default place of the store. Files named by `dsn_file` are read.
    """
    document = Document(environment)
    document.read(_text(path))
    shape, misshapen = shaped(document.values) if document.values else (None, [])
    problems = [*document.problems, *misshapen]
    if shape is None:
        raise config_error(path, document.lines, problems)
    subject = CheckContext(shape, document.values)
    secrets, unreadable = _connection_strings(shape, path.parent)
    found = [problem for check in CHECKS for problem in check(subject)]
    problems += _unreported(problems, [*found, *unreadable])
    if problems:
        raise config_error(path, document.lines, problems)
    warnings = [problem for warning in WARNINGS for problem in warning(subject)]
    return settings_of(
        shape, secrets, environment, (path, document.lines, tuple(problem_lines(path, document.lines, warnings)))
    )


def config_error(path: Path, lines: Mapping[Place, int], problems: Iterable[ConfigProblem]) -> ConfigError:
    """The error that reports all of these problems, in the order of the file."""
    sentences = tuple(problem_lines(path, lines, problems))
    number = f"{len(sentences)} problems" if len(sentences) > 1 else "a problem"
    return ConfigError(f"{path} has {number}", hint=HINT, problems=sentences)


def problem_lines(path: Path, lines: Mapping[Place, int], problems: Iterable[ConfigProblem]) -> Iterator[str]:
    """`file:line: path: sentence (suggestion)` of each problem, in the order of the file, each once."""
    placed = dict.fromkeys((_line(lines, problem.path), problem) for problem in problems)
    for line, problem in sorted(placed, key=lambda pair: pair[0]):
        place = f"{path}:{line}: " + (f"{path_text(problem.path)}: " if any(problem.path) else "")
        yield place + problem.sentence + (f" ({problem.suggestion})" if problem.suggestion else "")


def _line(lines: Mapping[Place, int], path: Place) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _unreported(problems: list[ConfigProblem], found: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    """Without those at or below a place that has a problem already: they would say the same in other words."""
    reported = {problem.path for problem in problems}
    return [p for p in found if not any(p.path[:length] in reported for length in range(1, len(p.path) + 1))]


def _text(path: Path) -> str:
    hint = "Name the file with --config FILE or CDC_MERGE_CONFIG."
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ConfigError(f"{path} is larger than {LARGEST_BYTES} bytes and not a configuration", hint=hint)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})", hint="Save the file as UTF-8.") from None


def _connection_strings(shape: ConfigShape, directory: Path) -> tuple[dict[str, Secret], list[ConfigProblem]]:
    secrets: dict[str, Secret] = {}
    problems: list[ConfigProblem] = []
    for name, source in shape.sources.items():
        if not isinstance(source, PostgresShape) or source.dsn is not None or source.dsn_file is None:
            secrets[name] = Secret((source.dsn or "") if isinstance(source, PostgresShape) else "")
            continue
        try:
            secrets[name] = Secret((directory / source.dsn_file).read_text(encoding="utf-8").strip())
        except OSError as error:
            sentence = f"{directory / source.dsn_file} cannot be read: {error.strerror}"
            problems.append(ConfigProblem(("sources", name, "dsn_file"), sentence))
        except UnicodeDecodeError:
            problems.append(ConfigProblem(("sources", name, "dsn_file"), "the file does not hold UTF-8 text"))
    return secrets, problems
