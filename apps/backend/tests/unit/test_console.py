"""The program ``backend`` during its imports."""

import subprocess
import sys

#: Ctrl-C at the first import of the command line.
_INTERRUPTED_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "backend.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from backend._console import main
main()
"""


def test_ctrl_c_during_imports_prints_no_traceback() -> None:
    words = [sys.executable, "-c", _INTERRUPTED_IMPORT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
