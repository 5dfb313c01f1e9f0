#!/usr/bin/env python3
"""How long after a kill is each acknowledged phone reached through the peer, and which never? Complements failover.py, whose
checks end a few seconds after the kill: a pool that waits for its takeover time needs them to go on.

    failover_reach.py --kit FOLDER --cluster FILE [--rate 1000] [--limit 40] [--reps 5] [--out FILE]

Node A takes new registrations at a rate and is killed (SIGKILL) amid them. Nobody registers again. From the kill on, every user that A
had acknowledged is sent MESSAGEs through B, in rounds, until all were reached or `limit` seconds have passed. The time of a user
is from the kill to the first 200 OK of the phone.
"""
import argparse
import importlib
import json
import os
import sys
import time

GEN_A, GEN_B = "127.0.50.9", "127.0.50.10"
PROBES_PER_S = 4000
# The registering generator stops after 20 requests that went unanswered for 1.5 s.
GIVES_UP_WITHIN_S = 3


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def first_reached(kit, generator, registering, top, killed_ns, limit_s, folder):
    """The acknowledged users, and the seconds from the kill to the first 200 OK by user.

    Probing begins at the kill, while the registering generator still finds out that nobody answers."""
    first, acknowledged = {}, None
    log = os.path.join(folder, "probe.log")
    while time.monotonic_ns() - killed_ns < limit_s * 1e9:
        generator.cmd(f"msg first=0 span={top} n={top} shift=0 rate={PROBES_PER_S} timeout=1 dst=1 log={log}")
        for user, began, ended, code in kit.read_log(log):
            if code == 200 and began > killed_ns:
                first.setdefault(user, (ended - killed_ns) / 1e9)
        if acknowledged is None and time.monotonic_ns() - killed_ns > GIVES_UP_WITHIN_S * 1e9:
            registering.recv()
            entries = kit.read_log(os.path.join(folder, "register.log"))
            acknowledged = {user: ended for user, _, ended, code in entries if code == 200}
        if acknowledged is not None and acknowledged.keys() <= first.keys():
            break
    return acknowledged, first


def measure(kit, a, exe):
    top = int(a.rate * a.secs)
    pair = kit.Pair(a, exe, top * 2)
    try:
        pair.start()
        registering, probing = pair.gen(GEN_A, 21000), pair.gen(GEN_B, 21100)
        folder = pair.nodes[0].rundir
        log = os.path.join(folder, "register.log")
        registering.send(f"reg first=0 n={top * 2} rate={a.rate} timeout=1.5 stopfail=20 dst=0 log={log}")
        time.sleep(a.secs - 0.1)
        killed_ns = time.monotonic_ns()
        pair.nodes[0].kill()
        acknowledged, first = first_reached(kit, probing, registering, top, killed_ns, a.limit, folder)
        lost = [u for u in acknowledged if u not in first]
        times = sorted(first[u] for u in acknowledged if u in first)
        return {
            "rate": a.rate, "acknowledged": len(acknowledged), "lost": len(lost),
            "lost_within_last_ms": max(((killed_ns - acknowledged[u]) / 1e6 for u in lost), default=0),
            "reached_s": {"first": times[0] if times else None, "p50": percentile(times, 0.5),
                          "p99": percentile(times, 0.99), "last": times[-1] if times else None},
        }
    finally:
        pair.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", required=True)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--secs", type=float, default=4, help="seconds of registering before the kill")
    parser.add_argument("--limit", type=float, default=40)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out")
    a = parser.parse_args()
    sys.path.insert(0, a.kit)
    kit = importlib.import_module("failover")
    a.cluster_def = kit.load_sut(a.cluster)
    exe = kit.build_generator()
    runs = []
    for _ in range(a.reps):
        runs.append(measure(kit, a, exe))
        print("reach", json.dumps(runs[-1]), flush=True)
        if a.out:
            with open(a.out, "w") as f:
                json.dump({"cluster": a.cluster_def["name"], "reach": runs}, f, indent=1)


if __name__ == "__main__":
    main()
