"""`python -m foretoken` does what the `foretoken` command does."""

from foretoken.cli.main import main

if __name__ == "__main__":
    main()
