"""Debian packages, through apt."""
import os
import shutil
import subprocess
import sys

from . import pins
from .cache import say
from .errors import SetupError

INSTALL = ["apt-get", "-o", "Acquire::Retries=3", "install", "-y", "--no-install-recommends"]


def missing(packages):
    listed = subprocess.run(["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *packages], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=False).stdout
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [p for p in packages if p not in installed]


def install(packages=pins.DEBIAN_PACKAGES):
    """Installs what is missing; says in a few words what was done."""
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        say("  this is no Debian: install by your own means what these packages hold: " + " ".join(packages))
        return "left to you"
    wanted = missing(packages)
    if not wanted:
        return f"all {len(packages)} are installed"
    prefix = privileged(wanted)
    say("  installing " + " ".join(wanted))
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    if prefix:
        prefix = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive"]
    # An update that fails is no reason to stop: the lists that are there may do.
    subprocess.run([*prefix, "apt-get", "-qq", "-o", "Acquire::Retries=3", "update"], env=environment, check=False)
    done = subprocess.run([*prefix, *INSTALL, "-qq", *wanted], env=environment, stdout=subprocess.DEVNULL, check=False)
    left = missing(packages)
    if done.returncode != 0 or left:
        raise SetupError(f"apt-get could not install {' '.join(left or wanted)}: see its messages above; check the network and "
                         "/etc/apt/sources.list, then run the same command again")
    return f"{len(wanted)} installed"


def privileged(wanted):
    """The words in front of a command that needs root."""
    command = " ".join(["apt-get install --no-install-recommends", *wanted])
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        raise SetupError("Debian packages are missing, and this user is neither root nor has sudo; have an "
                         f"administrator run: {command}")
    asks = subprocess.run(["sudo", "-n", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode != 0
    if asks and not sys.stdin.isatty():
        raise SetupError("Debian packages are missing, and sudo wants a password but there is no terminal to ask on; "
                         f"run first: sudo {command}")
    return ["sudo"]
