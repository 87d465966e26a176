"""For tests of your own: workflows in milliseconds, decisions as given/when/then, and what a test may cost.

No NATS, no network, no sleeping. The fixtures are opt-in: `pytest_plugins = ["trunkline.testing.plugin"]`.
"""

from trunkline.testing.callers import Reply, ScriptedCaller, fails, hangs, says
from trunkline.testing.costs import CostTracker, OverBudget
from trunkline.testing.decisions import Given, Outcome, given
from trunkline.testing.runs import Ran, resume_history, run_workflow
from trunkline.testing.virtual_time import VirtualTime

__all__ = [
    "CostTracker",
    "Given",
    "Outcome",
    "OverBudget",
    "Ran",
    "Reply",
    "ScriptedCaller",
    "VirtualTime",
    "fails",
    "given",
    "hangs",
    "resume_history",
    "run_workflow",
    "says",
]
