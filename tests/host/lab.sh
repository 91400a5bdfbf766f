# What the scripts of tests/host call inside the machine; sourced. Storage, and what may happen to it.
#
# LIO has two portals on loopback, 127.0.1.1 and 127.0.1.2, each a target portal group and a target port group of its own.
# The wire to a portal is loopback with nftables and netem before it, the same for the kernel's initiator and for ours.
export PATH=/run/programs:/usr/sbin:/usr/bin:/sbin:/bin

# busybox prefers its own tc.
tc() { /usr/sbin/tc "$@"; }

iqn=iqn.2003-01.org.example:lio
core=/sys/kernel/config/target/core
fabric=/sys/kernel/config/target/iscsi

# lio_disk NAME MEGABYTES: a logical unit with its data in memory and two target port groups
lio_disk() {
  modprobe -a target_core_mod target_core_file
  mkdir -p "$core/fileio_0/$1"
  echo "fd_dev_name=/run/disk-$1,fd_dev_size=$(($2 * 1048576))" >"$core/fileio_0/$1/control"
  echo 1 >"$core/fileio_0/$1/enable"
  echo "$1" >"$core/fileio_0/$1/wwn/vpd_unit_serial"
  for group in 1 2; do
    alua=$core/fileio_0/$1/alua/g$group
    mkdir "$alua"
    echo $group >"$alua/tg_pt_gp_id"
    # Implicit: with explicit states too, an initiator that fails over changes them.
    echo 1 >"$alua/alua_access_type"
    # What stands there else makes every command on a non-optimized port slower.
    echo 0 >"$alua/nonop_delay_msecs"
  done
}

# iscsi_target DISK: as LUN 0 behind both portals, open to every initiator
iscsi_target() {
  modprobe iscsi_target_mod
  mkdir -p $fabric
  for group in 1 2; do
    tpg=$fabric/$iqn/tpgt_$group
    mkdir -p "$tpg/np/127.0.1.$group:3260"
    echo 0 >"$tpg/attrib/authentication"
    echo 0 >"$tpg/attrib/demo_mode_write_protect"
    echo 1 >"$tpg/attrib/generate_node_acls"
    echo 1 >"$tpg/attrib/cache_dynamic_acls"
    mkdir "$tpg/lun/lun_0"
    ln -s "$core/fileio_0/$1" "$tpg/lun/lun_0/$1"
    echo g$group >"$tpg/lun/lun_0/alua_tg_pt_gp"
    echo 1 >"$tpg/enable"
  done
}

# alua DISK 1|2 STATE [SECONDS]: 0 optimized, 1 non-optimized, 2 standby, 3 unavailable; by way of a transition that takes
# so long
alua() {
  group=$core/fileio_0/$1/alua/g$2
  echo $((${4-0} * 1000)) >"$group/trans_delay_msecs"
  echo "$3" >"$group/alua_access_state"
}

# initiator [NAME=VALUE...]: the kernel's, logged in to both portals with these settings of open-iscsi
initiator() {
  modprobe -a iscsi_tcp sd_mod sg scsi_dh_alua
  echo InitiatorName=iqn.2003-01.org.example:kernel >/etc/iscsi/initiatorname.iscsi
  pidof iscsid >/dev/null || iscsid
  for group in 1 2; do
    node="-m node -T $iqn -p 127.0.1.$group:3260,$group"
    iscsiadm $node -o new >/dev/null
    for setting; do
      iscsiadm $node -o update -n "${setting%%=*}" -v "${setting#*=}"
    done
    iscsiadm $node -l >/dev/null
  done
  udevadm settle
}

# disk_of 1|2: the kernel's name (sda...) of the disk behind a portal
disk_of() {
  for session in /sys/class/iscsi_session/session*; do
    [ "$(cat "$session"/device/connection*/iscsi_connection/*/persistent_address)" != "127.0.1.$1" ] ||
      ls -d "$session"/device/target*/*/block/* | sed 's|.*/||'
  done
}

# session_of 1|2: the kernel's name (session1...) of the session with a portal
session_of() {
  for session in /sys/class/iscsi_session/session*; do
    [ "$(cat "$session"/device/connection*/iscsi_connection/*/persistent_address)" != "127.0.1.$1" ] ||
      basename "$session"
  done
}

# blinded 1|2 COMMAND...: runs it so that it does not see how the kernel's session and disk of a portal are doing
blinded() {
  echo LOGGED_IN >/run/lab/session
  echo running >/run/lab/device
  session=/sys/class/iscsi_session/$(session_of "$1")/state
  device=/sys/block/$(disk_of "$1")/device/state
  shift
  exec unshare -m sh -c '
    mount --bind /run/lab/session "$1"
    mount --bind /run/lab/device "$2"
    shift 2
    exec "$@"' sh "$session" "$device" "$@"
}

wire() {
  nft list table ip wire >/dev/null 2>&1 ||
    nft 'add table ip wire; add chain ip wire input { type filter hook input priority 0; }'
  nft "add rule ip wire input $*"
}

# reset 1|2 [once]: the portal's connections end by RST, and it refuses new ones
reset() {
  [ "${2-}" = once ] || wire "ip daddr 127.0.1.$1 tcp dport 3260 reject with tcp reset"
  ss -K -H state established src "127.0.1.$1" sport = :3260 >/dev/null
}

# silence 1|2: nothing arrives any more, either way
silence() {
  wire "ip daddr 127.0.1.$1 tcp dport 3260 drop"
  wire "ip saddr 127.0.1.$1 tcp sport 3260 drop"
}

# hold_answers 1|2: the array executes and nobody hears of it
hold_answers() { wire "ip saddr 127.0.1.$1 tcp sport 3260 drop"; }

# slow 1|2 MILLISECONDS: answers take so much longer
slow() {
  modprobe -a sch_prio sch_netem cls_u32
  tc qdisc add dev lo root handle 1: prio bands 4 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
  tc qdisc add dev lo parent 1:4 netem delay "$2ms" limit 100000
  tc filter add dev lo parent 1: protocol ip u32 match ip src "127.0.1.$1/32" flowid 1:4
}

# mend: all wires are as they were
mend() {
  nft flush ruleset
  tc qdisc del dev lo root 2>/dev/null || true
}

# logout: the kernel's initiator has no session any more
logout() {
  iscsiadm -m node -u >/dev/null
  iscsiadm -m node -o delete >/dev/null
}

# remove_target DISK, remove_loop DISK: what iscsi_target, loop_target and lio_disk have made
remove_target() {
  for group in 1 2; do
    tpg=$fabric/$iqn/tpgt_$group
    echo 0 >"$tpg/enable"
    rm "$tpg/lun/lun_0/$1"
    rmdir "$tpg/lun/lun_0" "$tpg/np/127.0.1.$group:3260" "$tpg"
  done
  rmdir "$fabric/$iqn"
  remove_disk "$1"
}
remove_loop() {
  for group in 1 2; do
    tpg=$(loop_tpg $group)
    rm "$tpg/lun/lun_0/$1"
    rmdir "$tpg/lun/lun_0"
    echo NULL >"$tpg/nexus"
    rmdir "$tpg" "${tpg%/*}"
  done
  remove_disk "$1"
}
remove_disk() {
  rmdir "$core/fileio_0/$1"/alua/g1 "$core/fileio_0/$1"/alua/g2 "$core/fileio_0/$1"
  rm "/run/disk-$1"
}

# loop_target DISK: as LUN 0 of two hosts of the kernel
loop_tpg() { echo "/sys/kernel/config/target/loopback/naa.600140500000000$1/tpgt_1"; }
loop_target() {
  modprobe -a tcm_loop sd_mod sg
  for group in 1 2; do
    tpg=$(loop_tpg $group)
    mkdir -p "$tpg"
    echo "naa.600140600000000$group" >"$tpg/nexus"
    mkdir "$tpg/lun/lun_0"
    ln -s "$core/fileio_0/$1" "$tpg/lun/lun_0/$1"
    echo g$group >"$tpg/lun/lun_0/alua_tg_pt_gp"
  done
  udevadm settle
}

# loop_nodes: their sg nodes' names, in order
loop_nodes() {
  for group in 1 2; do
    address=$(cat "$(loop_tpg $group)/address")
    ls "/sys/bus/scsi/devices/$address:0/scsi_generic" 2>/dev/null || ls /sys/bus/scsi/devices/$address*/scsi_generic
  done
}

# loop_transport 1|2 online|offline
loop_transport() { echo "$2" >"$(loop_tpg "$1")/transport_status"; }
