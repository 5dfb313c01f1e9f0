#!/usr/bin/env python3
"""Provisions a pair of Tandem pools and their witness for the kit's failover.py: NODE USERS DOMAIN.

failover.py provisions and starts node `east`, then node `west`. Both live in one deployment folder, so the call for `east`
makes it whole: topology, users u%07d with passwords pw-%07d homed on east, copied to west, and a running witness; the call
for `west` finds its part done. The witness stands for a third site: it is in neither node's process tree, so that what
kills or freezes a node leaves it alone. It runs until the next deployment is made, or until bench/failover.sh ends.

Environment: TANDEM_BINARY; TANDEM_CLUSTER, a folder for the deployment; TANDEM_TIMING, `default` or `shortest`.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

TANDEM = os.environ["TANDEM_BINARY"]
CLUSTER = os.environ["TANDEM_CLUSTER"]
DEPLOYMENT = os.path.join(CLUSTER, "deployment")
WITNESS_PID = os.path.join(CLUSTER, "witness.pid")
HOSTS = {"east": "127.0.51.1", "west": "127.0.51.2", "control": "127.0.51.3"}
TIMING = {
    "default": "",
    "shortest": "lease_ttl_s = 1\ntakeover_after_s = 2\nhold_s = 3\n",
}
COPIED_WITHIN_S = 300


def topology(domain):
    text = f'version = 1\ndeployment = "example"\ndomains = ["{domain}"]\n'
    for site in HOSTS:
        # The witness decides between the two pools, so it stands in a third place.
        branch = 'kind = "branch"\nparent = "west"\n' if site == "control" else ""
        text += f'\n[[site]]\nname = "{site}"\n{branch}'
    text += f"""
[[pool]]
name = "control"
fqdn = "control.{domain}"
role = "control"
site = "control"

[[server]]
name = "control1"
fqdn = "control1.{domain}"
pool = "control"
internal_http = "{HOSTS['control']}:8443"

[[pair]]
pools = ["east", "west"]
"""
    for pool in ("east", "west"):
        host = HOSTS[pool]
        text += f"""
[[pool]]
name = "{pool}"
fqdn = "{pool}.{domain}"
role = "front_end"
site = "{pool}"

[pool.settings]
digest_algorithms = ["MD5"]
{TIMING[os.environ.get("TANDEM_TIMING", "default")]}
[[server]]
name = "{pool}1"
fqdn = "fe1.{pool}.{domain}"
pool = "{pool}"
udp = ["{host}:5060"]
tcp = ["{host}:5060"]
tls = ["{host}:5061"]
internal_sip = "{host}:5071"
internal_http = "{host}:8443"
shards = 1
"""
    return text


def run(*arguments):
    return subprocess.run([TANDEM, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def serve(server, **options):
    """Starts a server and returns when it is ready."""
    process = subprocess.Popen(
        [TANDEM, "serve", "--topology", os.path.join(DEPLOYMENT, "topology.toml"), "--server", server],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **options)
    if process.stdout.readline().strip() != "ready":
        sys.exit(f"{server} did not start")
    return process


def end_witness():
    """Ends the witness of the deployment before, if there is one: the process whose id was noted, if it is still that."""
    try:
        with open(WITNESS_PID) as f:
            process = int(f.read())
        with open(f"/proc/{process}/cmdline", "rb") as f:
            is_ours = DEPLOYMENT.encode() in f.read()
    except (OSError, ValueError):
        return
    if is_ours:
        os.kill(process, signal.SIGTERM)
        while os.path.exists(f"/proc/{process}"):
            time.sleep(0.02)
    os.unlink(WITNESS_PID)


def users_known(server):
    ran = subprocess.run([TANDEM, "pool", "status", "--output", "json", "--dir", DEPLOYMENT], stdout=subprocess.PIPE, text=True)
    for asked in json.loads(ran.stdout):
        if asked["server"] == server and asked["status"]:
            return asked["status"]["users_known"]
    return 0


def make(users, domain):
    shutil.rmtree(DEPLOYMENT, ignore_errors=True)
    run("init", DEPLOYMENT)
    # The example's users go; certificates for the names below come.
    for server in ("control1", "east1", "west1"):
        shutil.rmtree(os.path.join(DEPLOYMENT, "servers", server, "data"), ignore_errors=True)
    with open(os.path.join(DEPLOYMENT, "topology.toml"), "w") as f:
        f.write(topology(domain))
    run("certificate", "renew", "--dir", DEPLOYMENT)
    users_file = os.path.join(CLUSTER, "users.csv")
    with open(users_file, "w") as f:
        for n in range(users):
            f.write(f"sip:u{n:07d}@{domain},pw-{n:07d},east\n")
    with open(os.path.join(CLUSTER, "witness.log"), "ab") as log:
        witness = serve("control1", stderr=log, start_new_session=True)
    with open(WITNESS_PID, "w") as f:
        f.write(str(witness.pid))
    servers = [serve("east1"), serve("west1")]
    run("user", "import", users_file, "--dir", DEPLOYMENT)
    began = time.monotonic()
    while users_known("west1") < users:
        if time.monotonic() - began > COPIED_WITHIN_S:
            sys.exit("the users did not reach west")
        time.sleep(0.2)
    for server in servers:
        server.terminate()
    for server in servers:
        server.wait()


if __name__ == "__main__":
    if sys.argv[1] == "end":
        end_witness()
    elif sys.argv[1] == "east":
        end_witness()
        make(int(sys.argv[2]), sys.argv[3])
