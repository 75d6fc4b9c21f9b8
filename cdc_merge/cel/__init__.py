"""Expressions in CEL (cel.dev), behind the port conflicts/expression_port.py.

The library parses the text: grammar, macros and their errors are Google's (cel-expr-python, CEL C++). Types and
evaluation are ours (docs/adr/0001-expressions.md): one exact number type, so that integers and decimals mix and money is
never rounded, and the rules of NULL and unknown. `matches` uses the library's RE2: linear time for every pattern.
"""

from cdc_merge.cel.expressions import compile_expression

__all__ = ["compile_expression"]
