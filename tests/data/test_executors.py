"""Tasks on processes, Ray and Slurm: the same files everywhere, finished tasks kept, a killed worker noticed."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from xmodel2.data.executors import Cluster, TaskRunner
from xmodel2.errors import XmodelError

SCRIPT = textwrap.dedent(
    """
    import os, signal, sys, time
    from dataclasses import dataclass
    from pathlib import Path
    from xmodel2.data.executors import Cluster, TaskRunner
    from xmodel2.errors import XmodelError

    @dataclass
    class Step:
        work: Path
        kill: str

        def __call__(self, data, rank, world_size):
            with open(self.work / "begun", "a") as handle:
                handle.write(f"{rank} ")
            if self.kill == "slow":
                time.sleep(2)
            if str(rank) == self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kill == f"error {rank}":
                raise XmodelError("corpus/x.jsonl:3: bad")
            (self.work / f"{rank}.txt").write_text(f"{rank} of {world_size}")

    if __name__ == "__main__":
        work = Path(sys.argv[1])
        try:
            with TaskRunner(work, Cluster(sys.argv[2], 2, {"partition": "cpu"})) as runner:
                runner.run("step", Step(work, sys.argv[3]), 5)
        except XmodelError as error:
            sys.exit(f"error: {error}")
    """
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "work").mkdir()
    return tmp_path / "script.py"


def run(script: Path, kind: str, kill: str = "", path: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), str(script.parent / "work"), kind, kill]
    environment = {**os.environ, "PATH": f"{path}{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)


def results(script: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (script.parent / "work").glob("*.txt")}


ALL = {f"{rank}.txt": f"{rank} of 5" for rank in range(5)}


def test_a_killed_worker_is_an_error_and_only_what_is_missing_is_done_again(script: Path) -> None:
    killed = run(script, "local", kill="3")
    assert "a worker process was killed" in killed.stderr
    assert "Traceback" not in killed.stderr
    assert "3.txt" not in results(script)
    finished = {path.name for path in (script.parent / "work" / "logs" / "step" / "completions").iterdir()}
    (script.parent / "work" / "begun").unlink()
    again = run(script, "local")
    assert again.returncode == 0, again.stderr
    assert results(script) == ALL
    begun = set((script.parent / "work" / "begun").read_text().split())
    assert begun == {str(rank) for rank in range(5)} - {str(int(name)) for name in finished}


def test_workers_end_with_the_main_process(script: Path) -> None:
    command = [sys.executable, str(script), str(script.parent / "work"), "local", "slow"]
    main = subprocess.Popen(command)
    work = script.parent / "work"
    while not (work / "begun").exists():
        time.sleep(0.05)
    main.kill()
    main.wait()
    time.sleep(1.0)
    begun = (work / "begun").read_text()
    time.sleep(1.5)
    assert (work / "begun").read_text() == begun
    assert results(script) == {}


def test_an_error_of_a_task_reaches_the_user_as_it_is(script: Path) -> None:
    failed = run(script, "local", kill="error 1")
    assert failed.stderr.strip() == "error: corpus/x.jsonl:3: bad"


def test_ray_does_the_same_and_its_errors_read_the_same(script: Path) -> None:
    failed = run(script, "ray", kill="error 1")
    assert failed.stderr.strip().splitlines()[-1] == "error: corpus/x.jsonl:3: bad"
    done = run(script, "ray")
    assert done.returncode == 0, done.stderr
    assert results(script) == ALL


def test_slurm_is_given_an_array_job_and_waited_for(script: Path, tmp_path: Path) -> None:
    """A stand-in for sbatch runs the job script for each index of the array, as Slurm would."""
    tools = tmp_path / "bin"
    tools.mkdir()
    sbatch = """\
        #!/bin/bash
        script="${@: -1}"
        grep -q -- "--partition=cpu" "$script" || exit 1
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
        if ! grep -q merge_stats "$script"; then
          for index in $(seq 0 "$last"); do
            RUN_OFFSET=0 SLURM_ARRAY_TASK_ID=$index SLURM_NODELIST=node1 bash "$script" >/dev/null 2>&1
          done
        fi
        echo "Submitted batch job 42"
        """
    srun = '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\nexec "$@"\n'
    scontrol = "#!/bin/bash\necho node1\n"
    for name, text in {
        "sbatch": textwrap.dedent(sbatch),
        "srun": srun,
        "squeue": "#!/bin/bash\n",
        "scontrol": scontrol,
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    done = run(script, "slurm", path=f"{tools}:")
    assert done.returncode == 0, done.stderr
    assert results(script) == ALL


def test_slurm_needs_a_partition(tmp_path: Path) -> None:
    with pytest.raises(XmodelError, match="--slurm partition=NAME"):
        TaskRunner(tmp_path, Cluster("slurm")).run("step", print, 1)
