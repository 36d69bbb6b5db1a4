"""A signal that arrives inside a finaliser still ends the process."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, time
from harness.runs.interrupts import keep_interrupts

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.01)  # the handler runs in here

def leave(number, frame):
    raise {raised}

signal.signal(signal.SIGUSR2, leave)
{keep}
try:
    Dying()
    time.sleep(1)
    print("went on")
finally:
    print("cleaned up")
"""


def ended(raised, keep):
    script = SCRIPT.format(raised=raised, keep=keep)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(("raised", "code"), [("SystemExit(3)", 3), ("KeyboardInterrupt", -2)])
def test_a_signal_inside_a_finaliser_ends_the_process(raised, code):
    assert ended(raised, "keep_interrupts()")[:2] == (code, ["cleaned up"])


def test_python_alone_loses_it():
    code, lines, stderr = ended("SystemExit(3)", "")
    assert (code, lines) == (0, ["went on", "cleaned up"])
    assert "Exception ignored in" in stderr


def test_other_faults_of_finalisers_are_reported_as_ever():
    code, _, stderr = ended("ValueError('of a finaliser')", "keep_interrupts()")
    assert code == 0
    assert "ValueError: of a finaliser" in stderr
