"""HTTP: the API, the pages for people, metrics and health. Reads through `queries`, changes through the source control port."""
