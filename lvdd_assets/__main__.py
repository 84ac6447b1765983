"""`lvdd`, and `python -m lvdd_assets`: the command line."""

from lvdd_assets.cli import main

if __name__ == "__main__":
    main()
