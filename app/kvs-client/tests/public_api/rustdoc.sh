#!/bin/sh
# rustdoc as cargo calls it, with its JSON output, which a stable compiler has behind this switch. Of rustdoc alone: cargo itself
# under it would build half of the dependencies anew.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
