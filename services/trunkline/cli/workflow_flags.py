"""The verbs about workflows and their runs."""

from trunkline.cli.flags import Verbs, add_client, add_entry, add_group, add_page, add_reason
from trunkline.cli.key_flags import span


def add_workflows(verbs: Verbs) -> None:
    """Add the verbs about workflows."""
    workflows = add_group(verbs, "workflows", "workflows", "run workflows; list, show, cancel and signal their runs")
    text = "run a workflow here: its progress on stderr, its output alone on stdout"
    running = add_client(workflows.verbs, "run", "workflow_run:run", text)
    text = "a .py file or a dotted name; which workflow, where it has several"
    running.add_argument("workflow", metavar="FILE|MODULE[:NAME]", help=text)
    running.add_argument("--input", metavar="JSON|@FILE|-", help="its input; `-` reads it from stdin")
    running.add_argument("--id", metavar="ID", help="the run's id; the same again goes on with the same run")
    running.add_argument("--thread", metavar="T", help="the thread of its chats (default: one of its own)")
    running.add_argument("--deadline", metavar="TIME", type=span, help="how long it may take, like 10m")
    running.add_argument("--detach", action="store_true", help="print its id, and leave it to other processes")
    running.epilog = "Ctrl-C leaves the run where it is: the same command with --id goes on with it"
    listing = add_page(workflows)
    listing.add_argument("--workflow", metavar="W", help="only runs of this workflow")
    states = ["running", "completed", "failed", "cancelled"]
    listing.add_argument("--status", choices=states, help="only those")
    add_entry(workflows, "show", "show a run: its steps in order, what they took and cost, and what came of it")
    add_reason(add_entry(workflows, "cancel", "end a run; the chats that it waits for are aborted"))
    signalling = add_entry(workflows, "signal", "tell a run what one of its steps waits for")
    signalling.add_argument("name", metavar="NAME", help="the signal")
    signalling.add_argument("--value", metavar="JSON", help="what the step's output is then (default: null)")
