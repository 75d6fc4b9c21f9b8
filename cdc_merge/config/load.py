"""A file → settings, or one report of all its problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from cdc_merge.config.check_context import CheckContext
from cdc_merge.config.checks.file_checks import CHECKS
from cdc_merge.config.problems import ConfigProblem, path_text
from cdc_merge.config.problems import Path as Place
from cdc_merge.config.schema.file_schema import ConfigShape, PostgresShape
from cdc_merge.config.schema.schema_problems import validate
from cdc_merge.config.settings import Secret, Settings
from cdc_merge.config.settings_builder import settings_of
from cdc_merge.config.warnings import WARNINGS
from cdc_merge.config.yaml_source import Document
from cdc_merge.errors import ConfigError

LARGEST_BYTES: Final = 1024 * 1024  # a larger file is not a configuration; the parser takes six seconds for this
HINT: Final = "Fix these lines; check again with `cdc-merge check-config`."


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """The settings of a file. ConfigError with every problem, each as `file:line: path: sentence (suggestion)`.

    `environment` provides the values of `${NAME}` and the default path of the store. The `dsn_file`s are read.
    """
    document = Document(environment)
    document.read(_read_text(path))
    shape, schema_problems = validate(document.values) if document.values else (None, [])
    problems = [*document.problems, *schema_problems]
    if shape is None:
        raise config_error(path, document.lines, problems)
    context = CheckContext(shape, document.values)
    secrets, unreadable = _connection_strings(shape, path.parent)
    contradictions = [problem for check in CHECKS for problem in check(context)]
    problems += _unreported(problems, [*contradictions, *unreadable])
    if problems:
        raise config_error(path, document.lines, problems)
    warnings = [problem for warning in WARNINGS for problem in warning(context)]
    return settings_of(
        shape, secrets, environment, (path, document.lines, tuple(problem_lines(path, document.lines, warnings)))
    )


def config_error(path: Path, lines: Mapping[Place, int], problems: Iterable[ConfigProblem]) -> ConfigError:
    """One error with all of these problems, in the order of the file."""
    sentences = tuple(problem_lines(path, lines, problems))
    number = f"{len(sentences)} problems" if len(sentences) > 1 else "a problem"
    return ConfigError(f"{path} has {number}", hint=HINT, problems=sentences)


def problem_lines(path: Path, lines: Mapping[Place, int], problems: Iterable[ConfigProblem]) -> Iterator[str]:
    """`file:line: path: sentence (suggestion)` of each problem, in the order of the file, without duplicates."""
    numbered = dict.fromkeys((_line(lines, problem.path), problem) for problem in problems)
    for line, problem in sorted(numbered, key=lambda pair: pair[0]):
        place = f"{path}:{line}: " + (f"{path_text(problem.path)}: " if any(problem.path) else "")
        yield place + problem.sentence + (f" ({problem.suggestion})" if problem.suggestion else "")


def _line(lines: Mapping[Place, int], path: Place) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _unreported(problems: list[ConfigProblem], more: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    """Without problems at or below a path that has one already: they would repeat it in other words."""
    reported = {problem.path for problem in problems}
    return [p for p in more if not any(p.path[:length] in reported for length in range(1, len(p.path) + 1))]


def _read_text(path: Path) -> str:
    hint = "Set the file with --config FILE or CDC_MERGE_CONFIG."
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ConfigError(f"{path} is larger than {LARGEST_BYTES} bytes: not a configuration", hint=hint)
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
            problems.append(ConfigProblem(("sources", name, "dsn_file"), "the file is not UTF-8 text"))
    return secrets, problems
