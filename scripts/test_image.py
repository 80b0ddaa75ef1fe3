"""The container image as docs/DEPLOY.md has it: built of deploy/Dockerfile from what is committed, run read-only and without rights.

Run: python3 scripts/test_image.py [--totals FILE]      root; podman, buildah, runc and a registry, or debootstrap
A first build takes as long as `make dist` from nothing; what it fetched and built stays in $TAILOR_CACHE/image.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE / "scripts"))

import test_totals  # noqa: E402
from tailor_setup.cache import Cache  # noqa: E402

BASE = "docker.io/library/debian:12-slim"
IMAGE = "localhost/tailor-test"
PLACE = Cache.default_root() / "image"
TOOLS = ("podman", "buildah", "runc")
ADDRESS = "http://127.0.0.1:8080"
# Limits of the process are lowered, never raised: a machine that is a guest itself may not.
RUN = ("--runtime", "runc", "run", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--network", "host")
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--stop-timeout", "60")


def podman(*words, check=True):
    done = subprocess.run(["podman", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, TMPDIR=str(PLACE)), check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(map(str, words))}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def make_base():
    """Debian 12 from its packages, where no registry of images is reached; it trusts what this machine trusts."""
    with tempfile.TemporaryDirectory(dir=PLACE) as root:
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], stdout=subprocess.DEVNULL, check=True)
        for file in (*Path("/usr/local/share/ca-certificates").glob("*.crt"), Path("/etc/pip.conf")):
            if file.is_file():
                (Path(root) / file.parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, Path(root) / file.relative_to("/"))
        tree = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(["podman", "import", "--quiet", "-", BASE], stdin=tree.stdout, check=True)
        if tree.wait() != 0:
            raise AssertionError("tar failed")


def base():
    """Why there is none, or ''."""
    if podman("image", "exists", BASE, check=False).returncode == 0 or podman("pull", "--quiet", BASE, check=False).returncode == 0:
        return ""
    if not shutil.which("debootstrap"):
        return f"{BASE} cannot be fetched, and debootstrap is missing"
    make_base()
    return ""


def build():
    with tempfile.TemporaryDirectory(dir=PLACE) as context:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=TREE, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", context], input=archive, check=True)
        date = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=TREE, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        # `docker build`'s own format, which alone has health checks.
        subprocess.run(["podman", "build", "--isolation", "chroot", "--format", "docker", "--network", "host", "--build-arg", f"SOURCE_DATE_EPOCH={date}",
                        "-f", "deploy/Dockerfile", "-t", IMAGE, "."], cwd=context, env=dict(os.environ, TMPDIR=str(PLACE)), check=True)


def ask(path, key=None, body=None):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(ADDRESS + path, data=None if body is None else json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


class Image(unittest.TestCase):
    def models(self):
        """As docs/DEPLOY.md takes them over: the cache's own directories are links."""
        out = Path(tempfile.mkdtemp(prefix="models-", dir=PLACE))
        self.addCleanup(shutil.rmtree, out)
        shutil.copytree(Cache.default_root() / "deps" / "models", out, dirs_exist_ok=True)
        out.chmod(0o755)
        return out

    def run_in(self, script, *options):
        return podman(*RUN, "--rm", *options, "--entrypoint", "sh", IMAGE, "-c", script).stdout

    def test_begins_as_the_file_says(self):
        config = json.loads(podman("image", "inspect", IMAGE).stdout)[0]
        print(f"  {config['Size'] / 1e6:.0f} MB", flush=True)
        self.assertEqual(config["Config"]["User"], "10001:10001")
        self.assertEqual(config["Config"]["Entrypoint"], ["tailor"])
        self.assertEqual(list(config["Config"]["Volumes"]), ["/data"])
        self.assertIn("/readyz", config["Healthcheck"]["Test"][-1])
        self.assertLess(config["Size"], 500e6)

    def test_holds_what_serves_and_nothing_that_builds_or_trains(self):
        self.assertEqual(self.run_in("command -v g++ gcc cmake python3 pip tailor-tune; find / -xdev -name 'libtorch*' 2>/dev/null; true"), "")
        self.assertEqual(self.run_in("tailor --version").strip(), (TREE / "VERSION").read_text().strip())
        self.assertIn("libtorch", podman(*RUN, "--rm", *HARDENED, IMAGE, "tune", "--help", check=False).stderr +
                      podman(*RUN, "--rm", *HARDENED, IMAGE, "tune", "/data/absent", check=False).stderr)

    def test_writes_under_data_alone(self):
        self.assertEqual(self.run_in("id -u; for d in / /etc /opt/tailor /usr/local/bin /tmp /data; do touch $d/x 2>/dev/null && echo $d; done; true", *HARDENED).split(), ["10001", "/data"])

    def test_serves_as_the_documentation_says(self):
        name = f"tailor-test-{os.getpid()}"
        volume = f"{name}-data"
        self.addCleanup(podman, "volume", "rm", "--force", volume, check=False)
        self.addCleanup(podman, "rm", "--force", "--volumes", name, check=False)
        models = self.models()

        def start():
            podman(*RUN, "--detach", "--name", name, *HARDENED, "-v", f"{volume}:/data", "-v", f"{models}:/models:ro", IMAGE)
            until = time.monotonic() + 60
            while podman("--runtime", "runc", "healthcheck", "run", name, check=False).returncode != 0:
                self.assertLess(time.monotonic(), until, podman("logs", name, check=False).stderr)
                time.sleep(0.2)
        start()
        pid = json.loads(podman("inspect", name).stdout)[0]["State"]["Pid"]
        status = Path(f"/proc/{pid}/status").read_text()
        self.assertRegex(status, r"Uid:\s+10001\s+10001")
        self.assertRegex(status, r"CapEff:\s+0+\n")
        self.assertRegex(status, r"CapBnd:\s+0+\n")
        self.assertRegex(status, r"NoNewPrivs:\s+1")
        self.assertEqual(ask("/v1/models")[0], 401, "nobody gets in before there is a key")
        key = podman("--runtime", "runc", "exec", name, "tailor", "keys", "create", "--name", "app").stdout.strip()
        self.assertEqual(ask("/v1/models", key)[0], 200, "and at once with it")
        code, body = ask("/v1/chat/completions", key, {"model": "chat", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8})
        self.assertEqual((code, json.loads(body)["usage"]["completion_tokens"]), (200, 8))
        page = ask("/")
        self.assertEqual(page[0], 200)
        self.assertTrue(re.search(rb"<title>", page[1]))
        podman("--runtime", "runc", "stop", name)
        state = json.loads(podman("inspect", name).stdout)[0]["State"]
        self.assertEqual(state["ExitCode"], 0, "it drained and ended by itself")

        # What was written outlives the container.
        podman("rm", name)
        start()
        self.assertEqual(ask("/v1/models", key)[0], 200)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--totals", help="file to which 'passed failed skipped' is added")
    parser.add_argument("--only", help="names of tests that hold this; the image is built first all the same")
    arguments = parser.parse_args()
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    reason = "" if os.geteuid() == 0 else "it needs root"
    reason = reason or (f"{', '.join(missing)}: missing (apt-get install {' '.join(TOOLS)} debootstrap)" if missing else "")
    if not reason:
        PLACE.mkdir(parents=True, exist_ok=True)
        reason = base()
    if reason:
        print(f"SKIPPED the container image: {reason}")
        return test_totals.tell("image", 0, 0, 1, arguments.totals)
    build()
    return test_totals.run_case(Image, "image", arguments.only, arguments.totals)


if __name__ == "__main__":
    sys.exit(main())
