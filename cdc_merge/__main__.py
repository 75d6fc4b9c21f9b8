"""`python -m cdc_merge`: the command line without the console script."""

from cdc_merge.cli.main import main

if __name__ == "__main__":
    main()
