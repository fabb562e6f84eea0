"""What the objectives are computed from, and the null models that fits are compared with; plain arrays only."""

from sparsenode.objectives._transport import Transport

__all__ = ["Transport"]
