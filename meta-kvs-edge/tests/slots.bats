#!/usr/bin/env bats
# RAUC's backend on a Jetson, against stand-ins of nvbootctrl and of the firmware.

setup() {
    here=$BATS_TEST_DIRNAME
    slots=$here/../dynamic-layers/tegra/recipes-bsp/kvs-edge-slots/files/kvs-edge-slots
    export BOARD=$BATS_TEST_TMPDIR/board KVS_EDGE_EFIVARS=$BATS_TEST_TMPDIR/efivars
    PATH=$here/stand-ins:$PATH
    vendor=781e084c-a330-417c-b678-38e696380cb9
    mkdir -p "$BOARD" "$KVS_EDGE_EFIVARS"
    echo 0 > "$BOARD/current"
    echo 0 > "$BOARD/active"
    echo 3 > "$BOARD/retry0"
    echo 3 > "$BOARD/retry1"
    variable RootfsRedundancyLevel 01
    variable RootfsStatusSlotA 00
    variable RootfsStatusSlotB 00
}

# Name and the value's lowest byte.
variable() {
    printf '\007\000\000\000\x'"$2"'\000\000\000' > "$KVS_EDGE_EFIVARS/$1-$vendor"
    chmod a-w "$KVS_EDGE_EFIVARS/$1-$vendor"
}

bytes() {
    od -An -v -tx1 "$KVS_EDGE_EFIVARS/$1-$vendor" | tr -d ' \n'
}

# What RAUC does to install into the slot that does not run.
install_into() {
    "$slots" set-state "$1" bad && "$slots" set-primary "$1"
}

says() {
    [ "$output" = "$1" ] || { echo "found: $output"; echo "expected: $1"; return 1; }
}

@test "primary, current and states are those of the firmware" {
    run "$slots" get-primary
    says A
    run "$slots" get-current
    says A
    run "$slots" get-state B
    says good
    variable RootfsStatusSlotB ff
    echo 1 > "$BOARD/current"
    run "$slots" get-current
    says B
    run "$slots" get-state B
    says bad
    run "$slots" get-state A
    says good
}

@test "an update boots the other slot, and stays there once it is confirmed" {
    install_into B
    nvbootctrl firmware-boot
    run "$slots" get-current
    says B
    "$slots" set-state B good
    for _ in 1 2 3 4 5; do
        nvbootctrl firmware-boot
        run "$slots" get-current
        says B
        "$slots" set-state B good
    done
}

@test "an update that nobody confirms falls back after three warm boots" {
    install_into B
    for _ in 1 2 3; do
        nvbootctrl firmware-boot
        run "$slots" get-current
        says B
    done
    nvbootctrl firmware-boot
    run "$slots" get-current
    says A
    run "$slots" get-state B
    says bad
}

@test "a slot that failed before boots again after the next update" {
    variable RootfsStatusSlotB ff
    install_into B
    run "$slots" get-state B
    says good
    nvbootctrl firmware-boot
    run "$slots" get-current
    says B
}

@test "a power cut while RAUC writes boots the old slot" {
    "$slots" set-state B bad
    nvbootctrl firmware-boot cold
    run "$slots" get-current
    says A
    run "$slots" get-state B
    says bad
}

@test "the whole variable is written, attributes first" {
    "$slots" set-state B bad
    [ "$(bytes RootfsStatusSlotB)" = 07000000ff000000 ]
    "$slots" set-primary B
    [ "$(bytes RootfsStatusSlotB)" = 0700000000000000 ]
    # Where a board has never written it.
    chmod u+w "$KVS_EDGE_EFIVARS/RootfsStatusSlotB-$vendor"
    rm "$KVS_EDGE_EFIVARS/RootfsStatusSlotB-$vendor"
    "$slots" set-state B bad
    [ "$(bytes RootfsStatusSlotB)" = 07000000ff000000 ]
}

@test "only the running slot is verified" {
    "$slots" set-state A good
    grep -qx verify "$BOARD/calls"
    rm "$BOARD/calls"
    variable RootfsStatusSlotB ff
    "$slots" set-state B good
    run grep -x verify "$BOARD/calls"
    [ "$status" -ne 0 ]
    [ "$(bytes RootfsStatusSlotB)" = 0700000000000000 ]
}

@test "without redundancy nothing is written, and it says so" {
    variable RootfsRedundancyLevel 00
    run "$slots" set-state B bad
    [ "$status" -eq 1 ]
    says "kvs-edge-slots: found RootfsRedundancyLevel 0700000000000000, expected level 1: the disk was not flashed with two slots, so that no slot can be switched; flash it with initrd-flash"
    [ "$(bytes RootfsStatusSlotB)" = 0700000000000000 ]
    run "$slots" set-primary B
    [ "$status" -eq 1 ]
    [ ! -e "$BOARD/calls" ]
    rm -f "$KVS_EDGE_EFIVARS/RootfsRedundancyLevel-$vendor"
    run "$slots" set-primary B
    [ "$status" -eq 1 ]
    [[ $output == *"found RootfsRedundancyLevel missing"* ]]
}

@test "a switch that does nothing is an error" {
    touch "$BOARD/deaf"
    run "$slots" set-primary B
    [ "$status" -eq 1 ]
    says "kvs-edge-slots: after set-active-boot-slot 1 slot A is active, expected B"
}

@test "nvbootctrl that fails, or answers otherwise, is an error" {
    touch "$BOARD/broken"
    for command in get-primary get-current "get-state A" "set-state A good" "set-primary B"; do
        # shellcheck disable=SC2086
        run "$slots" $command
        [ "$status" -eq 1 ]
        [[ $output == *kvs-edge-slots:*failed* ]]
    done
    rm "$BOARD/broken"
    echo seven > "$BOARD/current"
    run "$slots" get-current
    [ "$status" -eq 1 ]
    [[ $output == *"found \`seven\`, expected 0 or 1"* ]]
}

@test "a variable that stays guarded is an error" {
    touch "$BOARD/guarded"
    run "$slots" set-state B bad
    [ "$status" -eq 1 ]
    [[ $output == *"chattr -i "*" failed"* ]]
    [ "$(bytes RootfsStatusSlotB)" = 0700000000000000 ]
}

@test "whatever else is asked for is refused with what there is" {
    for command in "" get-state "get-state C" "set-state B" "set-state B maybe" "set-primary" "set-primary 1" "get-primary A" format; do
        # shellcheck disable=SC2086
        run "$slots" $command
        [ "$status" -eq 1 ] || { echo "accepted: $command"; return 1; }
        [[ $output == *"found "*"expected "* ]] || { echo "$command: $output"; return 1; }
    done
    [ ! -e "$BOARD/calls" ]
}
