"""Checkpoints when the process is killed or the disk is full: the file is whole, and nothing is lost."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="fork, SIGKILL and limits of file sizes are POSIX")
ROOT = Path(__file__).resolve().parents[1]

#: One process imports gpunet and starts all others by fork, which takes no time. It computes nothing itself: threads of
#: a kernel would not survive the fork.
LIVES = """
import os, random, signal, sys, time
import numpy as np
import safetensors.numpy
from pathlib import Path
from gpunet import io

folder = Path(sys.argv[1])
file = folder / "run.safetensors"
moments = random.Random(0)

def live(work, seconds=None):
    # Runs work(tell) in a process of its own, and kills it so long after the first tell(). Returns how it ended.
    heard, told = os.pipe()
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work(lambda: os.write(told, b"."))
            code = 0
        finally:
            os._exit(code)
    os.close(told)
    if seconds is not None:
        os.read(heard, 1)
        time.sleep(moments.uniform(0, seconds))
        os.kill(number, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    os.close(heard)
    return ended
"""


def python(program: str, folder: Path) -> str:
    """What the program prints; it is run from the repository's root, and must end well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "GPUNET_BACKEND": "numpy"},  # begins at once
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path):
    program = LIVES + textwrap.dedent("""
        def save(number):
            io.save(file, {"a": np.full(100_000, number)}, number=number)

        def work(tell):
            number = io.load_metadata(file)["number"]
            while True:
                number += 1
                save(number)
                tell()

        save(0)
        for _ in range(25):
            before = io.load_metadata(file)["number"]
            assert live(work, 0.02) == -signal.SIGKILL
            number = io.load_metadata(file)["number"]
            assert number > before
            assert (safetensors.numpy.load_file(file)["a"] == number).all()
        unfinished = [each.name for each in folder.iterdir() if each != file]
        assert all(name.startswith(".run.safetensors.") and name.endswith(".tmp") for name in unfinished)
        print(len(unfinished), number)
    """)
    unfinished, number = map(int, python(program, tmp_path).split())
    assert unfinished <= 25 <= number


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    program = LIVES + textwrap.dedent("""
        from gpunet.train import LambdaCallback, ModelCheckpoint
        from tests.test_checkpoints import Task

        def straight(tell):
            (folder / "whole").mkdir()
            task = Task("adam", folder / "whole")
            task.fit()
            (folder / "expected").write_text(repr(task.left()))

        def work(tell, hang=False):
            known = file.exists()
            task = Task("adam", folder, seed=os.getpid() if known else 0)
            times = iter(range(100))
            alive = LambdaCallback(on_checkpoint=lambda: (tell(), hang and next(times) == 7 and time.sleep(600)))
            task.fit(ModelCheckpoint(file, save_freq=1), alive, resume=file if known else None)
            (folder / "result").write_text(repr(task.left()))

        assert live(straight) == 0
        assert live(lambda tell: work(tell, hang=True), 0.05) == -signal.SIGKILL
        kills = 1 + sum(live(work, 0.05) == -signal.SIGKILL for _ in range(6))
        assert live(work) == 0
        assert (folder / "result").read_text() == (folder / "expected").read_text()
        print(kills)
    """)
    assert int(python(program, tmp_path)) > 0


def test_a_full_disk_loses_nothing(tmp_path):
    program = """
        import resource, sys
        from pathlib import Path
        import gpunet as gn
        from gpunet import nn, optim
        from gpunet.train import LambdaCallback, ModelCheckpoint, Trainer
        from tests.training import X, Y, bits

        def trainer(seed):
            gn.manual_seed(seed)
            net = nn.Sequential(nn.Linear(6, 500), nn.ReLU(), nn.Dropout(0.5), nn.Linear(500, 3))
            return Trainer(net, optim.Adam(net.parameters()), "cross_entropy")

        folder = Path(sys.argv[1])
        file, hard = folder / "run.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        straight = trainer(0)
        straight.fit(X, Y, epochs=4, verbose=0)
        one = trainer(0)

        def fill(epoch, logs):  # from the second epoch on a file may be half as large as the first checkpoint
            if epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size // 2, hard))
                fill.before = file.read_bytes()

        try:
            one.fit(X, Y, epochs=4, verbose=0, callbacks=[ModelCheckpoint(file), LambdaCallback(on_epoch_end=fill)])
        except OSError as error:
            print(error)
        assert file.read_bytes() == fill.before
        assert list(folder.iterdir()) == [file]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        one.save(folder / "elsewhere")  # as the message says: what there is goes to another place
        other = trainer(5)
        other.fit(X, Y, epochs=4, verbose=0, resume=folder / "elsewhere")
        assert other.history.batch_losses == straight.history.batch_losses
        assert bits(other.model) == bits(straight.model)
    """
    told = python(program, tmp_path).splitlines()
    assert len(told) == 1
    assert "File too large; what was there before is unchanged" in told[0]
    assert str(tmp_path / "run.safetensors") in told[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_is_an_error(tmp_path):
    from gpunet.train import CSVLogger
    from tests.training import fit, trainer

    class Full(CSVLogger):
        def _begin(self, epoch, columns):
            super()._begin(epoch, columns)
            self.filename = Path("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        fit(trainer(), epochs=2, callbacks=[Full(tmp_path / "log.csv")])
    assert (tmp_path / "log.csv").read_text().startswith("epoch,loss")
