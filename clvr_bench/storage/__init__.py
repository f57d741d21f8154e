"""How pictures in files become fast splits: a catalogue of the files, a cache of their pixels, or workers that decode.

What worker processes import (``tasks``, ``workers``) needs no torch; nor does this package's front door.
"""
