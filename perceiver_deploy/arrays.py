"""Arrays by the name of the input or output they are."""

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]
