#!/usr/bin/env bats
# The development PKI and the boxes' configuration, by the real RAUC and openssl.

setup_file() {
    layer=$BATS_TEST_DIRNAME/..
    export pki=$BATS_FILE_TMPDIR/pki foreign=$BATS_FILE_TMPDIR/foreign bundle=$BATS_FILE_TMPDIR/update.raucb
    "$layer/scripts/make-development-pki" "$pki"
    "$layer/scripts/make-development-pki" "$foreign"
    mkdir "$BATS_FILE_TMPDIR/content"
    head -c 65536 /dev/urandom > "$BATS_FILE_TMPDIR/content/rootfs.ext4"
    printf '[update]\ncompatible=kvs-edge-qemuarm64\nversion=1\n[bundle]\nformat=verity\n[image.rootfs]\nfilename=rootfs.ext4\n' \
        > "$BATS_FILE_TMPDIR/content/manifest.raucm"
    rauc bundle --cert="$pki/signer.cert.pem" --key="$pki/signer.key.pem" "$BATS_FILE_TMPDIR/content" "$bundle"
}

setup() {
    layer=$BATS_TEST_DIRNAME/..
}

# The configuration of a machine with the keyring of a PKI beside it, as on a box.
box() {
    mkdir "$BATS_TEST_TMPDIR/box"
    cp "$layer/dynamic-layers/rauc/recipes-core/kvs-edge-rauc-conf/files/$1/system.conf" "$2/ca.cert.pem" "$BATS_TEST_TMPDIR/box"
    conf=$BATS_TEST_TMPDIR/box/system.conf
}

@test "both boxes accept a bundle of their PKI" {
    for machine in kvs-edge-orin-nano kvs-edge-qemuarm64; do
        rm -rf "$BATS_TEST_TMPDIR/box"
        box "$machine" "$pki"
        run rauc --conf="$conf" info "$bundle"
        [ "$status" -eq 0 ] || { echo "$output"; return 1; }
        [[ $output == *"Bundle Format: "*verity* ]]
    done
}

@test "a bundle of another PKI is refused" {
    box kvs-edge-orin-nano "$foreign"
    run rauc --conf="$conf" info "$bundle"
    [ "$status" -ne 0 ]
    [[ $output == *"signature verification failed"* ]] || { echo "$output"; return 1; }
}

@test "a bundle that the authority itself has signed is refused: it is no signer of code" {
    box kvs-edge-orin-nano "$pki"
    rauc bundle --cert="$pki/ca.cert.pem" --key="$pki/ca.key.pem" "$BATS_FILE_TMPDIR/content" "$BATS_TEST_TMPDIR/ca.raucb"
    run rauc --conf="$conf" info "$BATS_TEST_TMPDIR/ca.raucb"
    [ "$status" -ne 0 ]
    [[ $output == *"unsuitable certificate purpose"* || $output == *"unsupported certificate purpose"* ]] || { echo "$output"; return 1; }
}

@test "a bundle cut short is refused" {
    box kvs-edge-orin-nano "$pki"
    head -c 5000 "$bundle" > "$BATS_TEST_TMPDIR/short.raucb"
    run rauc --conf="$conf" info "$BATS_TEST_TMPDIR/short.raucb"
    [ "$status" -ne 0 ]
}

@test "the PKI is made once, and its keys are for its owner" {
    before=$(cat "$pki"/*)
    "$layer/scripts/make-development-pki" "$pki"
    [ "$(cat "$pki"/*)" = "$before" ]
    for key in "$pki"/*.key.pem; do
        [ "$(stat -c %a "$key")" = 600 ]
    done
    # No two builds share a key.
    run cmp "$pki/ca.key.pem" "$foreign/ca.key.pem"
    [ "$status" -ne 0 ]
}

@test "a PKI that is not whole is refused, not completed" {
    cp -r "$pki" "$BATS_TEST_TMPDIR/half"
    rm "$BATS_TEST_TMPDIR/half/signer.key.pem"
    run "$layer/scripts/make-development-pki" "$BATS_TEST_TMPDIR/half"
    [ "$status" -eq 1 ]
    [[ $output == *"found no $BATS_TEST_TMPDIR/half/signer.key.pem"* ]]
}

@test "many builds at once agree on one PKI" {
    for _ in 1 2 3 4; do
        "$layer/scripts/make-development-pki" "$BATS_TEST_TMPDIR/shared" &
    done
    wait
    openssl verify -CAfile "$BATS_TEST_TMPDIR/shared/ca.cert.pem" "$BATS_TEST_TMPDIR/shared/signer.cert.pem"
    [ "$(find "$BATS_TEST_TMPDIR" -maxdepth 1 -name 'shared*' | wc -l)" = 1 ]
}
