"""The job scripts, unmodified, on a SLURM of one machine: `slurm/` holds its sbatch, srun and
scontrol.

Most tests put recorders in the place of Python, Ray and torchrun; those that do not take a real
step over two nodes.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from megatron_trace.supervise import leftovers
from tests.system.program import ROOT, SMALL

CONFIG = ("--config", "configs/geo_hop_cpu.yaml")
ADDRESS = "127.0.0.2"
"""All nodes are this machine; a second address tells Ray's head from its other nodes."""

SITE = f"""
source examples/slurm/site.sh
GPUS_PER_NODE=8
node_address() {{ echo {ADDRESS}; }}
RAY_FLAGS=(--object-store-memory=200000000 --min-worker-port=0 --max-worker-port=0)
"""
REAL = f'in_container() {{ PATH="{Path(sys.executable).parent}:$PATH" "$@"; }}'
RECORDED = """
in_container() {
    echo "$SLURMD_NODENAME [${CUDA_VISIBLE_DEVICES:-}] $*" >> "$FAKE_SLURM/calls"
    "run_$1" "${@:2}"
}
run_python() {
    case $1 in
        -c) echo "$GPUS_PER_NODE" ;;
        */wait_for_ray.py)
            for node in "${@:2}"; do
                until grep -q "^$node .* ray start" "$FAKE_SLURM/calls"; do sleep 0.1; done
            done ;;
    esac
}
run_bash() { bash "$@"; }
run_ray() {
    stat -c %a "$RAY_AUTH_TOKEN_PATH" > "$FAKE_SLURM/token_mode"
    exec python3 -c '
import socket, sys, time
if "--head" in sys.argv: server = socket.create_server((sys.argv[1], int(sys.argv[2])))
time.sleep(60)' "$HEAD_ADDRESS" "$RAY_PORT" "$@"
}
run_torchrun() {
    local codes=($EXIT_CODES)
    local code=${codes[${SLURM_RESTART_COUNT:-0}]}
    if [[ $SLURMD_NODENAME == node1 && $code != killed ]]; then echo "$code" > "$TRACE_EXIT_FILE"; fi
    [[ $code == 0 ]]
}
"""
HEALTHY = """#!/usr/bin/env bash
case "$1" in
    --list-gpus) for i in {0..7}; do echo "GPU $i: NVIDIA H100"; done ;;
    --query-gpu=index,ecc*) for i in {0..7}; do echo "$i, 0"; done ;;
    --query-gpu=index,memory*) for i in {0..7}; do echo "$i, 4"; done ;;
    --query-gpu=driver*) for i in {0..7}; do echo 580.95; done ;;
    nvlink) for i in {0..7}; do echo "GPU $i: NVIDIA H100"; echo "    Link 0: 26.562 GB/s"; done ;;
esac
"""


class Job:
    """What a job left."""

    def __init__(self, folder: Path, code: int) -> None:
        self.folder, self.code = folder, code
        self.text = "".join(file.read_text() for file in folder.glob("trace-*.log"))
        self.logs = sorted(folder.glob("logs/*"))
        self.starts = [int(path.suffix[1:]) for path in self.logs]
        print(self.text)

    def calls(self, program: str) -> dict[str, str]:
        """Node -> visible GPUs and arguments of its last call of a recorded program."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return dict(line.split(" ", 1) for line in sorted(lines) if f"] {program}" in line)


Submit = Callable[..., Job]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def living(folder: Path) -> set[int]:
    """Processes of a job."""
    mark = f"FAKE_SLURM={folder}".encode()
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (path / "environ").read_bytes().split(b"\0") and leftovers.find(
                int(path.name)
            ):
                found.add(int(path.name))
    return found


def wait_until_gone(folder: Path, limit_s: float = 20.0) -> set[int]:
    """What still lives of a job after that time."""
    end = time.monotonic() + limit_s
    while (left := living(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


@pytest.fixture
def submit(tmp_path: Path) -> Iterator[Submit]:
    """sbatch of a script: `options` are sbatch's own, keywords the environment; `site` ends the
    site's file.
    """
    number, programs = str(uuid.uuid4().int % 10**8), tmp_path / "bin"
    programs.mkdir()

    def run(
        script: str,
        *arguments: str,
        options: Sequence[str] = (),
        site: str = RECORDED,
        smi: str = "",
        **variables: str,
    ) -> Job:
        (tmp_path / "site.sh").write_text(SITE + site)
        (programs / "nvidia-smi").write_text(smi)
        (programs / "nvidia-smi").chmod(0o755)
        own = {
            "PATH": f"{programs}:{Path(__file__).parent / 'slurm'}:{os.environ['PATH']}",
            "FAKE_SLURM": str(tmp_path),
            "FAKE_JOB": number,
            "TRACE_SITE": str(tmp_path / "site.sh"),
            "TRACE_CPU": "0" if smi else "1",
            "CHECK_NETWORK": "0",
            "LOG_ROOT": str(tmp_path / "logs"),
            "RAY_PORT": str(free_port()),
            "TRAIN_PORT": str(free_port()),
            "EXIT_CODES": "0",
            "OMP_NUM_THREADS": "1",
            "SPT_NOENV": "1",  # processes keep the environment that tells them apart
        }
        job = ["sbatch", *options, f"examples/slurm/{script}", *arguments]
        done = subprocess.run(job, cwd=ROOT, env={**os.environ, **own, **variables}, timeout=550)
        return Job(tmp_path, done.returncode)

    yield run
    left = wait_until_gone(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for path in Path("/tmp").glob(f"ray_{number}.*"):
        shutil.rmtree(path, ignore_errors=True)
    assert not left


def value(call: str, name: str) -> str:
    """What a call says of `--name` or of a setting."""
    return re.findall(rf"{re.escape(name)}=(\S+)", call)[-1]


def test_a_real_step_is_taken_over_two_nodes(submit: Submit, tmp_path: Path) -> None:
    own = ["run.steps=1", "evaluation.every=0", f"run.directory={tmp_path}", "run.name=run"]
    job = submit("train.sbatch", *CONFIG, *SMALL, *own, site=REAL)
    assert job.code == 0
    assert (
        "Ray: 2 nodes" in job.text and "step 1/1" in job.text and "the run is finished" in job.text
    )
    (logs,) = job.logs
    assert "step 1/1" in next(logs.glob("pretrain_trace-node1/*/*/0/stdout.log")).read_text()
    assert list(logs.glob("ray-*/worker-*.err")) and (logs / "ray-node2" / "raylet.out").exists()
    assert not list(Path("/tmp").glob(f"ray_{logs.stem}.*"))


@pytest.mark.slow
def test_a_run_that_its_time_limit_ended_goes_on_in_the_next_start(
    submit: Submit, tmp_path: Path
) -> None:
    own = [
        "run.steps=500",
        "evaluation.every=0",
        f"run.directory={tmp_path}",
        "run.name=run",
        "stop.grace_s=10",
    ]
    limits = {"MAX_REQUEUES": "1", "END_MARGIN_S": "30"}
    job = submit("train.sbatch", *CONFIG, *SMALL, *own, site=REAL, options=["--time=3"], **limits)
    assert (job.code, job.starts) == (75, [0, 1])
    assert job.text.count("stopped by stop.time_limit_min") == 2 and "continued from" in job.text


@pytest.mark.slow
def test_ranks_on_two_nodes_train_together_after_the_network_was_checked(
    submit: Submit, tmp_path: Path
) -> None:
    own = ["run.steps=1", "evaluation.every=0", f"run.directory={tmp_path}", "run.name=run"]
    job = submit(
        "train.sbatch", *CONFIG, *SMALL, *own, site=REAL, options=["--nodes=3"], CHECK_NETWORK="1"
    )
    assert job.code == 0
    assert "all-reduce over 3 ranks" in job.text and "step 1/1" in job.text


@pytest.mark.slow
def test_a_wrong_setting_ends_the_job_for_good(submit: Submit) -> None:
    job = submit("train.sbatch", *CONFIG, "allocation.bugdet=3", site=REAL)
    assert (job.code, job.starts) == (2, [0])
    assert "allocation.bugdet = 3: no such setting" in job.text


@pytest.mark.parametrize(
    ("script", "options", "train", "fleet"),
    [
        ("train.sbatch", ["--nodes=4"], ["node1", "node2"], ["node3", "node4"]),
        ("train_het.sbatch", [], ["node1", "node2"], ["node3", "node4"]),
    ],
)
def test_the_first_nodes_train_and_the_others_sample(
    submit: Submit, script: str, options: list[str], train: list[str], fleet: list[str]
) -> None:
    job = submit(script, *CONFIG, options=options, smi=HEALTHY, ROLLOUT_NODES="2")
    assert job.code == 0
    ranks = job.calls("torchrun")
    assert [value(ranks[node], "--node-rank") for node in train] == [
        str(rank) for rank in range(len(train))
    ]
    assert set(ranks) == set(train) and {
        value(call, "--nproc-per-node") for call in ranks.values()
    } == {"8"}
    gpus = {node: value(call, "--num-gpus") for node, call in job.calls("ray start").items()}
    assert gpus == {"node1": "0"} | dict.fromkeys(fleet, "8")
    assert "--head" in job.calls("ray start")["node1"]


def test_on_one_node_training_and_the_fleet_have_gpus_of_their_own(submit: Submit) -> None:
    job = submit(
        "one_node.sbatch", *CONFIG, smi=HEALTHY, TRAIN_GPUS="0,1,2,3,4,5", FLEET_GPUS="6,7"
    )
    assert job.code == 0
    ranks, ray = job.calls("torchrun")["node1"], job.calls("ray start")["node1"]
    assert ranks.startswith("[0,1,2,3,4,5] ") and value(ranks, "--nproc-per-node") == "6"
    assert ray.startswith("[6,7] ") and value(ray, "--num-gpus") == "2"


def test_a_run_whose_time_is_up_is_queued_again_until_it_is_finished(submit: Submit) -> None:
    job = submit("train.sbatch", *CONFIG, EXIT_CODES="75 75 0")
    assert (job.code, job.starts) == (0, [0, 1, 2])
    assert job.text.count("is queued again") == 2 and job.text.count("the run is finished") == 1


@pytest.mark.parametrize(("code", "left"), [("2", 2), ("3", 3), ("143", 143), ("killed", 1)])
def test_a_run_that_ended_in_another_way_is_not_queued_again(
    submit: Submit, code: str, left: int
) -> None:
    job = submit("train.sbatch", *CONFIG, EXIT_CODES=f"{code} 0")
    assert (job.code, job.starts) == (left, [0])
    assert f"the run ended with exit code {left}" in job.text


def test_a_job_is_not_queued_again_for_ever(submit: Submit) -> None:
    job = submit("train.sbatch", *CONFIG, EXIT_CODES="75 75 75", MAX_REQUEUES="1")
    assert (job.code, job.starts) == (75, [0, 1])


@pytest.mark.parametrize(
    ("arguments", "least", "most"), [([], 48.0, 50.0), (["stop.time_limit_min=7"], 7.0, 7.0)]
)
def test_the_run_ends_before_the_jobs_limit_unless_it_says_itself_when(
    submit: Submit, arguments: list[str], least: float, most: float
) -> None:
    job = submit("train_het.sbatch", *CONFIG, *arguments, options=["--time=60"], END_MARGIN_S="600")
    assert least <= float(value(job.calls("torchrun")["node1"], "stop.time_limit_min")) <= most


def test_ray_is_reached_only_with_a_token_that_nobody_else_can_read(submit: Submit) -> None:
    job = submit("train.sbatch", *CONFIG)
    assert (job.folder / "token_mode").read_text() == "600\n"
    assert not list(job.folder.glob("logs/*/ray_token"))


def test_nodes_without_a_c_compiler_are_ill(submit: Submit) -> None:
    job = submit("train.sbatch", *CONFIG, smi=HEALTHY, CC="no-such-compiler")
    assert job.code == 1
    assert "error: node1: no C compiler is found, which Triton needs" in job.text
    assert not job.calls("torchrun")


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        ("{0..7}; do echo \"GPU $i: NVIDIA H100\"; done ;;\n    --q", "{0..6}; do echo \"GPU $i:\"; done ;;\n    --q",
         "7 of 8 GPUs answer"),
        ('echo "$i, 0"', 'echo "$i, $i"', "GPU 3: 3 uncorrected memory errors"),
        ('echo "$i, 4"', 'echo "$i, 70000"', "GPU 0: 70000 MiB are taken"),
        ("26.562 GB/s", "<inactive>", "GPU 0: NVLink    Link 0: <inactive>"),
        ("580.95", "570.10", "other than on node1: driver 570.10"),
        ("case", "sleep 30; case", "no answer within CHECK_S=5 s"),
    ],
)  # fmt: skip
def test_an_ill_node_is_named_and_nothing_starts(
    submit: Submit, find: str, put: str, words: str
) -> None:
    ill = HEALTHY.replace(find, put).removeprefix("#!/usr/bin/env bash\n")
    assert ill not in HEALTHY
    well = HEALTHY.removeprefix("#!/usr/bin/env bash\n")
    smi = f"#!/usr/bin/env bash\nif [[ $SLURMD_NODENAME == node2 ]]; then\n{ill}else\n{well}fi\n"
    job = submit("train.sbatch", *CONFIG, options=["--nodes=3"], smi=smi, CHECK_S="5")
    assert job.code == 1
    assert f"error: node2: {words}" in job.text and "sbatch --exclude=node2 ..." in job.text
    assert not job.calls("ray") and not job.calls("torchrun")


@pytest.mark.parametrize(
    ("arguments", "rollout_nodes", "words"),
    [
        (["run.steps=1"], "1", "--config FILE"),
        (CONFIG, "2", "ROLLOUT_NODES = 2: must leave one of 2 nodes"),
    ],
)
def test_a_wrong_submission_is_refused(
    submit: Submit, arguments: Sequence[str], rollout_nodes: str, words: str
) -> None:
    job = submit("train.sbatch", *arguments, ROLLOUT_NODES=rollout_nodes)
    assert job.code == 2 and words in job.text
    assert not job.starts


def test_a_node_without_an_address_is_named(submit: Submit) -> None:
    job = submit(
        "train.sbatch",
        *CONFIG,
        site=RECORDED + "node_address() { getent ahostsv4 localhost | grep -v 127; }",
    )
    assert job.code == 1 and "error: node1 has no address: see node_address in site.sh" in job.text


def test_a_ray_that_does_not_start_ends_the_job_at_once(submit: Submit) -> None:
    job = submit("train.sbatch", *CONFIG, site=RECORDED + "run_ray() { return 1; }")
    assert job.code == 1 and "error: Ray did not start" in job.text
    assert not job.calls("torchrun")
