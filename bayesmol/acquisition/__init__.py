"""What should I measure next? Batches that are informative together, with a random baseline beside them."""

from bayesmol.acquisition.batches import greedy_log_determinant, information_gain
from bayesmol.acquisition.pool import Selection, select

__all__ = ["Selection", "greedy_log_determinant", "information_gain", "select"]
