#!/usr/bin/env python3
"""Prints the results of bench/failover.sh as one Markdown table: FOLDER of failover-SYSTEM.json and reach-SYSTEM.json."""
import json
import os
import statistics
import sys

SYSTEMS = [("kamailio", "Kamailio, dmq_usrloc"), ("tandem", "Tandem, takeover after 10 s"),
           ("tandem-shortest", "Tandem, takeover after 2 s")]
NOT_RUN = "not run"


def read(folder, kind, system):
    try:
        with open(os.path.join(folder, f"{kind}-{system}.json")) as f:
            return json.load(f)
    except FileNotFoundError:
        return {}


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def text(value, unit):
    return "never" if value is None else f"{value:.3g} {unit}"


def lag(runs):
    after = runs[0]["reachable_after_ms"]
    return f"{after['median']:.2f} ms, worst {after['max']:.2f} ms, never {runs[0]['never']} of {runs[0]['samples']}"


def failed(runs):
    return f"{median([run['failed_through_B'] for run in runs]):.0f} of 1,500"


def known_after(runs):
    return f"{median([run['known_to_peer_after'] for run in runs]):.0f} of {runs[0]['registered']}"


def lost(runs):
    return f"{sum(run['lost'] for run in runs)} of {sum(run['acknowledged'] for run in runs):,}"


def missing(runs):
    acknowledged, gone = (sum(run[key] for run in runs) for key in ("acknowledged", "missing_on_peer"))
    return f"{gone:,} of {acknowledged:,}"


def during_stall(runs):
    acknowledged, gone = (sum(run[key] for run in runs) for key in ("acknowledged_during_stall", "missing_on_peer"))
    return f"{gone:,} lost; {acknowledged:,} acknowledged meanwhile"


def reached(key):
    return lambda runs: text(median([run["reached_s"][key] for run in runs]), "s")


def restarted(runs):
    runs = [run for run in runs if "restarted_node_knows" in run]
    if not runs:
        return NOT_RUN
    after = median([run["restarted_node_knows"][-1][0] for run in runs])
    lacks = sum(run["acknowledged"] - run["restarted_node_knows"][-1][1] for run in runs)
    return f"{text(after, 's')}, then lacks {lacks:,} of {sum(run['acknowledged'] for run in runs):,}"


def resynchronised(runs):
    run = runs[0]
    return f"{text(run['seconds'], 's')}, then knows {run['known_after_resync']:,}"


def rows(failover, reach):
    """(label, key, entries, how to print them) for every row; entries are grouped by rate or length where they differ."""
    yield "registered at A, reachable through B after", failover.get("lag"), lag
    for kind, how in (("kill", "SIGKILL"), ("hang", "SIGSTOP")):
        yield f"{how} of A: MESSAGEs through B failed in the next 5 s", failover.get(kind), failed
        yield f"{how} of A: users reachable through B after that", failover.get(kind), known_after
    runs = reach.get("reach")
    yield "SIGKILL amid 1,000 registrations/s: acknowledged bindings lost", runs, lost
    for key, label in (("first", "the first phone"), ("p50", "half of them"), ("last", "the last one")):
        yield f"... {label} is reached through B after", runs, reached(key)
    for rate in sorted({run["rate"] for run in failover.get("loss", [])}):
        of_rate = [run for run in failover["loss"] if run["rate"] == rate]
        yield f"failover.py loss at {rate:,.0f}/s: unknown to B about 3 s after the kill", of_rate, missing
        yield f"... A started again knows what was acknowledged at {rate:,.0f}/s after", of_rate, restarted
    for length in sorted({run["stall_s"] for run in failover.get("stall", [])}):
        of_length = [run for run in failover["stall"] if run["stall_s"] == length]
        yield f"B stands still {length:g} s, then A dies (looked at 2 s later)", of_length, during_stall
    for run in failover.get("resync", []):
        yield f"A killed and started again with {run['contacts']:,} bindings: answers for all after", [run], resynchronised


def main():
    folder = sys.argv[1]
    table = {}
    for system, name in SYSTEMS:
        for label, runs, show in rows(read(folder, "failover", system), read(folder, "reach", system)):
            table.setdefault(label, {})[name] = show(runs) if runs else NOT_RUN
    names = [name for _, name in SYSTEMS]
    print("| | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    for label, cells in table.items():
        print(f"| {label} | " + " | ".join(cells.get(name, NOT_RUN) for name in names) + " |")


if __name__ == "__main__":
    main()
