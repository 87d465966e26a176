"""Money and breakers over HTTP: threads and their budgets, budgets above them, circuits."""

from trunkline_actors.budgets import SetBudget
from trunkline_actors.money import Budget

from trunkline.gateway import answers_money, asked
from trunkline.gateway.commands import Arguments, Reason, on_bus, without
from trunkline.gateway.routes import Route

ThreadBudget = without(
    "ThreadBudget", "The whole budget of a thread; no limit where none is named.", Budget, more={"reason": str | None}
)
ScopeBudget = without("ScopeBudget", "The whole budget of a scope.", SetBudget, "scope")


def _budgeted(given: Arguments) -> Arguments:
    own: Arguments = {name: given.pop(name) for name in ("thread_id", "reason") if name in given}
    return {**own, "budget": given}


THREADS, BUDGETS, CIRCUITS = "Threads", "Budgets", "Circuits"
_THREAD = {"id": "thread_id"}
_CIRCUIT = {"id": "provider"}

ROUTES: list[Route] = [
    on_bus("GET", "/api/threads", "threads", "list", summary="List threads", tag=THREADS,
           asks=asked.Page, gives=answers_money.Threads),
    on_bus("GET", "/api/threads/{id}", "threads", "get", summary="Show a thread's books", tag=THREADS,
           named=_THREAD, gives=answers_money.OneThread),
    on_bus("PATCH", "/api/threads/{id}", "threads", "configure", summary="Configure a thread", tag=THREADS,
           named=_THREAD, takes=asked.ThreadChange, gives=answers_money.OneThread),
    on_bus("PUT", "/api/threads/{id}/budget", "threads", "configure", summary="Set a thread's budget", tag=THREADS,
           named=_THREAD, takes=ThreadBudget, gives=answers_money.OneThread, shape=_budgeted),
    on_bus("GET", "/api/budgets", "budgets", "list", summary="List budgets above threads", tag=BUDGETS,
           asks=asked.Page, gives=answers_money.Budgets),
    on_bus("GET", "/api/budgets/{scope}", "budgets", "get", summary="Show a budget", tag=BUDGETS,
           gives=answers_money.OneBudget),
    on_bus("PUT", "/api/budgets/{scope}", "budgets", "set", summary="Set the budget of a scope", tag=BUDGETS,
           takes=ScopeBudget, gives=answers_money.OneBudget),
    on_bus("GET", "/api/circuits", "circuits", "list", summary="List circuit breakers", tag=CIRCUITS,
           asks=asked.CircuitsAsked, gives=answers_money.Circuits),
    on_bus("GET", "/api/circuits/{id}", "circuits", "get", summary="Show a circuit breaker", tag=CIRCUITS,
           named=_CIRCUIT, gives=answers_money.OneCircuit),
    on_bus("GET", "/api/circuits/{id}/history", "circuits", "history", summary="How a breaker came so", tag=CIRCUITS,
           named=_CIRCUIT, asks=asked.LastAsked, gives=answers_money.CircuitHistory),
    on_bus("POST", "/api/circuits/{id}/reset", "circuits", "reset", summary="Close a breaker by hand", tag=CIRCUITS,
           named=_CIRCUIT, takes=Reason, gives=answers_money.OneCircuit),
]  # fmt: skip
