#!/usr/bin/env python3
"""Provisions Tandem for the benchmark kit: RUNDIR USERS DOMAIN HOST PORT.

Makes a deployment of one pool with one server, and imports users u%07d with passwords pw-%07d through the running
server, as an operator would. MD5 only, as the kit's Kamailio offers it.
"""
import os
import subprocess
import sys

rundir, users, domain, host, port = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
tandem = os.path.join(os.environ["TANDEM_REPOSITORY"], "target", "debug", "tandem")
deployment = os.path.join(rundir, "deployment")
quiet = {"stdout": subprocess.DEVNULL}

TOPOLOGY = f"""
version = 1
deployment = "example"
domains = ["{domain}"]

[[site]]
name = "east"

[[pool]]
name = "east"
fqdn = "east.{domain}"
role = "front_end"
site = "east"

[pool.settings]
digest_algorithms = ["MD5"]
call_records = "off"

[[server]]
name = "east1"
fqdn = "fe1.east.example.com"
pool = "east"
udp = ["{host}:{port}"]
tcp = ["{host}:{port}"]
tls = ["{host}:5061"]
internal_sip = "{host}:5071"
internal_http = "{host}:8443"
shards = 1
"""

subprocess.run([tandem, "init", deployment], check=True, **quiet)
with open(os.path.join(deployment, "topology.toml"), "w") as f:
    f.write(TOPOLOGY)
users_file = os.path.join(rundir, "users.csv")
with open(users_file, "w") as f:
    for n in range(users):
        f.write(f"sip:u{n:07d}@{domain},pw-{n:07d},east\n")
server = subprocess.Popen(
    [tandem, "serve", "--topology", os.path.join(deployment, "topology.toml"), "--server", "east1",
     "--until-stdin-closes"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
if server.stdout.readline().strip() != "ready":
    sys.exit("the server did not start")
subprocess.run([tandem, "user", "import", users_file, "--dir", deployment], check=True, **quiet)
server.stdin.close()
sys.exit(server.wait())
