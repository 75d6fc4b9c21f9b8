"""HTTP: the API, the pages for people, metrics and health. Reads go through `queries`, changes through SourceControlPort."""
