"""Would the suite notice? Plants famous bugs in a copy of the package, one at a time: `python -m tests.mutation`."""
