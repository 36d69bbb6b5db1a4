"""Every causal and image-text family of the installed transformers, on tiny random models (slow).

A family that transformers adds is in the loop by itself; docs/families.md (`python -m tests.models.families_page`) says
what came of each.
"""

import pytest

from tests.models.families_page import REASONS, reason
from tests.models.family_checks import checked
from tests.models.tiny_families import ALL, VARIANTS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", [*ALL, *VARIANTS])
def test_a_family_runs_as_its_own_code_does_or_is_refused_for_its_own_reason(family):
    found = checked(family)
    if found.refused:
        assert reason(found) in REASONS.values(), found.refused
    assert not found.faults
