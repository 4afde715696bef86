"""Makes a stub site's chroots, changes one by hand and enters it again.

python -m tests.programs.enter_changed_chroots FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.records import CHROOT, load
from tests.kit import stub_site
from tests.kit.stub_site import doit, enter_sh, modified_chroots


def main(folder: Path) -> None:
    """Print all that doit prints."""
    layout = stub_site.create(folder).layout
    print(doit(layout, "mount:appliance", "mount:java"))
    print(enter_sh(layout, "echo mine > /root/file; rm /etc/hosts"))
    assert modified_chroots(layout) == ["java"]
    print(doit(layout, "mount:appliance"))
    assert len(load(layout, CHROOT("appliance")).layers) == 5
    print(enter_sh(layout, "cat /root/file", "--scratch", name="appliance"))
    look = "ls /root; test -e /etc/hosts || echo gone"
    assert enter_sh(layout, look, "--scratch").endswith("file\ngone\n")
    assert list(layout.work.iterdir()) == []


if __name__ == "__main__":
    main(Path(sys.argv[1]))
