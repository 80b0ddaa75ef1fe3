"""What the release archive is made of: LICENSES/ and sbom.spdx.json (SPDX 2.3).

A library whose licence is not in the tables below stops the build: nothing gets into the archive that nobody looked at.
"""
import datetime
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

from tailor_setup import pins
from tailor_setup.errors import SetupError

RUNTIME = "GPL-3.0-or-later WITH GCC-exception-3.1"
# Debian packages of the libraries in lib/tailor, and of those that are compiled into bin/tailor.
SHARED = {"libfmt9": "MIT", "libgcc-s1": RUNTIME, "libgomp1": RUNTIME, "libicu72": "Unicode-DFS-2016", "libsimdjson14": "Apache-2.0",
          "libsqlite3-0": "blessing", "libssl3": "Apache-2.0", "libstdc++6": RUNTIME, "libyaml-cpp0.7": "MIT"}
COMPILED_IN = {"libboost1.81-dev": "BSL-1.0", "libcli11-dev": "BSD-3-Clause", "libopenblas-pthread-dev": "BSD-3-Clause", "nlohmann-json3-dev": "MIT"}
COMMON = Path("/usr/share/common-licenses")
SOURCES = """Corresponding source

Libraries of the GNU compiler (libstdc++, libgcc, libgomp) are Debian's, unchanged, under the GPL with the GCC Runtime Library
Exception; their source, and that of the other packages of Debian in this archive, is at

"""


def dpkg(*words):
    return subprocess.run(["dpkg-query", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout


def owner(library):
    """The Debian package of a file; /lib is a link to /usr/lib on some machines, and dpkg knows either."""
    for path in (str(library), str(library).removeprefix("/usr")):
        if found := dpkg("-S", path):
            return found.split(":")[0]
    raise SetupError(f"{library} belongs to no Debian package; build the archive with Debian's libraries")


def package(name):
    """Version, source package and its version of an installed package."""
    version, source, source_version = dpkg("-W", "-f=${Version}|${source:Package}|${source:Version}\n", name).splitlines()[0].split("|")
    return {"name": name, "version": version, "source": source, "source_version": source_version}


def debian_packages(libraries):
    """[(package, licence, relationship)] of everything that comes from Debian."""
    out = []
    for name in sorted({owner(library) for library in libraries}):
        if name not in SHARED:
            raise SetupError(f"the archive would hold {name}, whose licence nobody has looked at (scripts/dist_licences.py)")
        out.append((package(name), SHARED[name], "CONTAINS"))
    return out + [(package(name), licence, "STATIC_LINK") for name, licence in sorted(COMPILED_IN.items())]


def write(out, libraries, llama, xgrammar, version, epoch):
    """LICENSES/ and sbom.spdx.json into the directory `out`."""
    debian = debian_packages(libraries)
    licences = out / "LICENSES"
    licences.mkdir()
    texts = {}
    for found, _, _ in debian:
        texts[found["name"]] = (Path("/usr/share/doc") / found["name"] / "copyright").read_text()
    common = {name for text in texts.values() for name in re.findall(rf"{COMMON}/([A-Za-z0-9.+-]*[A-Za-z0-9])", text)}
    for name in common:
        if (COMMON / name).is_file():
            texts[f"common-licenses/{name}"] = (COMMON / name).read_text()
    texts["llama.cpp"] = (llama / "LICENSE").read_text()
    for file in ("LICENSE", "NOTICE", "LICENSE.dlpack", "LICENSE.picojson"):
        texts[f"xgrammar-{file}"] = (xgrammar / file).read_text()
    texts["SOURCES"] = SOURCES + "".join(sorted({f"  https://snapshot.debian.org/package/{p['source']}/{p['source_version']}/\n" for p, _, _ in debian}))
    for name, text in texts.items():
        path = licences / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (out / "sbom.spdx.json").write_text(json.dumps(sbom(debian, version, epoch), indent=1) + "\n")


def sbom(debian, version, epoch):
    def entry(identifier, name, found, licence, purl, **more):
        return {"SPDXID": f"SPDXRef-{identifier}", "name": name, "versionInfo": found, "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
                "licenseConcluded": licence, "licenseDeclared": licence, "copyrightText": "NOASSERTION",
                "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}], **more}

    packages = [entry("tailor", "tailor", version, "Apache-2.0", f"pkg:generic/tailor@{version}")]
    relations = []
    for pin, what, licence, relation in ((pins.LLAMA, "llama.cpp", "MIT", "CONTAINS"), (pins.XGRAMMAR, "xgrammar", "Apache-2.0 AND BSD-2-Clause", "STATIC_LINK")):
        packages.append(entry(what, what, pin.version, licence, f"pkg:pypi/{pin.name}@{pin.version}",
                              checksums=[{"algorithm": "SHA256", "checksumValue": pin.sha256}], comment=f"the source distribution of {pin}"))
        relations.append((what, relation))
    for found, licence, relation in debian:
        identifier = re.sub(r"[^A-Za-z0-9.-]", "-", found["name"])
        packages.append(entry(identifier, found["name"], found["version"], licence, f"pkg:deb/debian/{found['name'].replace('+', '%2B')}@{found['version'].replace('+', '%2B').replace(':', '%3A')}?arch=amd64&distro=bookworm"))
        relations.append((identifier, relation))
    content = hashlib.sha256(json.dumps(packages).encode()).hexdigest()[:16]
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"tailor-{version}-linux-x86_64",
            "documentNamespace": f"https://spdx.org/spdxdocs/tailor-{version}-{content}",
            "creationInfo": {"created": datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                             "creators": ["Tool: tailor-scripts/dist.py"]},
            "packages": packages,
            "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-tailor"}] + [
                {"spdxElementId": "SPDXRef-tailor", "relationshipType": relation, "relatedSpdxElement": f"SPDXRef-{identifier}"} for identifier, relation in relations]}
