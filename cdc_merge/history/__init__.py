"""Step 3: the history, a log of changes ordered by HLC stamp: its order and the codec of its entries. Pure."""
