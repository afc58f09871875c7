#!/bin/sh
# The first process of an image's first boot: configures the unpacked packages and powers the machine off.
# Reports by lines on the console: dpkg's own status lines, and at the end "isomorph-configure: finished STATUS".

export PATH=/run/first:/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true INITRD=No

if [ "$0" = /isomorph-configure ]; then
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mount -t tmpfs run /run
	mount -t tmpfs tmp /tmp
	# Goes on from a copy: a file that is removed while it runs would keep the file system from becoming read-only.
	mv /isomorph-configure /isomorph-preinst /isomorph-password /isomorph-hold /run
	exec /run/isomorph-configure
fi

finish() {
	status=$?
	trap - EXIT
	cd /
	sync
	mount -o remount,ro / || status=1
	echo "isomorph-configure: finished $status"
	busybox poweroff -f
}
trap finish EXIT
set -e
cd /

# Programs that have nothing to do in a first installation, or whose work the builder has done, or that are called once at the end
# for all packages instead of several times for each. They stand in front of the real ones in PATH, as long as this boot lasts.
mkdir /run/first
printf '#!/bin/sh\n' > /run/first/nothing
printf '#!/bin/sh\n[ "$1" = enable ] && shift && echo "$@" >> /run/units\nexit 0\n' > /run/first/deb-systemd-helper
chmod 755 /run/first/*
for name in deb-systemd-invoke depmod dpkg-maintscript-helper invoke-rc.d systemd-hwdb update-ca-certificates \
	update-initramfs update-rc.d; do
	ln -s nothing "/run/first/$name"
done

for name in $(cat /run/isomorph-preinst); do
	"/var/lib/dpkg/info/$name.preinst" install
done
# All others count on the accounts that base-passwd makes.
cp /usr/share/base-passwd/passwd.master /etc/passwd
cp /usr/share/base-passwd/group.master /etc/group
# The postinst would call adduser, at a thousand times the cost.
useradd --system --comment 'DHCP Client Daemon' --home-dir /usr/lib/dhcpcd --no-create-home --shell /bin/false --gid nogroup dhcpcd

dpkg --configure --pending --force-unsafe-io --status-fd 3 3>&1

# All units that packages wanted enabled, at once; then what this machine needs and does not need. Nobody looks at tty1, and the
# rest would keep an emulated processor busy after every start.
DPKG_MAINTSCRIPT_PACKAGE=systemd /usr/bin/deb-systemd-helper enable $(cat /run/units)
systemctl disable getty@tty1.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
	systemd-pstore.service

ldconfig
openssl rehash /etc/ssl/certs
echo "root:$(cat /run/isomorph-password)" | chpasswd
# The machine starts with the kernel that was taken out of the image, whatever kernel is installed later.
echo "$(cat /run/isomorph-hold) hold" | dpkg --set-selections

# Every machine made of the image gets an identity of its own at its first start, and finds everything up to date.
# The D-Bus identity is the same one, by a link, or systemd would take the old identity from there.
: > /etc/machine-id
ln -sf /etc/machine-id /var/lib/dbus/machine-id
rm -rf /var/log/journal /var/lib/systemd/random-seed /var/log/*.log /var/cache/debconf/*-old /var/lib/dpkg/*-old
touch -r /usr /etc/.updated /var/.updated
