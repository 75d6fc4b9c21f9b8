"""Expressions in CEL (cel.dev), behind the port conflicts/expression_port.py.

The library reads the text: grammar, macros and their errors are Google's (cel-expr-python, CEL C++). Types and values
are ours (docs/adr/0001-expressions.md): one exact kind of number, so that integers and decimals mix and money does not
round, and the rules of NULL and unknown. `matches` is the library's RE2 again: a pattern never takes longer than
linear time.
"""

from cdc_merge.cel.expressions import compile_expression

__all__ = ["compile_expression"]
