"""How many random examples each property sees.

25 by default; 500 with ``pytest tests/properties --hypothesis-profile=thorough`` or HYPOTHESIS_PROFILE=thorough.
"""

import os

from hypothesis import HealthCheck, Phase, settings

slow_is_fine = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", max_examples=25, **slow_is_fine)
settings.register_profile("thorough", max_examples=500, **slow_is_fine)
settings.register_profile(
    "mutation", max_examples=10, derandomize=True, database=None, phases=[Phase.generate], **slow_is_fine
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
