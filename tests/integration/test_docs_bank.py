"""The pages that build the bank give the files of ``examples/bank``."""

import subprocess
from pathlib import Path

from tests.fixtures.doc_files import blocks_of, typed_script

ROOT = Path(__file__).parents[2]
BANK = ROOT / "examples/bank"
PAGES = [ROOT / f"docs/how-to/{name}.md" for name in ("write-a-domain", "write-a-consumer")]


def test_files_of_the_pages_are_those_of_the_example(tmp_path: Path) -> None:
    script = typed_script(block for block in blocks_of(*PAGES) if block.language != "sh")
    subprocess.run(["bash", "-e"], input=script, cwd=tmp_path, text=True, check=True, capture_output=True)
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        str(path.relative_to(BANK))
        for path in BANK.rglob("*.*")
        if path.suffix in {".py", ".ini"} and ".relaybox" not in path.parts
    }
    assert built == kept
    for name in sorted(built):
        assert (tmp_path / name).read_text() == (BANK / name).read_text(), name
