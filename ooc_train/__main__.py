"""``python -m ooc_train``: the command line, where its script is not on the path."""

from ooc_train.cli import main

if __name__ == "__main__":
    main()
