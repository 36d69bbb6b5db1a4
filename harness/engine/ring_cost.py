"""What passing keys and values round costs, counted, against gathering them once: one layer, one rank."""

from dataclasses import dataclass

from harness.engine.stripes import Stripes
from harness.models.parts import CausalLM, widths


@dataclass(frozen=True)
class Cost:
    """Of one layer that sees everything, on one rank; a window of `length` tokens in `rounds`."""

    length: int
    ranks: int
    rounds: int
    tokens: int  # of a rank in a round
    received: float  # bytes; every round receives again what lies before it
    gathered: float  # bytes, if all ranks held everything: received once
    held: float  # bytes of keys and values
    attention: float  # FLOPs

    @classmethod
    def of(cls, model: CausalLM, rows: int, stripes: Stripes) -> "Cost":
        """Counted for `rows` windows at once."""
        width, ranks, rounds = widths(model), stripes.ranks, stripes.rounds
        keys = 2 * rows * width.keys * model.dtype.itemsize * stripes.padded  # of the whole window
        gathered = keys * (ranks - 1) / ranks
        # of the last round half of a pair is seen on average, of those before it everything
        received = gathered * sum(round_ + 0.75 for round_ in range(rounds)) / rounds
        attention = 2 * rows * width.hidden * stripes.padded**2 / ranks
        tokens = 2 * stripes.size
        return cls(stripes.length, ranks, rounds, tokens, received, gathered, keys / ranks, attention)

    def __str__(self) -> str:
        return (
            f"a window of {self.length} tokens over {self.ranks} ranks: {self.rounds} rounds of {self.tokens} tokens a "
            f"rank; a layer's keys and values: {self.held / 1e9:.3g} GB held and {self.received / 1e9:.3g} GB received "
            f"by each, behind {self.attention / 1e12:.3g} TFLOP of attention "
            f"(gathered: {self.gathered / 1e9:.3g} GB received, {self.held * self.ranks / 1e9:.3g} GB held)"
        )
