"""What several ops share: sizes (shapes.py) and the layout of windows for the NumPy definitions (windows.py)."""
