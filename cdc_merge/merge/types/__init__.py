"""One module per merge type; `TYPES` is the table that names them."""
