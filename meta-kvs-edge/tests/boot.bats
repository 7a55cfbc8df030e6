#!/usr/bin/env bats
# The virtual board's choice of a slot, by the real GRUB.

setup() {
    files=$BATS_TEST_DIRNAME/../recipes-bsp/kvs-edge-boot/files
}

@test "GRUB understands its configuration" {
    grub-script-check "$files/grub.cfg"
    sed 's/^done$//' "$files/grub.cfg" > "$BATS_TEST_TMPDIR/broken.cfg"
    run grub-script-check "$BATS_TEST_TMPDIR/broken.cfg"
    [ "$status" -ne 0 ]
}

@test "a new box boots A, and not the slot that is empty" {
    run grub-editenv "$files/grubenv" list
    [ "$output" = "$(printf '%s\n' "ORDER=A B" A_OK=1 A_TRY=0 B_OK=0 B_TRY=0)" ] || { echo "$output"; return 1; }
}

@test "what RAUC and GRUB write keeps the size that GRUB needs" {
    cp "$files/grubenv" "$BATS_TEST_TMPDIR/grubenv"
    grub-editenv "$BATS_TEST_TMPDIR/grubenv" set "ORDER=B A" B_OK=1 B_TRY=0
    [ "$(stat -c %s "$BATS_TEST_TMPDIR/grubenv")" = 1024 ]
    # Every variable that the configuration reads is one of those.
    for name in $(grep -o '\$[AB]_[A-Z]*\|\$ORDER' "$files/grub.cfg" | tr -d '$' | sort -u); do
        grub-editenv "$BATS_TEST_TMPDIR/grubenv" list | grep -q "^$name=" || { echo "$name"; return 1; }
    done
}
