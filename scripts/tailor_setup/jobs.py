"""How many compilers may run at once: by cores, and by memory, since a file that includes libtorch takes 1.5 GB."""
import os
from pathlib import Path


def available_bytes():
    free = next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    try:  # a container may have less than the machine
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free


def jobs(gigabytes_each=1.5):
    return max(1, min(len(os.sched_getaffinity(0)), int(available_bytes() / (gigabytes_each * 1e9))))


if __name__ == "__main__":
    print(jobs())
