"""YAML → frozen settings; all problems in one report, each with its place and a suggestion."""
