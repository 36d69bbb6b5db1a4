"""What fits follows free memory."""

from harness.engine.budget import Budget


def test_budget_follows_free_memory():
    budget = Budget(free=60 * 2**30, passing=135_000, staying=32_768)
    assert budget.tokens_per_batch() == 32768
    assert budget.chunk(1, 131_072) > 131_072  # fits whole
    assert budget.chunk(1, 2_097_152) == 16_384  # the stream alone fills the memory
    assert Budget(free=2**30, passing=135_000, staying=32_768).tokens_per_batch() == 5120
