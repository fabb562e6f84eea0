"""Time to import sparsenode, beside importing scvi-tools alone.

Fresh processes in turns; every one reports the wall time of its import. The first round fills the disk cache and is dropped.
With ``--breakdown`` the modules that only sparsenode imports are listed with their own time (``python -X importtime``).
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections import defaultdict

import _common

REFERENCE = "scvi"
MODULES = (REFERENCE, "sparsenode")
TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    """Wall time of one import in a fresh process."""
    command = [sys.executable, "-c", TIMED.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def own_times(module: str) -> dict[str, int]:
    """Own microseconds of every module that an import loads."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    lines = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)", log)
    return {name: int(own) for own, name in lines}


def breakdown(repeats: int) -> None:
    """Print the packages, and their modules, that only sparsenode imports."""
    runs = {module: [own_times(module) for _ in range(repeats)] for module in MODULES}
    known = runs[REFERENCE][0]
    names = [name for name in runs["sparsenode"][0] if name not in known]
    own = {name: statistics.median(run.get(name, 0) for run in runs["sparsenode"]) / 1000 for name in names}
    packages: dict[str, float] = defaultdict(float)
    for name, milliseconds in own.items():
        packages[name.partition(".")[0]] += milliseconds
    print(f"only in sparsenode: {sum(own.values()):.0f} ms in {len(own)} modules")
    for package, total in sorted(packages.items(), key=lambda item: -item[1])[:12]:
        print(f"{total:8.1f} ms  {package}")
        modules = [(ms, name) for name, ms in own.items() if name.partition(".")[0] == package and ms >= 2]
        for milliseconds, name in sorted(modules, reverse=True)[:6]:
            print(f"{milliseconds:16.1f} ms  {name}")


def parse() -> argparse.Namespace:
    """Command line."""
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11, help="timed imports of each")
    parser.add_argument("--breakdown", action="store_true", help="list what only sparsenode imports; writes nothing")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 3
    return options


def main() -> None:
    options = parse()
    if options.breakdown:
        breakdown(3)
        return
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for number in range(options.repeats + 1):
        for module in MODULES if number % 2 else MODULES[::-1]:
            found = seconds(module)
            if number > 0:
                times[module].append(found)
    medians = {module: statistics.median(found) for module, found in times.items()}
    rows = [
        {
            "module": module,
            "imports": options.repeats,
            "median_seconds": medians[module],
            "fastest_seconds": min(times[module]),
            "ratio_of_medians": medians[module] / medians[REFERENCE],
            "ratio_of_fastest": min(times[module]) / min(times[REFERENCE]),
        }
        for module in MODULES
    ]
    _common.save("import_time", rows, options)


if __name__ == "__main__":
    main()
