"""How many random examples each property sees.

25 by default. Before a release, 500 and ten seeds (about five minutes of one core each):

    for seed in 0 1 2 3 4 5 6 7 8 9; do
        python -m pytest tests/properties --hypothesis-profile=thorough --hypothesis-seed=$seed || break
    done

or HYPOTHESIS_PROFILE=thorough, where more than this folder is run.
"""

import os

from hypothesis import HealthCheck, settings

slow_is_fine = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", max_examples=25, **slow_is_fine)
settings.register_profile("thorough", max_examples=500, **slow_is_fine)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
