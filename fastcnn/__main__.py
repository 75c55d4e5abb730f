"""``python -m fastcnn``: the same as the ``fastcnn`` command."""

from fastcnn.cli import main

if __name__ == "__main__":
    main()
