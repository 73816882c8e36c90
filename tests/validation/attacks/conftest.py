"""Lets the tests of this folder share attack_run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
