#!/usr/bin/env bats
# The data partition in a flash layout.

setup() {
    script=$BATS_TEST_DIRNAME/../dynamic-layers/tegra/recipes-bsp/tegra-binaries/files/data-partition.py
    layout=$BATS_TEST_TMPDIR/layout.xml
    write id
}

partition() { # name, type, id, size, attribute
    printf '<partition name="%s" type="%s" %s><size> %s </size><allocation_attribute> %s </allocation_attribute></partition>\n' "$@"
}

# A layout in the words of NVIDIA's, with numbers or without.
write() {
    numbered() { [ "$id" = id ] && echo "id=\"$1\""; return 0; }
    id=$1
    {
        echo '<?xml version="1.0"?><partition_layout version="01.00.0000">'
        echo '<device type="external" instance="0" sector_size="512" num_sectors="EXT_NUM_SECTORS">'
        partition master_boot_record protective_master_boot_record "" 512 8
        partition primary_gpt primary_gpt "" 19968 8
        partition APP data "$(numbered 1)" APPSIZE 0x8
        partition APP_b data "$(numbered 2)" APPSIZE 0x8
        partition esp data "$(numbered 10)" 67108864 0x8
        partition UDA data "$(numbered 15)" 419430400 0x808
        partition secondary_gpt secondary_gpt "" 0xFFFFFFFFFFFFFFFF 8
        echo '</device></partition_layout>'
    } > "$layout"
}

# One word of the partition NAME: an attribute (@id) or an element.
word() {
    python3 - "$layout" "$1" "$2" <<'END'
import sys, xml.etree.ElementTree as ET
found = ET.parse(sys.argv[1]).find(f".//partition[@name='{sys.argv[2]}']")
print(found.get(sys.argv[3][1:]) if sys.argv[3][0] == "@" else found.find(sys.argv[3]).text.strip())
END
}

@test "data comes last, formatted, and takes what the disk has left" {
    python3 "$script" "$layout"
    [ "$(word data @id)" = 16 ]
    [ "$(word data @type)" = data ]
    [ "$(word data filesystem_type)" = ext4 ]
    [ "$(word data allocation_attribute)" = 0x808 ]
    [ "$(grep -o '<partition name="[a-zA-Z_]*"' "$layout" | tail -2 | tr '\n' ' ')" = '<partition name="data" <partition name="secondary_gpt" ' ]
    # What else there was is as it was, but only one fills the disk.
    [ "$(word UDA allocation_attribute)" = 0x8 ]
    [ "$(word UDA size)" = 419430400 ]
    [ "$(word APP_b size)" = APPSIZE ]
    grep -q EXT_NUM_SECTORS "$layout"
}

@test "where partitions have no numbers it has none" {
    write none
    python3 "$script" "$layout"
    run word data @id
    [ "$output" = None ]
}

@test "a layout with one slot, twice the same work, and no layout at all are refused" {
    refused() {
        before=$(cat "$layout")
        run python3 "$script" "$layout"
        [ "$status" -ne 0 ]
        [[ $output == "data-partition.py: $layout: $1"* ]] || { echo "$output"; return 1; }
        [ "$(cat "$layout")" = "$before" ]
    }
    sed -i /APP_b/d "$layout"
    refused "found no partition APP_b, expected two slots"
    sed -i /APP/d "$layout"
    refused "found no partition APP, expected"
    write id
    python3 "$script" "$layout"
    refused "found a partition data already"
    echo "APPSIZE" > "$layout"
    refused "found no XML"
}
