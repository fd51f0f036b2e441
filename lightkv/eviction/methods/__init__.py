"""Every evictor, one file per method: its own parts and its composition.

Importing this package imports every file in it; each registers what it defines.
"""

from lightkv.contract.registry import load_folder

load_folder(__name__, __path__)
