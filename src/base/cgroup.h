/* cgroup: the CPUs and the memory that the control groups of this process leave it.
 *
 * A container, a systemd unit or a batch system limits a process by the group that it is in, and by every group above
 * that; the least limit holds.  Both versions of the kernel's interface are read: /proc/self/cgroup names the group of
 * the process in each hierarchy, /proc/self/mountinfo where a hierarchy is mounted and which of its groups is at the
 * mount point.  A group that no mount shows (that of the host, seen from a container) cannot be asked; of its hierarchy
 * the group at the mount point is asked alone.
 *
 * `root` is put before every path: "" for this machine, a folder of files in tests. */
#ifndef ZGEN_BASE_CGROUP_H
#define ZGEN_BASE_CGROUP_H

/* CPUs that run the whole time, at least 1; INT_MAX without a quota.  A quota of 1.5 CPUs gives 1: two threads would
 * have used it up after three quarters of each period, and then stand still for the last one. */
int cgroup_cpus(const char *root);

/* Bytes that may still be allocated, at least 0; INFINITY without a limit.  The group's page cache of files counts as
 * free, because the kernel drops it first. */
double cgroup_memory(const char *root);

#endif
