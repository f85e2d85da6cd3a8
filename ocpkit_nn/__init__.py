"""The neural adapter: layers are stages, weights are controls.

The public names stand in ``__init__.pyi``, each with its home, and are loaded when they are first used, so that the
import does without torch. Data sets are in `ocpkit_nn.data`; `losses` and `networks` are modules, whose functions find
a loss or a network by its name.
"""

from ocpkit.lazy import lazily

__getattr__, __dir__ = lazily(__name__)
