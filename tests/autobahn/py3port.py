#!/usr/bin/env python3
"""Turn the source release autobahntestsuite 25.10.1 (Python 2 only) into a package that Python 3 runs.

    py3port.py SDIST.tar.gz SITE_PACKAGES_DIR

Nothing about a case is altered.  The conversion keeps Python 2's idea of str: the sources are read as
latin-1, so each octet of a literal is one character, and text is turned back into octets (latin-1) where it
goes out on the wire, where it is compared with what came in, and where it is printed.  The archive's SHA-256
is checked, so that another release is refused; edits other than the plain syntax ones (print, has_key,
xrange, imports) also name how often they must apply.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import sys
import tarfile
from pathlib import Path

SHA256 = "b083d6e15330fc16f3e5f0975cce2b15f21bfa0c6db09547316b1852c6dbd6df"
TOP = "autobahntestsuite-25.10.1/autobahntestsuite/"
OWN = Path(__file__).resolve().parent / "converted"  # the modules that are added to the package

# Added to the fuzzing protocol.  The sending side takes octets: str is latin-1 guise (see converted/_py2.py).
WIRE = """
   def sendFrame(self, opcode, payload = b"", fin = True, rsv = 0, mask = None, payload_len = None,
                 chopsize = None, sync = False):
      if payload_len is not None:
         payload_len = _py2.Length(payload_len)
      payload = _py2.octets(payload)
      return super().sendFrame(opcode, payload, fin, rsv, mask, payload_len, chopsize, sync)

   def sendMessage(self, payload, isBinary = False, fragmentSize = None, sync = False, doNotCompress = False):
      return super().sendMessage(_py2.octets(payload), isBinary, fragmentSize, sync, doNotCompress)

   def sendMessageFrameData(self, payload, sync = False):
      return super().sendMessageFrameData(_py2.octets(payload), sync)

   def sendCloseFrame(self, code = None, reasonUtf8 = None, isReply = False):
      if reasonUtf8 is not None:
         ## a reply echoes the peer's reason (text); all else is octets already or latin-1 guise
         isText = isReply and isinstance(reasonUtf8, str)
         reasonUtf8 = reasonUtf8.encode("utf-8") if isText else _py2.octets(reasonUtf8)
      return super().sendCloseFrame(code, reasonUtf8, isReply)

"""


class Source:
    """The text of one module, and edits that insist on being applicable."""

    def __init__(self, name: str, raw: bytes) -> None:
        self.name = name
        self.text = raw.decode("latin-1").replace("\r\n", "\n")

    def sub(self, pattern: str, new: str, times: int | None = None) -> None:
        self.text, count = re.subn(pattern, new, self.text, flags=re.MULTILINE)
        if times is not None and count != times:
            raise SystemExit(f"{self.name}: {pattern!r} applied {count} times, not {times}")

    def put(self, old: str, new: str, times: int = 1) -> None:
        count = self.text.count(old)
        if count != times:
            raise SystemExit(f"{self.name}: {old!r} found {count} times, not {times}")
        self.text = self.text.replace(old, new)

    def cut(self, marker: str) -> None:
        """Drop everything from the line that starts with marker on."""
        self.text = self.text[: self.text.index("\n" + marker) + 1]

    def syntax(self) -> None:
        self.sub(r"^( *)print$", r"\1print()")
        self.sub(r"^( *)print (.+)$", r"\1print(\2)")
        self.sub(r"([\w.\[\]]+)\.has_key\(([^()]+)\)", r"(\2 in \1)")
        self.sub(r"\bxrange\(", "range(")
        self.sub(r"\(object, Case, \)", "(Case, )")


def case(s: Source) -> None:
    """A module of case/."""
    s.syntax()
    s.sub(r"^from (case\w*) import", r"from .\1 import")
    s.sub(r"^import binascii$", "from autobahntestsuite import _py2 as binascii")
    special = {
        "__init__": case_init,
        "case": case_base,
        "case10_1_1": case10,
        "case12_x_x": case12,
        "case6_x_x": case6,
    }
    edit = special.get(Path(s.name).stem)
    if edit:
        edit(s)


def case_init(s: Source) -> None:
    s.put("from .case9_9_1 import *\n", "")  # not among the release's cases; needs Python 2's zope.interface


def case_base(s: Source) -> None:
    s.put("import pickle\n", "from autobahntestsuite import _py2\n")
    s.put("pickle.dumps(obj1) == pickle.dumps(obj2)", "_py2.norm(obj1) == _py2.norm(obj2)")


def case6(s: Source) -> None:
    s.put("from autobahn.websocket.utf8validator import", "from autobahntestsuite._py2 import")


def case10(s: Source) -> None:
    s.put("len(self.payload) / self.p.autoFragmentSize", "len(self.payload) // self.p.autoFragmentSize")


def case12(s: Source) -> None:
    s.put(
        "import copy, os, pkg_resources, hashlib, binascii\n",
        "import copy, os, hashlib\nfrom autobahntestsuite import _py2 as binascii, _py2 as pkg_resources\n",
    )


def package_init(s: Source) -> None:
    s.text = "from ._version import __version__\n\nversion = __version__\n"


def report(s: Source) -> None:
    s.put("import jinja2\n", "")
    s.cut("REPORT_DIR_PERMISSIONS")


def caseset(s: Source) -> None:
    s.syntax()
    s.put("'\\.'", "'\\\\.'", 3)


def fuzzing(s: Source) -> None:
    s.syntax()
    fuzzing_imports(s)
    fuzzing_texts(s)
    s.put('   ellipses = " ..."\n   try:', '   ellipses = b" ..."\n   data = _py2.octets(data)\n   try:')
    s.put("''.join(payload)", "b''.join(payload)")
    s.put("\n   def executeContinueLater(", WIRE + "\n   def executeContinueLater(")
    # a report that cannot be written must not leave the reactor running for ever
    s.sub(
        r"^( +)self\.createReports\(\)\n +reactor\.stop\(\)\n",
        r"\1try:\n\1   self.createReports()\n\1finally:\n\1   reactor.stop()\n",
        2,
    )


def fuzzing_imports(s: Source) -> None:
    s.put(
        "import os, json, binascii, time, textwrap, pkg_resources\n",
        "import os, json, time, textwrap\n"
        "from autobahntestsuite import _py2, _py2 as binascii, _py2 as pkg_resources\n",
    )
    s.sub(r"^from (case|caseset|report) import", r"from .\1 import", 3)
    # only wss needs ssl, and pyOpenSSL with it
    s.put("from twisted.internet import reactor, ssl\n", "from twisted.internet import reactor\n")
    s.put("ssl.optionsForClientTLS(", "__import__('twisted.internet.ssl').internet.ssl.optionsForClientTLS(")
    s.put("self.contextFactory = ssl.ClientContextFactory()", "self.contextFactory = None")


def fuzzing_texts(s: Source) -> None:
    """What goes into the reports."""
    s.put('"description": self.Case.DESCRIPTION', '"description": _py2.prose(self.Case.DESCRIPTION)')
    s.put("% CCase.DESCRIPTION)", "% _py2.prose(CCase.DESCRIPTION))")
    for key in ("localCloseReason", "remoteCloseReason"):
        s.put(f'"{key}": self.{key},', f'"{key}": _py2.text(self.{key}),')
    for key, name in (("httpRequest", "http_request_data"), ("httpResponse", "http_response_data")):
        s.put(
            f"\"{key}\": self.{name} if hasattr(self, '{name}') else '?',",
            f"\"{key}\": _py2.text(getattr(self, '{name}', None) or '?'),",
        )
    s.put("json.dumps(case, sort_keys", "json.dumps(case, default = _py2.text, sort_keys")
    s.sub(r"(open\(os\.path\.join\(outdir, report_filename\), 'w')\)", r"\1, encoding = 'utf-8')", 4)
    s.put('case[c[0]], c[1])).encode("utf-8"))', "case[c[0]], c[1])))")
    s.put("ll.encode('utf8')", "ll")


MODULES = {
    "__init__.py": package_init,
    "_version.py": lambda s: None,
    "report.py": report,
    "caseset.py": caseset,
    "fuzzing.py": fuzzing,
}


def converter(name: str):  # type: ignore[no-untyped-def]
    """The edits for a file of the release, None if it is no module we use."""
    if name == "case/case9_9_1.py":
        return None
    return case if re.fullmatch(r"case/\w+\.py", name) else MODULES.get(name)


def convert(archive: bytes, package: Path) -> int:
    """Write the package; returns how many modules were converted."""
    modules = 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as release:
        for member in release.getmembers():
            name = member.name[len(TOP) :] if member.name.startswith(TOP) else ""
            edit = converter(name)
            file = release.extractfile(member) if member.isfile() else None
            if not file or not (edit or name.startswith(("testdata/", "web/fuzzingserver/"))):
                continue
            data = file.read()
            if edit:
                source = Source(name, data)
                edit(source)
                compile(source.text, name, "exec")
                data = source.text.encode("utf-8")
                modules += 1
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_bytes(data)
    return modules


def main(archive: Path, site: Path) -> None:
    raw = archive.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise SystemExit(f"{archive} is not the release this converts")
    package = site / "autobahntestsuite"
    package.mkdir(parents=True)
    modules = convert(raw, package)
    for module in sorted(OWN.glob("*.py")):
        shutil.copyfile(module, package / module.name)
    print(f"converted {modules} modules into {package}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
