"""The tensors that most functions take and return, by their shape."""

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
"""Images, or candidates for them, with pixels in [0, 1]."""
Labels = Int[Tensor, " batch"]
"""The true class of each image, from 0."""
Logits = Float[Tensor, "batch classes"]
"""The model's score of each class for each image."""
