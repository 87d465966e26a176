"""The verbs about models, providers, threads and budgets: what is changed and listed by name."""

import argparse

from trunkline.cli.flags import (
    Group,
    Verbs,
    add_client,
    add_entry,
    add_group,
    add_json,
    add_many,
    add_page,
    add_reason,
    add_verb,
)
from trunkline.cli.key_flags import add_keys
from trunkline.cli.secret_flags import add_secrets
from trunkline.cli.workflow_flags import add_workflows

_SCOPE = "gateway, team:NAME, or key:ID as `trunkline budgets key-id` prints it"


def add_nouns(verbs: Verbs) -> None:
    """Add all of them."""
    _add_models(verbs)
    _add_providers(verbs)
    _add_threads(verbs)
    _add_budgets(verbs)
    _add_circuits(verbs)
    _add_plugins(verbs)
    _add_policy(verbs)
    add_secrets(verbs)
    add_keys(verbs)
    add_workflows(verbs)


def _add_models(verbs: Verbs) -> None:
    models = add_group(verbs, "models", "registry", "register, change and list models")
    for verb, text in (
        ("register", "register a model"),
        ("update", "change what is named, leave the rest"),
    ):
        parser = add_client(models.verbs, verb, f"{models.module}:run", text)
        if verb == "register":
            parser.add_argument("id", metavar="ID", nargs="?", help="its name here (default: that of the catalogue)")
            parser.add_argument(
                "--from-catalogue", metavar="NAME", help="as the catalogue describes it; what is given besides wins"
            )
        else:
            parser.add_argument("id", metavar="ID")
        parser.add_argument("--provider", metavar="P", help="the instance that serves it")
        parser.add_argument("--upstream", metavar="U", help="the provider's own name of it (default: ID)")
        parser.add_argument("--version", metavar="V", help="a name for this version of it")
        _price(parser)
        parser.add_argument("--context-window", metavar="N", type=int, help="tokens")
        parser.add_argument("--max-output", metavar="N", type=int, help="tokens")
        add_many(parser, "--capability", "NAME[=SCORE]", "what it is good at, 0 to 1 (default 1)")
        add_many(parser, "--feature", "F", "tools, vision, json_schema, thinking, embeddings")
        add_many(parser, "--tag", "T", "a tag")
        add_reason(parser)
    add_reason(add_entry(models, "enable", "route to it again"))
    for verb, text in (
        ("disable", "route to it no more, for now"),
        ("retire", "route to it no more, for good"),
        ("remove", "forget it"),
    ):
        parser = add_entry(models, verb, text)
        parser.add_argument("--force", action="store_true", help="also where a policy or a thread depends on it")
        if verb == "retire":
            parser.add_argument("--drain", metavar="SECONDS", type=float, help="wait so long for what runs to end")
        add_reason(parser)
    _add_versions(models)
    _add_catalogue(models)
    _add_local(models)
    add_entry(models, "get", "show one")
    _add_metrics(models)
    listing = add_page(models)
    for name in ("provider", "status", "capability", "tag"):
        listing.add_argument(f"--{name}", metavar=name[0].upper(), help=f"only those with this {name}")
    text = "what the machine of --provider has, registered or not, and what is being pulled"
    listing.add_argument("--local", action="store_true", help=text)


def _add_local(models: Group) -> None:
    """The verbs about models on a provider's own machine."""
    text = "let a provider's own machine fetch a model, and register it; who asks again joins"
    pulling = add_client(models.verbs, "pull", "local_models:pull", text)
    pulling.add_argument("--as", dest="name", metavar="ID", help="what to register it as (default: MODEL)")
    pulling.add_argument("--abort", action="store_true", help="end the pull that goes on; what came is kept")
    text = "delete a model from a provider's own machine, and what is registered with it"
    deleting = add_client(models.verbs, "delete", "local_models:delete", text)
    deleting.add_argument("--force", action="store_true", help="also where a policy or a thread depends on it")
    for parser in (pulling, deleting):
        parser.add_argument("model", metavar="MODEL", help="the provider's own name of it, like llama3.2:3b")
        parser.add_argument("--provider", metavar="P", required=True, help="the instance whose machine it is")
        add_reason(parser)


def _add_versions(models: Group) -> None:
    """The verbs that bring a new version of a model, and find models by what they can do."""
    text = "serve a new version: at once, or as a canary with --weight; what isn't named is as it is now"
    deploying = add_entry(models, "deploy", text)
    deploying.add_argument("--version", metavar="V", required=True, help="its name; the current one ends the canary")
    deploying.add_argument(
        "--weight", metavar="W", type=float, help="its share of the requests, like 0.1 (default: all)"
    )
    deploying.add_argument("--provider", metavar="P", help="the instance that serves it")
    deploying.add_argument("--upstream", metavar="U", help="the provider's own name of it")
    _price(deploying)
    add_reason(deploying)
    add_reason(add_entry(models, "promote", "let its canary serve all requests"))
    text = "find enabled models by what they can do, the best match first"
    finding = add_client(models.verbs, "discover", f"{models.module}:run", text)
    add_many(finding, "--capability", "NAME[=LEAST]", "what it must be good at, and how good, 0 to 1")
    add_many(finding, "--feature", "F", "tools, vision, json_schema, thinking, embeddings")
    add_many(finding, "--tag", "T", "a tag it must have")
    finding.add_argument("--local-only", action="store_true", help="only those whose provider is local")
    finding.add_argument("--context-window", metavar="N", type=int, help="tokens it must take at least")
    finding.add_argument("--limit", metavar="N", type=int, help="at most so many (default 100, at most 1,000)")


def _add_catalogue(models: Group) -> None:
    text = "look through the well-known models that `register --from-catalogue` takes"
    looking = add_client(models.verbs, "catalogue", f"{models.module}:run", text)
    looking.add_argument("--kind", metavar="K", help="only those that providers of this kind serve")
    looking.add_argument("--family", metavar="F", help="only those of this family, like gpt-5")
    add_many(looking, "--capability", "NAME[=LEAST]", "what it must be good at, and how good, 0 to 1")
    add_many(looking, "--feature", "F", "tools, vision, json_schema, thinking, embeddings")
    looking.add_argument("--context-window", metavar="N", type=int, help="tokens it must take at least")
    looking.add_argument("--limit", metavar="N", type=int, help="at most so many (default 1,000, which is the most)")
    looking.add_argument("--after", metavar="NAME", help="only those that follow this name")


def _price(parser: argparse.ArgumentParser) -> None:
    for name in ("input", "output", "cached-input"):
        parser.add_argument(f"--price-{name}", metavar="USD", help="US dollars a million tokens")


def _add_metrics(models: Group) -> None:
    metrics = add_client(models.verbs, "metrics", "metrics:run", "what calls to it took, cost and came to, over time")
    metrics.add_argument("id", metavar="ID")
    metrics.add_argument("--since", metavar="TIME", default="1h", help="RFC 3339, or 10m, 2h, 1d ago (default 1h)")
    metrics.add_argument("--until", metavar="TIME", help="the same (default: now)")
    metrics.add_argument("--step", metavar="STEP", default="1m", help="how long a line lasts: 5m, 1h, 1d (default 1m)")
    metrics.add_argument("--version", metavar="V", help="only this version of it")
    metrics.epilog = "a minute is written when it is over, and kept for a week; `last 5 min` goes up to now"


def _add_providers(verbs: Verbs) -> None:
    providers = add_group(verbs, "providers", "registry", "register, change, check and list provider instances")
    for verb, text in (
        ("register", "register a provider instance"),
        ("update", "change what is named, leave the rest"),
    ):
        parser = add_entry(providers, verb, text)
        parser.add_argument("--kind", metavar="K", required=verb == "register", help="openai, scripted, …")
        parser.add_argument("--base-url", metavar="U", help="where it answers, where that isn't the kind's own address")
        parser.add_argument(
            "--secret",
            metavar="NAME|env:NAME",
            help="names the stored secret, or the variable, with its key; never the key itself",
        )
        parser.add_argument("--local", action=argparse.BooleanOptionalAction, help="costs nothing, may be private")
        parser.add_argument("--transport", choices=("raw", "sdk"), help="our own HTTP (default), or the provider's SDK")
        parser.add_argument("--max-concurrency", metavar="N", type=int, help="calls under way at once")
        parser.add_argument("--timeout", metavar="SECONDS", type=float, help="for one call (default 60)")
        for name, text in (
            ("first-token-timeout", "for the first chunk of a stream (default: that of a call)"),
            ("stall-timeout", "for each further chunk of a stream (default 20)"),
            ("queue-timeout", "for which a call waits for its turn at --max-concurrency (default 10)"),
            ("breaker-open", "for which its circuit stays open before it is tried again (default 60)"),
        ):
            parser.add_argument(f"--{name}", metavar="SECONDS", type=float, help=text)
        parser.add_argument(
            "--breaker-failures", metavar="N", type=int, help="failures in a row that open its circuit (default 5)"
        )
        add_many(parser, "--data", "WORD", "what it promises about data, like eu or no-training")
        add_many(parser, "--header", "NAME=VALUE", "sent with every call; never a secret, since the log keeps it")
        add_reason(parser)
    add_reason(add_entry(providers, "remove", "forget it"))
    add_entry(providers, "get", "show one")
    add_entry(providers, "check", "ask whether it serves and its upstream answers")
    add_page(providers)


def _add_threads(verbs: Verbs) -> None:
    threads = add_group(verbs, "threads", "threads", "set and show the budgets and settings of threads")
    text = "change a thread's budget, model, parameters or preferences, each as a whole; the others stay"
    configure = add_entry(threads, "configure", text)
    _budget(configure)
    configure.add_argument("--model", metavar="M", help="what `auto` stands for in it; '' for none")
    text = "what its requests say by default, like temperature=0.2"
    add_many(configure, "--parameter", "NAME=JSON", text)
    add_many(configure, "--preference", "NAME=JSON", "how to route them, like optimize=latency or 'prefer=[\"m\"]'")
    for name in ("parameters", "preferences"):
        configure.add_argument(f"--no-{name}", action="store_true", help=f"take its {name} away")
    add_entry(threads, "get", "show its books and settings")
    add_page(threads)
    text = "list attempts that were lost with their process, and what they were settled at"
    orphans = add_client(threads.verbs, "orphans", "orphans:run", text)
    orphans.add_argument("--since", metavar="TIME", default="7d", help="RFC 3339, or 10m, 2h, 1d ago (default 7d)")
    orphans.add_argument("--thread", metavar="T", help="only those of this thread; - for requests without one")


def _add_budgets(verbs: Verbs) -> None:
    budgets = add_group(verbs, "budgets", "budgets", "set and show the budgets of API keys, teams and the gateway")
    text = "set a budget, as a whole: what isn't given is no limit, no window, no warning, no team"
    setting = add_client(budgets.verbs, "set", "budgets:run", text)
    setting.add_argument("scope", metavar="SCOPE", help=_SCOPE)
    _budget(setting)
    setting.add_argument("--team", metavar="T", help="whose budget a key's requests must fit too")
    showing = add_client(budgets.verbs, "get", "budgets:run", "show its books")
    showing.add_argument("scope", metavar="SCOPE", help=_SCOPE)
    add_page(budgets)
    text = "print what the API key in TRUNKLINE_KEY goes by in scopes and events; never the key"
    naming = add_verb(budgets.verbs, "key-id", "budgets:run_key_id", text)
    naming.add_argument("--stdin", action="store_true", help="a key on stdin instead, also where TRUNKLINE_KEY is set")
    add_json(naming)


def _add_circuits(verbs: Verbs) -> None:
    circuits = add_group(verbs, "circuits", "circuits", "show and reset the circuit breakers of provider instances")
    add_entry(circuits, "get", "show one")
    add_reason(add_entry(circuits, "reset", "close it by hand: calls flow again at once"))
    history = add_entry(circuits, "history", "what happened to it, newest last")
    history.add_argument("--limit", metavar="N", type=int, help="the last so many (default 100, at most 1,000)")
    listing = add_page(circuits)
    listing.add_argument("--state", choices=["closed", "open", "half-open"], help="only those in this state")


def _add_plugins(verbs: Verbs) -> None:
    plugins = add_group(verbs, "plugins", "plugins", "show the kinds of providers, and how each fares")
    add_entry(plugins, "get", "show one, and what is wrong with it where")
    listing = add_page(plugins)
    states = ["ready", "failed", "unused", "missing"]
    listing.add_argument("--state", choices=states, help="only those in this state")


def _budget(parser: argparse.ArgumentParser) -> None:
    """The flags of a budget, of whomever."""
    parser.add_argument("--limit", metavar="USD", help="what it may cost in each window; `none` for no limit (default)")
    parser.add_argument("--window", choices=["none", "day", "month"], help="when spending starts anew (default: never)")
    parser.add_argument("--time-zone", metavar="ZONE", help="whose midnight that is, like Europe/Berlin (default UTC)")
    parser.add_argument(
        "--warn-at", metavar="SHARE", type=_share, help="tell by an event that so much is spent, like 0.8"
    )
    add_reason(parser)


def _add_policy(verbs: Verbs) -> None:
    policy = add_group(verbs, "policy", "policy", "check, publish, show, compare and roll back routing policies")
    checking = add_client(policy.verbs, "validate", "policy:run", "say everything that is wrong with a policy")
    publishing = add_client(policy.verbs, "publish", "policy:run", "route by this policy from now on")
    for parser in (checking, publishing):
        parser.add_argument("file", metavar="FILE", help="YAML or JSON; `-` reads it from stdin")
    text = "try a policy on recorded requests: who would have served them, and at what cost; changes nothing"
    trying = add_client(policy.verbs, "dry-run", "dry_run:run", text)
    trying.add_argument("file", metavar="FILE", help="YAML or JSON; `-` reads it from stdin")
    trying.add_argument("--last", metavar="N", type=int, default=1000, help="on the last N requests (default 1000)")
    trying.add_argument("--since", metavar="TIME", help="on all since RFC 3339, or 10m, 2h, 1d ago")
    publishing.add_argument("--base", metavar="N", type=int, help="only if this version is in force still")
    text = "print the policy in force as YAML, to be changed and published"
    showing = add_client(policy.verbs, "get", "policy:run", text)
    showing.add_argument("--version", metavar="N", type=int, help="this one (default: the one in force)")
    history = add_client(policy.verbs, "history", "policy:run", "list all versions, the newest first")
    history.add_argument("--limit", metavar="N", type=int, help="at most so many (default 100, at most 1,000)")
    history.add_argument("--after", metavar="N", type=int, help="only versions older than this one")
    text = "say what differs: from version FROM (default: the one before) to TO (default: the one in force)"
    comparing = add_client(policy.verbs, "diff", "policy:run", text)
    comparing.add_argument("before", metavar="FROM", nargs="?", help="a version; 0 is no rules at all")
    comparing.add_argument("to", metavar="TO", nargs="?", help="a version or a file, which may be given alone")
    returning = add_client(policy.verbs, "rollback", "policy:run", "route by an earlier version again")
    returning.add_argument("to", metavar="N", type=int, help="its number; 0 is no rules at all")
    returning.add_argument("--force", action="store_true", help="even where it names models that have gone")
    forcing = add_client(policy.verbs, "override", "policy:run", "send every request to one model")
    forcing.add_argument("model", metavar="MODEL", nargs="?", help="an enabled model")
    forcing.add_argument("--for", dest="duration", metavar="TIME", help="90s, 10m, 2h, 1d (default: until cleared)")
    forcing.add_argument("--clear", action="store_true", help="let the policy decide again")
    for parser in (publishing, returning, forcing):
        add_reason(parser)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of the limit; take one above 0 and at most 1, like 0.8")
    return share
