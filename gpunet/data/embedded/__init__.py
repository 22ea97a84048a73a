"""The two data sets that lie in the package; their terms are in LICENSES.md, their making in build.py."""
