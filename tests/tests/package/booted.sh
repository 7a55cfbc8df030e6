#!/bin/bash
# Runs inside a booted Debian with both packages in /packages, as a unit of its systemd. What it finds goes to /result, a line
# for each check: `ok NAME`, or `not ok NAME` and what was found.
set -u
exec >/result.log 2>&1
: >/result

check() { # NAME, FOUND, EXPECTED (a pattern of the shell)
	# shellcheck disable=SC2254
	case $2 in
	$3) echo "ok $1" >>/result ;;
	*) echo "not ok $1: found \"$2\", expected \"$3\"" >>/result ;;
	esac
}
show() { systemctl show --value --property="$1" kvs-edge.service; }
until_is() { # PROPERTY PATTERN: waits for systemd, two minutes at most
	for _ in $(seq 600); do
		# shellcheck disable=SC2254
		case $(show "$1") in $2) return ;; esac
		sleep 0.2
	done
}
configure() {
	cat >/etc/kvs-edge/kvs-edge.toml <<-END
		[aws]
		region = "eu-west-1"
		endpoint = "http://127.0.0.1:9"
		access_key_id_credential = "aws-key-id"
		secret_access_key_credential = "aws-secret"
		$1
		[[camera]]
		id = "gate"
		url = "rtsp://127.0.0.1:9/gate"
	END
}
version() { dpkg-query --show --showformat='${Version} ${db:Status-Status}' "$1"; }

# Installed, and nobody has configured it.
dpkg --install /packages/1/*.deb
check installed "$(version kvs-edge)" "0.* installed"
check own-user "$(id --name --groups kvs-edge)" "kvs-edge*video*"
check folder-of-secrets "$(stat --format='%a %U %G' /etc/kvs-edge)" "750 root kvs-edge"
check enabled "$(systemctl is-enabled kvs-edge.service)" enabled
check nothing-to-do-is-no-failure "$(show ActiveState) $(show ConditionResult)" "inactive no"
check models "$(ls /usr/share/kvs-edge/models | wc -l)" 3
check manual "$(cd /usr/share/man/man1 && echo kvs-edge*.1.gz)" "*kvs-edge-kvs-list.1.gz*kvs-edge-run.1.gz*kvs-edge.1.gz*"
check manual-of-an-option "$(zcat /usr/share/man/man1/kvs-edge-run.1.gz)" "*save*video*"
offered() { # WORD...: what bash completes the last one to
	bash -c '. /usr/share/bash-completion/completions/kvs-edge
		COMP_WORDS=(kvs-edge "$@") COMP_CWORD=$#
		by=$(complete -p kvs-edge)
		by=${by##*-F }
		"${by%% *}" kvs-edge "${!#}" ""
		echo "${COMPREPLY[*]}"' bash "$@"
}
check completes-commands "$(offered pro)" "*probe*provision*proof*"
check completes-options "$(offered run --)" "*--config*"
check nothing-of-the-demo "$(offered de)" ""
check completions-of-zsh "$(zsh --no-exec /usr/share/zsh/vendor-completions/_kvs-edge 2>&1 && echo fine)" fine
check completions-of-fish "$(fish --no-execute /usr/share/fish/vendor_completions.d/kvs-edge.fish 2>&1 && echo fine)" fine
check schema "$(cat /usr/share/kvs-edge/kvs-edge.schema.json)" "*draft-07*fragment_ms*"

# Configured: ready, as its own user, with the secrets that are there.
install -d -m 700 /etc/credstore
printf 'AKIDEXAMPLE\n' >/etc/credstore/aws-key-id
printf 'secret-of-the-store\n' >/etc/credstore/aws-secret
configure ""
systemctl start kvs-edge.service
check ready "$(show ActiveState) $(show SubState)" "active running"
until_is StatusText "?*"
check status-text "$(show StatusText)" "?*"
pid=$(show MainPID)
for figure in ExecMainStartTimestampMonotonic ActiveEnterTimestampMonotonic MemoryCurrent; do
	echo "figure $figure $(show $figure)" >>/result
done
echo "figure $(grep VmRSS "/proc/$pid/status")" >>/result
check runs-as "$(stat --format=%U "/proc/$pid")" kvs-edge
check no-capabilities "$(grep CapEff "/proc/$pid/status")" "*0000000000000000"
check filtered "$(grep Seccomp: "/proc/$pid/status")" "*2"
check secret-not-in-the-journal "$(journalctl --unit kvs-edge | grep -c secret-of-the-store)" 0
inside() { nsenter --mount --target "$pid" "$@" 2>&1; }
for place in /usr/x /etc/kvs-edge/x /var/x /opt/x /srv/x; do
	check "no-write-to-$place" "$(inside touch $place)" "*Read-only file system*"
done
check state-is-writable "$(inside touch /var/lib/kvs-edge/mark && echo yes)" yes

# A daemon that stands still is bitten, one that dies comes back.
mkdir -p /run/systemd/system/kvs-edge.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/kvs-edge.service.d/quick.conf
systemctl daemon-reload
systemctl restart kvs-edge.service
check fed "$(show WatchdogTimestampMonotonic)" "[1-9]*"
kill -STOP "$(show MainPID)"
until_is NRestarts 1
until_is ActiveState active
check watchdog-bites "$(show NRestarts) $(show ActiveState)" "1 active"
check watchdog-is-named "$(journalctl --unit kvs-edge | grep --count 'Watchdog timeout')" "[1-9]*"
kill -KILL "$(show MainPID)"
until_is NRestarts 2
until_is ActiveState active
check killed-comes-back "$(show NRestarts) $(show ActiveState)" "2 active"
rm -r /run/systemd/system/kvs-edge.service.d
systemctl daemon-reload

# An upgrade goes on with the configuration as it was changed, and with the new program.
sum=$(sha256sum /etc/kvs-edge/kvs-edge.toml)
pid=$(show MainPID)
dpkg --install /packages/2/*.deb
check upgraded "$(version kvs-edge)" "*+next installed"
check configuration-kept "$(sha256sum /etc/kvs-edge/kvs-edge.toml)" "$sum"
check restarted "$(show ActiveState) $([ "$(show MainPID)" != "$pid" ] && echo another)" "active another"

# A unit that somebody edited to something invalid: systemd names the line and refuses to restart, what runs goes on.
mkdir -p /etc/systemd/system/kvs-edge.service.d
printf '[Service]\nWatchdogSec=often\nExecStart=\n' >/etc/systemd/system/kvs-edge.service.d/wrong.conf
systemctl daemon-reload
check invalid-unit "$(systemctl restart kvs-edge.service 2>&1)" "*bad unit file setting*"
check invalid-unit-is-named "$(journalctl --boot | grep --count 'wrong.conf:2: .*often')" "[1-9]*"
check invalid-unit-costs-nothing "$(show ActiveState)" active
rm -r /etc/systemd/system/kvs-edge.service.d
systemctl daemon-reload
systemctl restart kvs-edge.service
check valid-unit-again "$(show LoadState) $(show ActiveState)" "loaded active"

# A disk that is full in the middle of an installation costs the installation and nothing else.
mount -t tmpfs -o size=1M tmpfs /usr/share/kvs-edge/models
check disk-full "$(dpkg --install /packages/1/kvs-edge-model*.deb 2>&1)" "*No space left on device*"
umount /usr/share/kvs-edge/models
check disk-full-daemon-runs "$(show ActiveState) $(version kvs-edge)" "active *+next installed"
dpkg --install /packages/2/kvs-edge-model*.deb
check disk-free-again "$(version kvs-edge-model)" "*+next installed"

# A wrong configuration is named in the journal, and the box goes on trying.
configure "no_such_key = 1"
systemctl restart kvs-edge.service
check mistake-named "$(journalctl --unit kvs-edge | grep --count no_such_key)" "[1-9]*"
configure ""
until_is ActiveState active
check repaired-comes-back "$(show ActiveState)" active

systemctl stop kvs-edge.service
check stop "$(show ActiveState) $(show Result) $(show ExecMainStatus)" "inactive success 0"

# Purged: what is not the package's stays.
echo footage >/var/lib/kvs-edge/footage
check purge-says "$(dpkg --purge kvs-edge kvs-edge-model 2>&1)" "*left /var/lib/kvs-edge, which is not empty*"
check purge-keeps "$(cat /var/lib/kvs-edge/footage) $(ls /etc/kvs-edge)" "footage kvs-edge.toml"
check purge-removes "$(ls -d /usr/bin/kvs-edge /usr/share/kvs-edge /var/cache/kvs-edge 2>/dev/null)" ""
echo end >>/result
