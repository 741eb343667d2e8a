/* cgroup: limits of trees of files that a kernel would show, in a temporary folder. */
#include "check.h"
#include "../../src/base/cgroup.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[40];

static bool begin_tree(void) {
    strcpy(root, "/tmp/zgen-cgroup-XXXXXX");
    return mkdtemp(root) != NULL;
}

static void end_tree(void) {
    char command[80];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    CHECK(system(command) == 0);
}

/* Writes a file below the root, with its folders. */
static void file(const char *path, const char *text) {
    char whole[400];
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *slash = whole + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(whole, 0777);
        *slash = '/';
    }
    FILE *f = fopen(whole, "w");
    REQUIRE(f, "%s", whole);
    fputs(text, f);
    fclose(f);
}

#define V2_MOUNT "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

TEST(cgroup_v2_asks_the_own_group_and_all_above) {
    REQUIRE(begin_tree());
    file("proc/self/cgroup", "0::/user.slice/job.scope\n");
    file("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" V2_MOUNT);
    file("sys/fs/cgroup/user.slice/job.scope/cpu.max", "max 100000\n");
    file("sys/fs/cgroup/user.slice/job.scope/memory.max", "max\n");
    file("sys/fs/cgroup/user.slice/job.scope/memory.current", "5000\n");
    CHECK(cgroup_cpus(root) == INT_MAX);
    CHECK(isinf(cgroup_memory(root)));
    file("sys/fs/cgroup/user.slice/cpu.max", "300000 100000\n");
    file("sys/fs/cgroup/user.slice/memory.max", "1000000\n");
    file("sys/fs/cgroup/user.slice/memory.current", "900000\n");
    file("sys/fs/cgroup/user.slice/memory.stat",
         "anon 1\nfile 700000\nshmem 3\ninactive_file 400000\nactive_file 200000\n");
    CHECK(cgroup_cpus(root) == 3, "that of the ancestor");
    CHECK(cgroup_memory(root) == 700000, "%g: page cache can be reclaimed", cgroup_memory(root));
    file("sys/fs/cgroup/user.slice/job.scope/cpu.max", "100000 100000\n");
    file("sys/fs/cgroup/user.slice/job.scope/memory.high", "45000\n");
    CHECK(cgroup_cpus(root) == 1, "that of the process");
    CHECK(cgroup_memory(root) == 40000, "%g", cgroup_memory(root));
    file("sys/fs/cgroup/user.slice/job.scope/memory.current", "50000\n");
    CHECK(cgroup_memory(root) == 0, "more is used than allowed");
    end_tree();
}

TEST(cgroup_rounds_a_quota_down) {
    REQUIRE(begin_tree());
    file("proc/self/cgroup", "0::/\n");
    file("proc/self/mountinfo", V2_MOUNT);
    file("sys/fs/cgroup/cpu.max", "150000 100000\n");
    CHECK(cgroup_cpus(root) == 1);
    file("sys/fs/cgroup/cpu.max", "20000 100000\n");
    CHECK(cgroup_cpus(root) == 1);
    file("sys/fs/cgroup/cpu.max", "400000 200000\n");
    CHECK(cgroup_cpus(root) == 2);
    end_tree();
}

#define V1_MOUNTS                                                                                            \
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"                                             \
    "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"                                      \
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n"          \
    "34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
#define V1_GROUPS "5:memory:/batch/7\n4:cpu,cpuacct:/batch/7\n3:cpuset:/other\n1:name=systemd:/\n0::/\n"

TEST(cgroup_v1_asks_the_hierarchy_of_each_controller) {
    REQUIRE(begin_tree());
    file("proc/self/cgroup", V1_GROUPS);
    file("proc/self/mountinfo", V1_MOUNTS);
    file("sys/fs/cgroup/cpu,cpuacct/batch/7/cpu.cfs_quota_us", "-1\n");
    file("sys/fs/cgroup/cpu,cpuacct/batch/7/cpu.cfs_period_us", "100000\n");
    file("sys/fs/cgroup/memory/batch/7/memory.limit_in_bytes", "9223372036854771712\n");
    file("sys/fs/cgroup/memory/batch/7/memory.usage_in_bytes", "1000\n");
    file("sys/fs/cgroup/cpuset/other/cpu.cfs_quota_us", "100000\n");
    file("sys/fs/cgroup/cpuset/other/cpu.cfs_period_us", "100000\n");
    CHECK(cgroup_cpus(root) == INT_MAX);
    CHECK(cgroup_memory(root) > 9e18);
    file("sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us", "100000\n");
    file("sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_period_us", "100000\n");
    file("sys/fs/cgroup/memory/batch/7/memory.limit_in_bytes", "300000000\n");
    file("sys/fs/cgroup/memory/batch/7/memory.usage_in_bytes", "100000000\n");
    file("sys/fs/cgroup/memory/batch/7/memory.stat",
         "inactive_file 1\nactive_file 2\ntotal_inactive_file 40000000\ntotal_active_file 10000000\n");
    CHECK(cgroup_cpus(root) == 1);
    CHECK(cgroup_memory(root) == 250e6, "%g", cgroup_memory(root));
    end_tree();
}

TEST(cgroup_finds_groups_below_other_mount_points) {
    REQUIRE(begin_tree());
    /* A container that sees its own group at the mount point, with white space in its path. */
    file("proc/self/cgroup", "0::/docker/my box/worker\n");
    file("proc/self/mountinfo",
         "30 23 0:26 /docker/my\\040box /sys/fs/control\\040groups ro - cgroup2 cgroup2 rw\n");
    file("sys/fs/control groups/worker/cpu.max", "200000 100000\n");
    CHECK(cgroup_cpus(root) == 2);
    /* Its name is only the beginning of another one's: the group at the mount point is asked. */
    file("proc/self/cgroup", "0::/docker/my box 2/worker\n");
    CHECK(cgroup_cpus(root) == INT_MAX);
    file("sys/fs/control groups/cpu.max", "500000 100000\n");
    CHECK(cgroup_cpus(root) == 5);
    end_tree();
}

TEST(cgroup_missing_or_odd_files_are_no_limit) {
    REQUIRE(begin_tree());
    CHECK(cgroup_cpus(root) == INT_MAX && isinf(cgroup_memory(root)));
    file("proc/self/cgroup", "nothing\n0:\n::\n0::/a\n");
    file("proc/self/mountinfo", "\n - \n1 2 3\n30 23 0:26 / - cgroup2\n" V2_MOUNT);
    CHECK(cgroup_cpus(root) == INT_MAX && isinf(cgroup_memory(root)));
    file("sys/fs/cgroup/a/cpu.max", "");
    file("sys/fs/cgroup/a/memory.max", "100\n");
    CHECK(cgroup_cpus(root) == INT_MAX && isinf(cgroup_memory(root)));
    file("sys/fs/cgroup/a/cpu.max", "100000 0\n");
    CHECK(cgroup_cpus(root) == INT_MAX);
    end_tree();
}
