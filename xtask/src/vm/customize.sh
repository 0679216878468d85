#!/bin/sh
# Turns a fresh Debian tree into the guest of `cargo xtask vm`. Run by mmdebstrap with the tree as $1.
#
# The guest boots to one unit, which runs what is on the second disk and powers off. Everything that would
# only cost time under software emulation is masked. Besides it makes /boot/initrd.onggi: Debian's own
# initrd takes ten seconds to unpack there, ours holds busybox and the modules of the root disk.
set -eu
root=$1
kernel=$(ls "$root/lib/modules")

# A fixed identity, so that no boot is a first boot.
echo onggi-vm > "$root/etc/hostname"
printf '127.0.0.1 localhost onggi-vm\n' > "$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id"

# An ordinary user with subordinate ids, whose systemd runs from the start and has all controllers.
chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash tester
mkdir -p "$root/var/lib/systemd/linger" "$root/etc/systemd/system/user@.service.d"
: > "$root/var/lib/systemd/linger/tester"
cat > "$root/etc/systemd/system/user@.service.d/delegate.conf" <<'END'
[Service]
Delegate=cpu cpuset io memory pids
END

cat > "$root/etc/systemd/system/onggi-vm.service" <<'END'
[Unit]
Description=What the second disk asks for
After=dbus.service systemd-logind.service user@1000.service apparmor.service
[Service]
ExecStartPre=/bin/mkdir -p /payload
ExecStartPre=/bin/mount -t ext4 -o ro,noload /dev/vdb /payload
ExecStart=/payload/xtask __vm-guest
ExecStopPost=/bin/systemctl poweroff --force --force
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Delegate=yes
OOMPolicy=continue
OOMScoreAdjust=-500
KillMode=process
TasksMax=infinity
LimitNOFILE=65536
LimitMEMLOCK=infinity
StandardOutput=journal+console
StandardError=journal+console
[Install]
WantedBy=multi-user.target
END
chroot "$root" systemctl --quiet enable onggi-vm.service

# With the kernel's audit, which journald turns on, each system call takes the slow way; its messages are still
# in the kernel's log.
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nAudit=no\n' > "$root/etc/systemd/journald.conf.d/audit.conf"

# Each daemon-reload would run all of these, and there is nothing here that they could find.
rm -f "$root"/lib/systemd/system-generators/*
for unit in getty@tty1.service getty.target serial-getty@ttyS0.service serial-getty@ttyS1.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-pstore.service systemd-random-seed.service systemd-update-utmp.service nftables.service \
    systemd-update-utmp-runlevel.service systemd-tmpfiles-clean.timer networking.service systemd-udev-trigger.service \
    systemd-journal-flush.service systemd-remount-fs.service modprobe@drm.service modprobe@efi_pstore.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Drivers of hardware that no virtual machine has are most of the kernel's package.
for dir in sound drivers/gpu drivers/media drivers/staging drivers/iio drivers/usb drivers/hid drivers/infiniband \
    drivers/net/wireless drivers/net/ethernet drivers/scsi drivers/mtd drivers/hwmon; do
    rm -rf "$root/lib/modules/$kernel/kernel/$dir"
done
chroot "$root" depmod "$kernel"

initrd=$(mktemp -d)
mkdir "$initrd/bin" "$initrd/modules" "$initrd/dev" "$initrd/new"
cp "$root/bin/busybox" "$initrd/bin/"
for module in virtio_pci virtio_blk ext4; do
    chroot "$root" modprobe --show-depends --set-version "$kernel" "$module" | while read -r how file _; do
        # The others are in the kernel.
        [ "$how" = insmod ] || continue
        name=$(basename "$file" .xz)
        [ -e "$initrd/modules/$name" ] && continue
        case $file in
        *.xz) xz -dc "$root$file" > "$initrd/modules/$name" ;;
        *) cp "$root$file" "$initrd/modules/" ;;
        esac
        echo "$name" >> "$initrd/modules/order"
    done
done
cat > "$initrd/init" <<'END'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do $b insmod "/modules/$module"; done
if [ ! -b /dev/vda ]; then
    echo "onggi-vm: no root disk" > /dev/ttyS0
    exec $b poweroff -f
fi
$b mount -t ext4 -o noinit_itable,noatime /dev/vda /new || exec $b poweroff -f
exec $b switch_root /new /sbin/init
END
chmod 755 "$initrd/init"
(cd "$initrd" && find . | busybox cpio -o -H newc 2> /dev/null) | gzip -1 > "$root/boot/initrd.onggi"
rm -rf "$initrd"
